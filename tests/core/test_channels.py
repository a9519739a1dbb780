"""Whether wakes are heard, and whether another daemon leads on the same channels."""

from __future__ import annotations

from spotd.core.channels import UNHEARD_AFTER_S, ChannelMonitor, Channels
from spotd.core.leadership import RENEWALS_PER_TTL

TTL_S = 5.0
EVERY_S = TTL_S / RENEWALS_PER_TTL


def monitor() -> ChannelMonitor:
    """Return a monitor of a daemon whose tokens begin with ``me``."""
    return ChannelMonitor(lambda token: token.startswith("me"), ttl_s=TTL_S)


class TestUnheard:
    def test_a_refusal_is_said_at_once(self) -> None:
        """A refusal stays until somebody changes it, so it is said at once, and once."""
        channels = monitor()
        said = channels.failed(0.0, "no permission", refused=True, away=False)
        assert said == Channels(unheard="no permission")
        assert channels.failed(1.0, "other words", refused=True, away=False) is said
        assert channels.listening() == Channels()

    def test_a_failure_is_said_when_it_lasts(self) -> None:
        """Another failure may pass by itself, and is said when it has lasted for 3 s."""
        channels = monitor()
        assert channels.failed(0.0, "no answer", refused=False, away=False) == Channels()
        before = UNHEARD_AFTER_S - 0.01
        assert channels.failed(before, "no answer", refused=False, away=False) == Channels()
        lasting = channels.failed(UNHEARD_AFTER_S, "no answer", refused=False, away=False)
        assert lasting.unheard == "no answer"

    def test_success_ends_a_row_of_failures(self) -> None:
        """The 3 s are those of failures in a row."""
        channels = monitor()
        channels.failed(0.0, "no answer", refused=False, away=False)
        channels.listening()
        assert channels.failed(9.0, "no answer", refused=False, away=False) == Channels()

    def test_a_redis_that_is_away_is_said_elsewhere(self) -> None:
        """While no call is answered nothing is said of wakes, and the 3 s begin afterwards."""
        channels = monitor()
        channels.failed(0.0, "no permission", refused=True, away=False)
        assert channels.failed(1.0, "no answer", refused=False, away=True) == Channels()
        assert channels.failed(9.0, "no answer", refused=False, away=False) == Channels()
        said = channels.failed(9.0 + UNHEARD_AFTER_S, "no answer", refused=False, away=False)
        assert said.unheard == "no answer"


class TestOtherLeader:
    def test_heard_twice_in_a_term(self) -> None:
        """A leader that renews its key while we have ours has another key: another database."""
        channels = monitor()
        assert channels.announced("other", 0.0, term=1) == Channels()
        assert channels.announced("me:1", 1.0, term=1) == Channels()
        assert channels.announced("other", EVERY_S, term=1).other_leader == "other"

    def test_a_former_leader_is_heard_once(self) -> None:
        """What the former leader said last may arrive late, and proves nothing."""
        channels = monitor()
        channels.announced("former", 0.0, term=None)
        assert channels.announced("former", 0.1, term=1) == Channels()
        channels.announced("former", 9.0, term=2)
        assert channels.announced("another", 9.1, term=2) == Channels()

    def test_only_the_leader_judges(self) -> None:
        """A standby hears the leader of its own database all the time."""
        channels = monitor()
        for at in range(5):
            assert channels.announced("other", float(at), term=None) == Channels()

    def test_it_goes(self) -> None:
        """It is said until the other one was not heard for the TTL of the leader key."""
        channels = monitor()
        for at in (0.0, EVERY_S):
            channels.announced("other", at, term=1)
        until = EVERY_S + TTL_S
        assert channels.announced("me:1", until - 0.01, term=1).other_leader == "other"
        assert channels.announced("me:1", until, term=1) == Channels()

    def test_it_renews_less_often(self) -> None:
        """One with a longer TTL is said from the second renewal on, without a break."""
        channels = monitor()
        for at in (0.0, 40.0, 80.0):
            channels.announced("other", at, term=1)
        assert channels.announced("me:1", 110.0, term=1).other_leader == "other"

    def test_the_end_of_our_term(self) -> None:
        """With the end of our term, or of the listening, nothing is known any more."""
        for end in (None, 2):
            channels = monitor()
            for at in (0.0, 1.0):
                channels.announced("other", at, term=1)
            assert channels.announced("other", 2.0, term=end) == Channels()
        channels = monitor()
        for at in (0.0, 1.0):
            channels.announced("other", at, term=1)
        assert channels.failed(2.0, "lost", refused=False, away=False) == Channels()

    def test_nothing_new(self) -> None:
        """While nothing changes the value is the same object."""
        channels = monitor()
        channels.announced("other", 0.0, term=1)
        said = channels.announced("other", 1.0, term=1)
        assert channels.announced("other", 2.0, term=1) is said
