"""The REST rate limit as a table: requests and minutes in, headers and refusals out."""

from spotd.simulator.rate_limit import UNLIMITED, RateLimit

MINUTE_S = 1_700_000_040.0  # the beginning of a minute


def test_requests_are_counted_per_key_and_minute() -> None:
    """One request too many is refused; the next minute and another key begin anew."""
    limit = RateLimit()
    table = [
        ("a", 0.0, True, "1", 60),
        ("a", 30.0, True, "0", 60),
        ("a", 59.9, False, "0", 60),
        ("b", 59.9, True, "1", 60),
        ("a", 60.0, True, "1", 120),
    ]
    for key, after_s, allowed, left, reset_s in table:
        assert limit.count(key, 2, MINUTE_S + after_s) == (
            allowed,
            {
                "X-RateLimit-Limit": "2",
                "X-RateLimit-Remaining": left,
                "X-RateLimit-Reset": str(int(MINUTE_S) + reset_s),
            },
        )


def test_without_a_limit_nothing_is_refused() -> None:
    """The headers then show the limit of Alpaca's paid plan, and never less than 0 left."""
    limit = RateLimit()
    answers = [limit.count("a", None, MINUTE_S) for _ in range(UNLIMITED + 1)]
    assert all(allowed for allowed, _ in answers)
    assert answers[0][1]["X-RateLimit-Remaining"] == str(UNLIMITED - 1)
    assert answers[-1][1]["X-RateLimit-Remaining"] == "0"


def test_a_limit_of_zero_refuses_everything() -> None:
    """Zero is a limit, not the absence of one."""
    assert not RateLimit().count("a", 0, MINUTE_S)[0]
