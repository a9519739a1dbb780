"""The servers that tests start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import redis

from tests.kit.ports import free_port
from tests.kit.servers import PortTakenError, Server
from tests.kit.waiting import GUARD_S


def test_a_port_that_was_taken_meanwhile_is_exchanged(tmp_path: Path) -> None:
    """A server that cannot bind the port found for it starts on another, and says which."""
    server = Server(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", server.port))
        other.listen()
        with server, server.client() as client:
            assert server.port != other.getsockname()[1]
            assert client.ping()


def test_a_port_that_the_test_names_is_kept(tmp_path: Path) -> None:
    """A server that was told its port does not move, because others were told it too."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        with pytest.raises(PortTakenError), Server(tmp_path, port=other.getsockname()[1]):
            pass


def test_a_server_is_filled_before_anybody_connects(tmp_path: Path) -> None:
    """Its port refuses connections until then, so nobody finds it empty."""
    refused: list[int] = []

    def fill(client: redis.Redis) -> None:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=GUARD_S)
        refused.append(server.port)
        client.set("key", "value")

    server = Server(tmp_path)
    server.start()
    for _ in range(2):
        server.restart(fill=fill)
        with server.client() as client:
            assert client.get("key") == "value"
    server.kill()
    assert refused == [server.port, server.port]
