"""The servers that tests start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.kit.ports import free_port
from tests.kit.servers import PortTakenError, Server


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
