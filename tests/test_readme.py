"""The README is true about settings, commands and the example of a consumer."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from spotd.cli.main import COMMANDS
from spotd.settings import Settings
from tests.kit.publisher import Publisher
from tests.kit.servers import Server
from tests.kit.settings_table import rows_between, settings_rows
from tests.kit.waiting import GUARD_S

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def block(marker: str) -> str:
    """Return the code block that follows a marker."""
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)\n```", README, re.DOTALL)
    assert found is not None, f"README has no block {marker!r}"
    return found[1]


def test_the_configuration_table_is_that_of_the_settings() -> None:
    """Every setting stands in the README with its default and meaning, and no other."""
    assert rows_between(README, "settings") == settings_rows(Settings, Settings.model_fields)


def test_every_command_stands_in_the_readme() -> None:
    """The table of commands names each subcommand."""
    for name in COMMANDS:
        assert f"`spotd {name}" in README


@pytest.mark.parametrize("marker", ["demo command", "test command"])
def test_setting_up_is_one_command(marker: str) -> None:
    """The commands that set up and run the main job, and the tests, are one line each."""
    assert len(block(marker).splitlines()) == 1


async def test_the_python_consumer_prints_prices(tmp_path: Path) -> None:
    """The consumer of the README, as it stands but for the address, prints an update."""
    source, address = block("python consumer"), "redis://127.0.0.1:6379/0"
    assert address in source
    with Server(tmp_path) as server:
        async with Publisher(server.url) as daemon:
            await daemon.publish("SPY", 1)
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-c", source.replace(address, server.url)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert program.stdout is not None
        try:
            async with asyncio.timeout(GUARD_S):
                line = await program.stdout.readline()
        finally:
            program.kill()
            await program.wait()
    assert line.decode().strip() == "SPY 421.37"
