"""The minute in which something went wrong, handed over: recorded, replayed, compared."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

from spotd.keys import Keys
from spotd.simulator import Replay, Simulator
from tests.e2e.setup import KEY, SECRET, Setup, quote, trade
from tests.kit.marked import found_in, marked
from tests.kit.processes import Command
from tests.kit.values import Json, Values

DOCUMENT = Path(__file__).parents[2] / "docs" / "recording.md"
SYMBOLS = ("SPY", "QQQ", "IBM")


async def recorder(setup: Setup, daemon: Command, *args: str) -> Command:
    """Record beside a daemon, without any of its keys."""
    env = {"SPOTD_HTTP_PORT": str(daemon.http_port)}
    command = await Command.start("record", *args, home=setup.home / "record", env=env)
    setup.commands.append(command)
    await setup.until(lambda: "recording from" in command.stderr, "the recording to begin")
    return command


def lines_of(path: Path) -> list[Any]:
    """Return the decoded lines of a recording."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def messages_of(path: Path) -> list[Json]:
    """Return Alpaca's messages in a recording, in order."""
    lines = lines_of(path)
    return [each for line in lines if isinstance(line, list) for each in line[1:]]


async def prices(values: Values) -> dict[str, Json]:
    """Return the last prices of all symbols, without what differs from run to run."""
    stored = await values.redis.hgetall(values.keys.last)
    decoded = [json.loads(update) for update in stored.values()]
    return {
        update["symbol"]: {k: v for k, v in update.items() if k not in ("seq", "timestamp")}
        for update in decoded
    }


async def test_a_replay_of_a_recording_ends_in_the_same_prices(setup: Setup) -> None:
    """What came is recorded; played to another daemon, it makes the prices that were made of it."""
    daemon = await setup.daemon()
    await setup.streaming(*SYMBOLS)
    path = setup.home / "minute.jsonl.gz"
    recording = await recorder(setup, daemon, "--symbols", "SPY,QQQ", str(path))
    sold: list[int] = []
    for n in range(300):
        for symbol in SYMBOLS:
            messages = [quote(symbol, 100 + n / 100, 100.02 + n / 100)]
            if n % 3 == 0:
                sold.append(len(sold) + 1)
                messages.append(trade(symbol, 100.01 + n / 100, i=sold[-1], c=["@"], z="C"))
            await setup.sim.send(messages)
    await setup.sim.send(
        [
            {"T": "x", "S": "QQQ", "i": sold[-2], "x": "V", "p": 1.0, "s": 1},
            {"T": "c", "S": "SPY", "oi": sold[-3], "x": "V", "ci": 9_999, "cp": 99.5, "cc": ["@"]},
            quote("SPY", 0.0, 0.0),
            quote("SPY", 88.1, 88.2),
            quote("QQQ", 88.3, 88.4),
        ]
    )
    await setup.until(lambda: _is_recorded(path, 88.3), "all of it in the file")
    assert await recording.stop(signal.SIGINT) == 0
    await setup.until(lambda: _published(setup.values, SPY=88.1, QQQ=88.3), "the last prices")
    live = await prices(setup.values)
    assert [live[symbol]["last_price"] for symbol in ("SPY", "QQQ")] == [99.5, 102.95]

    found = messages_of(path)
    assert {each["S"] for each in found if "S" in each} == {"SPY", "QQQ"}
    assert {each["T"] for each in found} >= {"q", "t", "x", "c"}

    async with Simulator(keys={KEY: SECRET}, replay=Replay(path)) as again:
        keys = Keys("again:", "again-spot:")
        await setup.daemon(
            "again",
            SPOTD_STREAM_URL=again.stream_url("iex"),
            SPOTD_DATA_URL=again.data_url,
            SPOTD_KEY_PREFIX="again:",
            SPOTD_CHANNEL_PREFIX="again-spot:",
        )
        async with Values(setup.server.url, keys) as values:
            await values.want("SPY", "QQQ")
            await again.replay_done()
            await setup.until(lambda: _are(values, live), "the same prices")
            for name, owner in (("live", setup.values), ("replayed", values)):
                updates = await owner.redis.hmget(owner.keys.last, "SPY", "QQQ")
                (setup.home / f"{name}.jsonl").write_bytes(b"\n".join(updates) + b"\n")
    assert again.replay is not None
    assert again.replay.malformed == 0
    if shutil.which("jq"):  # which the comparison of the documents needs
        assert await _compared(setup.home) == "the same prices\n"


def _is_recorded(path: Path, bid: float) -> bool:
    return path.exists() and any(each.get("bp") == bid for each in messages_of(path))


async def _compared(home: Path) -> str:
    """Return what the comparison of the documents prints."""
    found = re.search(
        r"^```bash compare\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE
    )
    assert found
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", found[1], cwd=home, stdout=asyncio.subprocess.PIPE
    )
    return (await process.communicate())[0].decode()


async def _published(values: Values, **bids: float) -> bool:
    return {symbol: await values.bid(symbol) for symbol in bids} == bids


async def _are(values: Values, expected: dict[str, Json]) -> bool:
    found = await prices(values)
    return found == {symbol: expected[symbol] for symbol in ("SPY", "QQQ")}


async def test_no_secret_is_in_a_recording(setup: Setup) -> None:
    """Alpaca's greeting, refusals and errors are recorded, without the keys that they repeat."""
    key = marked("alpacaKey", "/x+y&z=%40@")
    secret = marked("alpacaSecret", "/x+y&z=%40@")
    password = marked("redisPw")
    setup.sim.keys[key.text] = secret.text
    await setup.redis.execute_command(
        "ACL", "SETUSER", "marked", "on", f">{password.text}", "~*", "&*", "+@all"
    )
    url = f"redis://marked:{password.quoted}@127.0.0.1:{setup.server.port}/0"
    daemon = await setup.daemon(
        ALPACA_API_KEY=key.text, ALPACA_SECRET_KEY=secret.text, SPOTD_REDIS_URL=url
    )
    await setup.streaming("SPY")  # a daemon is ready before it has a session
    path = setup.home / "a.jsonl.gz"
    recording = await recorder(setup, daemon, str(path))
    said = f"{key.text} {secret.text} {password.text} {key.quoted}"
    await setup.sim.send_control({"T": "error", "code": 500, "msg": said})
    await setup.until(lambda: _began_again(path), "the next session in the file")
    assert await recording.stop() == 0
    text = gzip.decompress(path.read_bytes()).decode()
    told = [("file", text), ("output", recording.output), ("log", daemon.output)]
    assert found_in(told, (key, secret, password)) == []
    assert "***" in text
    assert '"success"' in text


def _began_again(path: Path) -> bool:
    return path.exists() and [each for each in messages_of(path) if each["T"] == "success"] != []
