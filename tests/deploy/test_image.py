"""The image, built for real and run as process 1, read-only, without privileges.

No classes: pytest-xdist would build the image for each of them.

TEST_SPOTD_IMAGE_CACHE names a folder that keeps the images for the next run, TEST_SPOTD_IMAGE_BASE
another base than a small Debian made here.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from spotd import __version__
from spotd.simulator import MarketModel
from tests.e2e.setup import KEY, SECRET, Setup, say
from tests.kit.containers import Builder, Container, Image, missing
from tests.kit.ports import free_port
from tests.kit.waiting import until, until_sync

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"alpaca_api_key": f"{KEY}\n", "alpaca_secret_key": f"{SECRET}\n"}
COMPILERS = r"(.*-)?(as|c\+\+|c89|c99|cc|clang|cpp|g\+\+|gcc|ld|make|rustc|tcc)(-[\d.]+)?"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Return the image with what the demo needs."""
    kept = os.environ.get("TEST_SPOTD_IMAGE_CACHE")
    home = Path(kept) if kept else tmp_path_factory.mktemp("buildah")
    builder = Builder(home)
    base = os.environ.get("TEST_SPOTD_IMAGE_BASE") or builder.base()
    yield builder.build(ROOT, BASE=base, EXTRAS="demo")
    builder.clear()
    if not kept:
        shutil.rmtree(home)  # more than a gigabyte


def python(container: Container, code: str) -> str:
    """Return what Python code prints that runs in a container."""
    run = container.execute("python3", "-c", code)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture(scope="module")
