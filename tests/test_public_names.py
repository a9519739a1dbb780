"""What ``import spotd`` offers to programs."""

from __future__ import annotations

import pytest

import spotd


def test_every_public_name_is_found() -> None:
    """Names are looked up on first use, so one that leads nowhere would fail only there."""
    assert [name for name in spotd.__all__ if not hasattr(spotd, name)] == []
    assert dir(spotd) == sorted(spotd.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = spotd.Nothing
