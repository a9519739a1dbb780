"""Every Redis name, built from the two prefixes, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of one daemon. Daemons with different prefixes do not touch each other's keys."""

    key_prefix: str = "spotd:"
    channel_prefix: str = "spot:"

    @property
    def symbols(self) -> str:
        """Set: plain demand."""
        return f"{self.key_prefix}symbols"

    @property
    def leases(self) -> str:
        """Sorted set: ``SYMBOL@owner`` scored by the unix time, in seconds, at which it lapses."""
        return f"{self.key_prefix}leases"

    @property
    def wake(self) -> str:
        """Channel: any message tells the daemon to read the demand now."""
        return f"{self.key_prefix}wake"

    @property
    def last(self) -> str:
        """Hash: symbol to its newest SpotPriceUpdate JSON."""
        return f"{self.key_prefix}last"

    @property
    def states(self) -> str:
        """Hash: symbol, or refused entry, to its SymbolState JSON."""
        return f"{self.key_prefix}states"

    @property
    def status(self) -> str:
        """String with a TTL: DaemonStatus JSON."""
        return f"{self.key_prefix}status"

    @property
    def events(self) -> str:
        """Channel: DaemonStatus and SymbolState JSON at every change, and each Gap."""
        return f"{self.key_prefix}events"

    @property
    def leader(self) -> str:
        """String with a TTL: the token of the one daemon that may connect and publish."""
        return f"{self.key_prefix}leader"

    @property
    def seq(self) -> str:
        """String: the highest ``seq`` published, and the token of the daemon that published it.

        A successor starts above it.
        """
        return f"{self.key_prefix}seq"

    @property
    def leaders(self) -> str:
        """Channel: the token of each daemon that publishes under the channel prefix.

        Neither the key prefix nor the number of the database is in the name, so all of them meet.
        """
        return f"leaders:{self.channel_prefix}"

    def channel(self, symbol: str) -> str:
        """Return the channel of one symbol's updates."""
        return f"{self.channel_prefix}{symbol}"
