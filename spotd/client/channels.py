"""Decides what to ask the server for, and from when on a channel is subscribed.

Must not talk to anything, and must not know what a channel stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple


class Commands(NamedTuple):
    """Channels to subscribe to and to unsubscribe from."""

    subscribe: list[bytes]
    unsubscribe: list[bytes]


class Channels:
    """The channels of one connection: what was asked of the server, and what it has confirmed.

    The server confirms each command for each channel, in the order of the commands. As a
    consequence, a channel is subscribed exactly if its last command was SUBSCRIBE and the server
    has confirmed as many commands as were sent.
    """

    def __init__(self) -> None:
        self._asked: set[bytes] = set()
        self._unconfirmed: dict[bytes, int] = {}

    def commands(self, changed: Iterable[bytes], is_wanted: Callable[[bytes], bool]) -> Commands:
        """Return what to send for channels that may have changed; it counts as sent."""
        commands = Commands([], [])
        for channel in changed:
            wanted = is_wanted(channel)
            if wanted == (channel in self._asked):
                continue
            if wanted:
                self._asked.add(channel)
                commands.subscribe.append(channel)
            else:
                self._asked.remove(channel)
                commands.unsubscribe.append(channel)
            self._unconfirmed[channel] = self._unconfirmed.get(channel, 0) + 1
        return commands

    def confirmed(self, channel: bytes) -> None:
        """Take in the confirmation of one command."""
        left = self._unconfirmed.get(channel, 0) - 1
        if left > 0:
            self._unconfirmed[channel] = left
        else:
            self._unconfirmed.pop(channel, None)

    def is_subscribed(self, channel: bytes) -> bool:
        """Return whether every message of the channel arrives from now on."""
        return channel in self._asked and channel not in self._unconfirmed
