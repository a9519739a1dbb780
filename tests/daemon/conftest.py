"""The loops of one daemon with a real server, driven by what the test says."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.rig import Rig
from tests.kit.servers import Server

NewRig = Callable[..., Rig]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own: it may be killed, frozen and emptied."""
    with Server(tmp_path / "server") as own:
        yield own


@pytest.fixture
def rig(server: Server) -> NewRig:
    """Make the loops of a daemon, with settings; ``async with`` runs them."""

    def make(**settings: Any) -> Rig:
        return Rig(server.url, **settings)

    return make
