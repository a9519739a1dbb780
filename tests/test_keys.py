"""Every Redis name of the wire contract."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from spotd.keys import Keys

NAMES = ("symbols", "leases", "wake", "last", "states", "status", "events", "leader", "seq")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stands_under_the_key_prefix(name: str) -> None:
    """A name is the contract's by default, and under another prefix another daemon's."""
    assert getattr(Keys(), name) == f"spotd:{name}"
    assert getattr(Keys("{sip}:", "sip:"), name) == f"{{sip}}:{name}"


def test_a_channel_stands_under_the_channel_prefix() -> None:
    """Each symbol has a channel under the channel prefix."""
    assert Keys().channel("BRK.B") == "spot:BRK.B"
    assert Keys("{sip}:", "sip:").channel("SPY") == "sip:SPY"


def test_all_daemons_of_a_channel_prefix_meet() -> None:
    """Whoever publishes on the same channels says so on one channel, which is none of theirs."""
    assert Keys("a:", "spot:").leaders == Keys("b:", "spot:").leaders == "leaders:spot:"
    assert Keys("a:", "sip:").leaders != Keys("a:", "spot:").leaders


def test_there_is_no_other_name() -> None:
    """Every name is in the tests above; a new one belongs there and in the contract."""
    named = {name for name, value in vars(Keys).items() if isinstance(value, property)}
    assert named == {*NAMES, "leaders"}


def test_names_do_not_change_under_a_running_daemon() -> None:
    """The names are frozen, and equal where the prefixes are."""
    assert Keys() == Keys("spotd:", "spot:")
    with pytest.raises(FrozenInstanceError):
        Keys().key_prefix = "?"  # type: ignore[misc]
