"""How many examples a property is tried with."""

from __future__ import annotations

from hypothesis import settings


def at_least(examples: int) -> int:
    """Return ``examples``, or the number of the profile in use where that is larger."""
    profile = settings.default
    return examples if profile is None else max(examples, profile.max_examples)
