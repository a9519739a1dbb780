"""The connection limit as a table: who sits, who may sit down, and when a seat is free."""

from spotd.simulator.seats import Seats

IEX, SIP = ("iex", "key"), ("sip", "key")


def test_seats_are_per_endpoint_and_freed() -> None:
    """A full endpoint refuses the new one; another endpoint does not mind."""
    seats = Seats()
    assert seats.take(1, IEX, 1, 0.0)
    assert not seats.take(2, IEX, 1, 0.0)
    assert seats.take(3, SIP, 1, 0.0)
    seats.free(1)
    assert seats.take(2, IEX, 1, 0.0)


def test_a_hold_lapses_at_its_time() -> None:
    """Until then the seat is taken, from then on free."""
    seats = Seats()
    seats.take(1, IEX, 1, 0.0)
    seats.hold(1, until=90.0)
    assert not seats.take(2, IEX, 1, 89.9)
    assert seats.take(2, IEX, 1, 90.0)


def test_only_taken_seats_are_held() -> None:
    """A session that never authenticated leaves nothing behind."""
    seats = Seats()
    seats.hold(1, until=90.0)
    assert seats.take(2, IEX, 1, 0.0)
