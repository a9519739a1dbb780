"""The connection limit as a table: who holds a slot, who may take one, and when it is free."""

from spotd.simulator.connection_slots import ConnectionSlots

IEX, SIP = ("iex", "key"), ("sip", "key")


def test_slots_are_per_endpoint_and_can_be_freed() -> None:
    """A full endpoint refuses the newer session; another endpoint has slots of its own."""
    slots = ConnectionSlots()
    assert slots.take(1, IEX, 1, 0.0)
    assert not slots.take(2, IEX, 1, 0.0)
    assert slots.take(3, SIP, 1, 0.0)
    slots.free(1)
    assert slots.take(2, IEX, 1, 0.0)


def test_a_hold_lapses_at_its_time() -> None:
    """The slot of a vanished session is taken until then, and free from then on."""
    slots = ConnectionSlots()
    slots.take(1, IEX, 1, 0.0)
    slots.hold(1, until=90.0)
    assert not slots.take(2, IEX, 1, 89.9)
    assert slots.take(2, IEX, 1, 90.0)


def test_only_taken_slots_are_held() -> None:
    """A session that never authenticated holds no slot after it vanished."""
    slots = ConnectionSlots()
    slots.hold(1, until=90.0)
    assert slots.take(2, IEX, 1, 0.0)
