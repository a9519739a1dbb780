"""A real server, an environment without settings, and two ways to call the command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from spotd.cli.main import main
from tests.cli.terminal import Outcome
from tests.kit.servers import Server
from tests.kit.waiting import GUARD_S

Call = Callable[..., Outcome]


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lives as long as the tests."""
    with Server(tmp_path_factory.mktemp("cli")) as server:
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the machine's own settings from the tests."""
    for name in list(os.environ):
        if name.startswith(("SPOTD_", "ALPACA_", "APCA_")) or name == "REDIS_URL":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(shared_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """A client of an empty server, which SPOTD_REDIS_URL names."""
    monkeypatch.setenv("SPOTD_REDIS_URL", shared_server.url)
    with redis.Redis.from_url(shared_server.url) as client:
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
            capture_output=True, text=True, timeout=GUARD_S, check=False,
        )  # fmt: skip
        return Outcome(ran.returncode, ran.stdout, ran.stderr)

    return call
