"""What spreading readers over servers costs, and whether all of them hear everything.

    python -m tests.bench.scale_out [--rate 57500] [--only replicas,cluster,fan-out] …

One publisher sends spotd's own script to one server. Readers hear all channels, and count:

- one: readers on that server alone
- replicas: readers spread over a master and 2 replicas
- cluster: readers spread over 3 nodes, of which one owns the keys
- fan-out: 1,000 connections with 10 of 500 symbols each, on one server, at 2,500 updates/s;
  beside it the same without subscribers, and 10 connections that hear all

Lost is what was published and not heard. CPU time is the scheduler's own count.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from spotd.keys import Keys
from tests.bench import frames
from tests.bench.orders import Json, Worker
from tests.bench.setup import cpu_ns
from tests.kit.servers import ClusterServers, Server, redis_server
from tests.kit.waiting import until_sync

_PREFIX = "{spotd}:"  # one slot in a cluster
_PATTERN = "spot:*"
_STILL_S = 3.0  # of silence after the end: then a reader has heard all that it will
_AT_ONCE = 100  # connections that one order opens
# The fan-out
_SYMBOLS, _RATE, _CONNECTIONS, _EACH, _HEAR_ALL = 500, 2_500.0, 1_000, 10, 10


class Bench:
    """The arguments, and the processes of one measurement."""

    def __init__(self, options: argparse.Namespace, home: Path) -> None:
        self.options = options
        self.binary = redis_server() if options.server == "redis" else None
        self._home = home
        self._number = 0

    def directory(self) -> Path:
        """Return a new directory."""
        self._number += 1
        path = self._home / str(self._number)
        path.mkdir()
        return path

    @contextmanager
    def replicated(self, replicas: int) -> Iterator[list[Server]]:
        """Yield a master and its replicas."""
        home = self.directory()
        with ExitStack() as stack:
            master = stack.enter_context(
                Server(home / "master", "--repl-diskless-sync-delay", "0", binary=self.binary)
            )
            servers = [master]
            for number in range(replicas):
                of = ("--replicaof", "127.0.0.1", str(master.port))
                servers.append(Server(home / f"replica{number}", *of, binary=self.binary))
                stack.enter_context(servers[-1])
                _linked(servers[-1])
            yield servers

    @contextmanager
    def clustered(self) -> Iterator[tuple[list[Server], str]]:
        """Yield the nodes, that which owns the keys first, and the URL of the cluster."""
        cluster = ClusterServers(self.directory())
        for node in cluster.nodes:
            node.binary = self.binary or node.binary
        with cluster:
            yield sorted(cluster.nodes, key=_owns_no_key), cluster.url

    @contextmanager
    def workers(
        self, url: str, symbols: int, *modules: tuple[str, Server]
    ) -> Iterator[list[Worker]]:
        """Yield a publisher, and a worker of each module at its server."""
        home = self.directory()
        with ExitStack() as stack:
            found: list[Worker] = []
            arguments: list[tuple[str, tuple[str, ...]]] = [
                ("scale_publisher", (url, _PREFIX, str(symbols)))
            ]
            arguments += [(module, (str(server.port),)) for module, server in modules]
            for number, (module, more) in enumerate(arguments):
                found.append(Worker(f"{module}{number}", module, *more, home=home))
                stack.callback(found[-1].kill)
            yield found


def _owns_no_key(node: Server) -> bool:
    with node.client() as client:
        try:
            client.get(Keys(_PREFIX).leader)
        except redis.ResponseError:  # MOVED
            return True
    return False


def _linked(replica: Server) -> None:
    with replica.client() as client:
        until_sync(lambda: client.info("replication")["master_link_status"] == "up", "the replica")


def spread(bench: Bench, name: str, servers: list[Server], url: str) -> None:
    """Publish to the first server while readers are spread over all. Print what it took."""
    options = bench.options
    places = [servers[number % len(servers)] for number in range(options.readers)]
    with bench.workers(url, options.symbols, *(("reader", each) for each in places)) as workers:
        publisher, *readers = workers
        for reader in readers:
            reader.ask("psubscribe", pattern=_PATTERN)
        warm = publisher.ask("publish", rate=options.rate, seconds=1.0)["published"]
        firsts = [_settled(reader, warm) for reader in readers]
        used = _cores(servers, {"publisher": [publisher], "readers": readers})
        found = publisher.ask("publish", rate=options.rate, seconds=options.seconds)
        cores = used()
        _say(f"{name}: {found['per_s']:,.0f} updates/s in {found['calls']:,} calls; {cores}")
        for server, reader, first in zip(places, readers, firsts, strict=True):
            end = _settled(reader, first + found["published"])
            lag = reader.ask("lags", first=first, end=end) if end > first else {}
            spread_ms = ", ".join(f"{at} {lag.get(at, 0):.1f}" for at in ("p50", "p99", "max"))
            lost = found["published"] - (end - first)
            _say(f"  reader of server {servers.index(server)}: lost {lost:,}; lag {spread_ms} ms")
        _say(f"  readers cut off by servers: {sum(map(_cut_off, servers))}")


def fan_out(bench: Bench, name: str, command: str, channels: list[list[str]]) -> None:
    """Publish to one server whose subscribers hear these channels. Print what it took."""
    seconds = bench.options.seconds
    with (
        bench.replicated(0) as [server],
        bench.workers(server.url, _SYMBOLS, ("scale_subscribers", server)) as workers,
    ):
        publisher, subscribers = workers
        for at in range(0, len(channels), _AT_ONCE):
            subscribers.ask("connect", command=command, channels=channels[at : at + _AT_ONCE])
        publisher.ask("publish", rate=_RATE, seconds=1.0)
        first = _settled(subscribers)
        used = _cores([server], {"publisher": [publisher], "subscribers": [subscribers]})
        order = publisher.order("publish", rate=_RATE, seconds=seconds)
        kept = _buffers(server, seconds)
        found = publisher.answer(order)
        cores = used()
        heard = _settled(subscribers) - first
        # Each symbol is subscribed to by as many connections as every other one.
        copies = len(channels) if command == "PSUBSCRIBE" else len(channels) * _EACH / _SYMBOLS
        lost = round(found["published"] * copies) - heard
        _say(
            f"fan-out, {name}: {found['per_s']:,.0f} updates/s, {heard / seconds:,.0f} messages/s; "
            f"{cores}\n  not heard {lost:,}; output buffers {kept}; cut off {_cut_off(server)}"
        )


def _settled(reader: Worker, wanted: int | None = None) -> int:
    """Return how many messages were heard once there are ``wanted``, or no more come."""
    count, at = -1, time.monotonic()
    while count != wanted and time.monotonic() < at + _STILL_S:
        now = int(reader.ask("count")["count"])
        if now != count:
            count, at = now, time.monotonic()
        time.sleep(0.05)
    return count


def _cores(servers: list[Server], others: Mapping[str, list[Worker]]) -> Callable[[], str]:
    """From now on: how much of a core each server and each kind of worker uses, when asked."""
    pids = {f"server {number}": [server.pid] for number, server in enumerate(servers)}
    pids |= {name: [worker.pid for worker in some] for name, some in others.items()}
    before = {name: sum(map(cpu_ns, some)) for name, some in pids.items()}
    began = time.monotonic_ns()

    def used() -> str:
        took_ns = time.monotonic_ns() - began
        return "cores: " + ", ".join(
            f"{name} {(sum(map(cpu_ns, some)) - before[name]) / took_ns:.2f}"
            for name, some in pids.items()
        )

    return used


def _buffers(server: Server, seconds: float) -> str:
    """Watch the output buffers of all subscribers. Return the largest, alone and together."""
    alone = together = 0
    end = time.monotonic() + seconds
    with server.client() as client:
        while time.monotonic() < end:
            kept = [int(each["omem"]) for each in client.client_list(_type="pubsub")]
            alone, together = max([alone, *kept]), max(together, sum(kept))
            time.sleep(0.5)
    return f"{alone / 1e3:,.0f} kB of one connection, {together / 1e6:,.1f} MB together, at most"


def _cut_off(server: Server) -> int:
    """Return how many connections were closed because their output buffers were full."""
    with server.client() as client:
        found: Json = client.info("stats")
    return int(found.get("client_output_buffer_limit_disconnections", 0))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(bench: Bench) -> None:
    """Measure what was asked for."""
    only = bench.options.only
    for name, replicas in (("one", 0), ("replicas", 2)):
        if name in only:
            with bench.replicated(replicas) as servers:
                spread(bench, name, servers, servers[0].url)
    if "cluster" in only:
        with bench.clustered() as (nodes, url):
            spread(bench, "cluster", nodes, url)
    if "fan-out" in only:
        names = [Keys().channel(name) for name in frames.symbols(_SYMBOLS)]
        some = [
            [names[(number * _EACH + at) % _SYMBOLS] for at in range(_EACH)]
            for number in range(_CONNECTIONS)
        ]
        fan_out(bench, "nobody", "SUBSCRIBE", [])
        fan_out(bench, f"{_HEAR_ALL} that hear all", "PSUBSCRIBE", [[_PATTERN]] * _HEAR_ALL)
        fan_out(bench, f"{_CONNECTIONS:,} with {_EACH} of {_SYMBOLS}", "SUBSCRIBE", some)


def main() -> None:
    """Parse arguments and measure."""
    kinds = ("one", "replicas", "cluster", "fan-out")
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale_out", description=__doc__)
    parser.add_argument("--rate", type=float, default=57_500.0, help="updates a second")
    parser.add_argument("--symbols", type=int, default=11_500)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--readers", type=int, default=3)
    parser.add_argument("--server", choices=("redis", "valkey"), default="redis")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(kinds))
    options = parser.parse_args()
    unknown = set(options.only) - set(kinds)
    if unknown:
        parser.error(f"--only takes {', '.join(kinds)}")
    if options.server == "redis" and redis_server() is None:
        parser.error("redis-server is missing; --server valkey needs none")
    with tempfile.TemporaryDirectory() as home:
        run(Bench(options, Path(home)))


if __name__ == "__main__":
    main()