def simulate(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Return a container in which nothing of interest runs."""
    port = str(free_port())
    home = tmp_path_factory.mktemp("simulate")
    with Container(image, "simulate", "--port", port, home=home) as container:
        until_sync(lambda: container.pid, "the simulator runs")
        yield container


def test_labels(image: Image) -> None:
    """The labels tell what this is, and which version."""
    labels = image.config["Labels"]

    assert labels["org.opencontainers.image.title"] == "spotd"
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.base.name"].startswith("localhost/")


def test_nothing_installs_or_compiles(image: Image) -> None:
    """No compiler and no pip is in the image, and nothing of the build."""
    found = [
        str(path.relative_to(image.root))
        for path in image.root.rglob("*")
        if path.name in {"ensurepip", "pip", "python-wheels"}
        or (path.parent.name in {"bin", "sbin"} and re.fullmatch(COMPILERS, path.name))
    ]

    assert found == []
    assert not {"pip", "src", "wheel"} & {path.name for path in image.root.iterdir()}


@pytest.mark.parametrize("module", ["pip", "ensurepip"])
def test_python_has_no_installer(simulate: Container, module: str) -> None:
    """Neither Python of the image can install a package."""
    base = python(simulate, "import sys; print(sys._base_executable)")
    for interpreter in ("python3", base):
        run = simulate.execute(interpreter, "-m", module)

        assert "No module named" in run.stderr


def test_no_module_is_compiled_at_start(simulate: Container) -> None:
    """Every module that the daemon and the relay load has its bytecode in the image."""
    code = """
import os, sys, spotd.cli.run, spotd.daemon.process, spotd.cli.relay, spotd.relay.server
cached = {n: getattr(m, "__cached__", None) for n, m in sys.modules.items() if n != "__main__"}
print([name for name, path in cached.items() if path and not os.path.exists(path)])"""

    assert python(simulate, code) == "[]"


def test_no_privileges(simulate: Container) -> None:
    """Process 1 is spotd itself, not root, and can gain nothing."""
    status = simulate.status()

    assert status["NSpid"].split()[-1] == "1"
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"10001"}
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


def test_nothing_of_its_own_is_writable(image: Image) -> None:
    """The user of the image owns no file of it and may write none outside of /tmp."""
    writable = [
        path
        for path in image.root.rglob("*")
        if not path.is_symlink() and (path.stat().st_uid == 10_001 or path.stat().st_mode & 0o002)
    ]

    assert {str(path.relative_to(image.root)) for path in writable} <= {
        "run/lock",
        "tmp",
        "var/tmp",
    }


def test_nothing_to_ask(simulate: Container) -> None:
    """A command without /livez counts as healthy."""
    assert simulate.health() == 0


def test_wrong_settings(image: Image, tmp_path: Path) -> None:
    """A mistyped setting ends the container with 2."""
    with Container(image, home=tmp_path, env={"SPOTD_FEDE": "iex"}) as container:
        assert container.ends() == 2
        assert "SPOTD_FEED" in container.output


def test_stop_while_it_loads(image: Image, tmp_path: Path) -> None:
    """Process 1 gets only signals that it handles. The daemon does before its packages load."""
    with Container(image, home=tmp_path, secrets=KEYS) as container:
        until_sync(lambda: container.handles(signal.SIGTERM), "it handles SIGTERM")
        container.send(signal.SIGTERM)

        assert container.ends() == 0


def test_demo(image: Image, tmp_path: Path) -> None:
    """The demo runs in the image, and prices arrive."""
    demo = ("demo", "--seconds", "5")
    # Its server has a socket and a log there.
    with Container(image, *demo, home=tmp_path, tmpfs="/tmp") as container:  # noqa: S108
        assert container.ends() == 0
        assert re.search(r"^# .*, [1-9][\d,]* updates? out", container.output, re.MULTILINE)


async def test_run(image: Image, tmp_path: Path) -> None:
    """The daemon publishes, is healthy unless it hangs, has no children, and stops with 0."""
    async with Setup(tmp_path / "setup", market=MarketModel()) as setup:
        env = setup.settings(ALPACA_API_KEY=None, ALPACA_SECRET_KEY=None)
        started = time.monotonic()
        with Container(image, home=tmp_path, env=env, secrets=KEYS) as container:
            port = int(env["SPOTD_HTTP_PORT"])
            await until(lambda: answers(port), "ready", logs=lambda: container.output)
            say(f"ready after {time.monotonic() - started:.2f} s")
            await becomes_healthy(container)
            await setup.values.want("SPY")
            await until(lambda: setup.values.raw_last("SPY"), "a price")
            assert container.children() == []

            await is_unhealthy_while_it_hangs(container)
            await stops(container)

            # The connection with Alpaca was closed in order, and the leader key was released.
            await setup.until(setup.closes, "the close frame")
            assert setup.closes() == [1000]
            assert await setup.redis.exists(setup.values.keys.leader) == 0


async def test_relay(image: Image, tmp_path: Path) -> None:
    """The relay is asked at its own port, is healthy unless it hangs, and stops with 0."""
    async with Setup(tmp_path / "setup") as setup:
        env = {"SPOTD_REDIS_URL": setup.server.url, "SPOTD_RELAY_PORT": str(free_port())}
        with Container(image, "relay", home=tmp_path, env=env) as container:
            await becomes_healthy(container)
            assert container.children() == []

            await is_unhealthy_while_it_hangs(container)
            await stops(container)


# The simulator runs in this process, so nothing may block it.


async def answers(port: int) -> bool:
    """Return whether /readyz answers 200 at a port of this machine."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


async def becomes_healthy(container: Container) -> None:
    """Wait until the health check is content."""

    async def healthy() -> bool:
        return await asyncio.to_thread(container.health) == 0

    await until(healthy, "healthy", logs=lambda: container.output)


async def is_unhealthy_while_it_hangs(container: Container) -> None:
    """Stop its process 1 and let it go on, and assert what the health check says of both."""
    container.send(signal.SIGSTOP)
    assert await asyncio.to_thread(container.health) == 1
    container.send(signal.SIGCONT)
    assert await asyncio.to_thread(container.health) == 0


async def stops(container: Container) -> None:
    """Stop it as its engine does, and assert that it ends with 0."""
    container.send(container.stop_signal)
    assert await asyncio.to_thread(container.ends) == 0, container.output
