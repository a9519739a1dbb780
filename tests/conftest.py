"""Profiles of Hypothesis. No example has a deadline: how fast one runs is the machine's doing."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("default", deadline=None)
settings.register_profile("long", deadline=None, max_examples=5_000)
settings.load_profile("default")
