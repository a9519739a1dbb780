"""A real server, an environment without settings, and two ways to call the command."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from spotd.cli.main import main
from tests.kit.processes import popen
from tests.kit.servers import Server
from tests.kit.waiting import GUARD_S


class Outcome(NamedTuple):
    """How a call of the command ended: exit code, stdout and stderr."""

    code: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server that lives as long as the tests."""
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
    """Yield a client of an empty server, which SPOTD_REDIS_URL names."""
    monkeypatch.setenv("SPOTD_REDIS_URL", shared_server.url)
    with redis.Redis.from_url(shared_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def spotd(capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that calls the command in this process."""

    def call(*args: str) -> Outcome:
        code = main(args)
        told = capsys.readouterr()
        return Outcome(code, told.out, told.err)

    return call


@pytest.fixture
def process() -> Call:
    """Return a function that runs the command as a process of its own."""

    def call(*args: str) -> Outcome:
        with popen(*args) as running:
            out, err = running.communicate(timeout=GUARD_S)
            return Outcome(running.wait(), out, err)

    return call
