"""The servers of one topology, and which of them holds spotd's keys. Talks to servers."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import redis

from spotd.keys import Keys
from tests.kit.servers import ClusterServers, SentinelServers, Server, redis_server
from tests.soak.plan import Topology

_KEPT = ("--appendonly", "yes", "--appendfsync", "everysec", "--no-appendfsync-on-rewrite", "yes")

_OWNER_KNOWN_S = 0.3  # every loop of the soak asks who owns the keys


class Servers:
    """All servers of a topology. ``keys`` are the names that the daemons use on it."""

    def __init__(self, topology: Topology, directory: Path) -> None:
        self.topology = topology
        self.keys = Keys("{spotd}:") if topology == "cluster" else Keys()
        self._stack = ExitStack()
        self._one: Server | None = None
        self._sentinel: SentinelServers | None = None
        self._cluster: ClusterServers | None = None
        self._frozen: set[int] = set()
        self._dead: set[int] = set()
        self._owner_port = 0
        self.moves = 0  # how often the keys were found at another server than before
        self._owner_asked_at = 0.0
        if topology == "server":
            self._one = Server(directory, *_KEPT, binary=redis_server())
        elif topology == "sentinel":
            self._sentinel = SentinelServers(directory, down_after_ms=400)
        else:
            self._cluster = ClusterServers(directory)

    def __enter__(self) -> Self:
        """Start all."""
        for servers in (self._one, self._sentinel, self._cluster):
            if servers is not None:
                self._stack.enter_context(servers)
        if self._cluster is not None:
            self._cluster.add_replica(self._cluster.owner(self.keys.leader))
        return self

    def __exit__(self, *_: object) -> None:
        """Kill all."""
        self._stack.close()

    @property
    def url(self) -> str:
        """What SPOTD_REDIS_URL is set to."""
        for servers in (self._one, self._sentinel, self._cluster):
            if servers is not None:
                return servers.url
        raise AssertionError("there is one of three")

    @property
    def data(self) -> list[Server]:
        """The servers that hold data."""
        if self._one is not None:
            return [self._one]
        if self._sentinel is not None:
            return [self._sentinel.master, self._sentinel.replica]
        assert self._cluster is not None
        return self._cluster.nodes

    def pids(self) -> list[int]:
        """Return the processes that run and are not frozen."""
        return [server.pid for server in self.spared()]

    def spared(self) -> list[Server]:
        """Return the servers that run and are not frozen."""
        return [s for s in self.data if s.port not in self._dead | self._frozen]

    def owner(self) -> Server:
        """Return the server that holds spotd's keys. Blocks for some milliseconds."""
        port, now = self._owner_port, time.monotonic()
        if port and now - self._owner_asked_at < _OWNER_KNOWN_S:
            return next(server for server in self.data if server.port == port)
        self._owner_asked_at = now
        if self._sentinel is not None:
            with (
                contextlib.suppress(redis.RedisError),
                self._sentinel.sentinel.client(socket_timeout=0.5) as client,
            ):
                port = int(client.sentinel_get_master_addr_by_name(self._sentinel.service)[1])
        elif self._cluster is not None:
            port = self._owner_in_cluster() or port
        owner = next((server for server in self.data if server.port == port), self.data[0])
        if self._owner_port not in (0, owner.port):
            self.moves += 1
        self._owner_port = owner.port
        return owner

    @property
    def owner_port(self) -> int:
        """The port of the server that held the keys when it was last asked for."""
        return self._owner_port

    def reader(self) -> Server:
        """Return a server that PUBLISH reaches and that faults spare, if there is one.

        On Sentinel this is the present master: after a fail-over the other one may be gone.
        """
        owner = self.owner()
        if self._cluster is None:
            return owner
        return next((node for node in self.spared() if node is not owner), owner)

    # What a fault does

    def kill(self, server: Server) -> None:
        """Kill a server."""
        self._dead.add(server.port)
        server.kill()

    def start(self, server: Server, *, lose_data: bool) -> None:
        """Start it again."""
        server.restart(lose_data=lose_data)
        self._dead.discard(server.port)

    def freeze(self, server: Server) -> None:
        """Freeze a server."""
        self._frozen.add(server.port)
        server.freeze()

    def thaw(self, server: Server) -> None:
        """Let it go on."""
        server.thaw()
        self._frozen.discard(server.port)

    def command(self, *words: Any) -> None:
        """Run a command on the server that holds the keys; one that fails does not matter."""
        with (
            contextlib.suppress(redis.RedisError, OSError),
            self.owner().client(socket_timeout=1.0) as client,
        ):
            client.execute_command(*words)

    def fail_over(self) -> None:
        """Have a replica become the master, as an operator does."""
        if self._sentinel is not None:
            with contextlib.suppress(redis.RedisError, OSError):
                self._sentinel.fail_over()
            return
        for server in self.data:  # a master refuses it
            with (
                contextlib.suppress(redis.RedisError, OSError),
                server.client(socket_timeout=1.0) as client,
            ):
                client.execute_command("CLUSTER", "FAILOVER")

    def _owner_in_cluster(self) -> int:
        """Return the port of the owner as most nodes see it, 0 if none tells."""
        seen: Counter[int] = Counter()
        for node in self.spared():
            with (
                contextlib.suppress(redis.RedisError, OSError),
                node.client(socket_timeout=0.5) as client,
            ):
                slot = int(client.execute_command("CLUSTER", "KEYSLOT", self.keys.leader))
                for first, last, master, *_ in client.execute_command("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        seen[int(master[1])] += 1
        return seen.most_common(1)[0][0] if seen else 0
