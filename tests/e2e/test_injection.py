"""What strangers write into the demand stays data: it becomes no command, key, channel or line."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import redis
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.setup import Setup, quote
from tests.kit.processes import Command
from tests.kit.waiting import GUARD_S

# Whatever holds the word is an entry of ours, or a part of one.
WORD = "INJ"
ENTRIES = [
    f"{WORD}\r\nPUBLISH spot:SPY forged",
    f"{WORD}\r\n*3\r\n$7\r\nPUBLISH\r\n$8\r\nspot:SPY\r\n$6\r\nforged\r\n",
    f"SPY\r\nPUBLISH {WORD}",
    f"SPY {WORD}",
    f"SPY,{WORD}",
    f"a{{{WORD}}}",
    f"{{{WORD}}}",
    f"{WORD}\"}} 1\nspotd_leader 0\n# ",
    f"{WORD}\\",
    f"\"{WORD}\"",
    f"'{WORD}'",
    f"{WORD}\n{{\"event\":\"forged\",\"level\":\"info\"}}",
    f"{WORD}\x00SPY",
    f"{WORD}\x1b[2J\x1b]0;forged\x07",
    f"{WORD}\u2028forged\u202e\x85forged",
    f"../{WORD}",
    f"{WORD}*",
    f"{WORD}']) redis.call('SET','forged','1') --",
    f"spotd:leader {WORD}",
    f"%s%n{{0.__class__}}{WORD}",
    f"{WORD}" + "X" * 10_000,
]  # fmt: skip
OWNERS = ["own\r\ner", 'o"} 1\nforged 1', "\x1b[2J", "a@b", "X" * 10_000]
KEYS = {
    "spotd:symbols", "spotd:leases", "spotd:last", "spotd:states", "spotd:status", "spotd:leader",
    "spotd:seq",
}  # fmt: skip
CHANNELS = {"spot:SPY", "spotd:events", "spotd:wake", "leaders:spot:"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")


async def test_entries_become_no_command_key_channel_line_or_label(setup: Setup) -> None:
    """Beside hostile entries and owners, SPY is streamed, and nothing else happens anywhere."""
    with (
        redis.Redis(port=setup.server.port, socket_timeout=GUARD_S) as client,
        client.monitor() as monitor,
    ):
        heard: list[dict[str, Any]] = []
        listening = asyncio.create_task(asyncio.to_thread(_listen, monitor, heard))
        recorder = await setup.recorder("*")
        daemon = await setup.daemon(SPOTD_LOG_LEVEL="debug")
        await setup.values.want(*ENTRIES)
        until_s = float((await setup.redis.time())[0]) + 600.0
        leases = [f"{entry}@{owner}" for entry in (*ENTRIES, "SPY") for owner in OWNERS]
        await setup.redis.zadd("spotd:leases", dict.fromkeys(leases, until_s))
        await setup.streaming("SPY")
        await setup.sim.send([quote("SPY", 10, 11)])
        await setup.until(lambda: setup.values.last("SPY"), "the price")
        await setup.until(lambda: _refused(setup), "the refusals")
        states = await setup.redis.hgetall("spotd:states")
        pages = {page: (await daemon.get(page))[1] for page in ("/metrics", "/status", "/readyz")}
        keys = {key.decode() for key in await setup.redis.keys("*")}
        shown = await _shown(setup)
        assert await daemon.stop() == 0
        await setup.redis.publish("spotd:wake", "the end")
        await listening

    assert keys == KEYS
    assert {message.channel for message in recorder.heard} == CHANNELS
    assert {_symbol(line) for line in states.values()} == {field.decode() for field in states}
    assert setup.sim.received.messages("subscribe")
    for message in setup.sim.received.messages("subscribe"):
        assert {*message.get("quotes", ()), *message.get("trades", ())} <= {"SPY"}
    _only_known_names(heard)
    _only_own_lines(daemon)
    _only_own_samples(pages["/metrics"])
    assert json.loads(pages["/status"])["symbols"]["live"] == 1
    for name, text in shown.items():
        assert "1 live" in text or "SPY" in text, name
        assert not _CONTROL.search(text), (name, text)
        assert max(map(len, text.splitlines())) < 300, name


async def _refused(setup: Setup) -> bool:
    status = json.loads(await setup.redis.get("spotd:status") or "{}")
    return bool(status.get("symbols", {}).get("refused") == len(ENTRIES) * (1 + len(OWNERS)))


def _symbol(line: bytes) -> str:
    return str(json.loads(line)["symbol"])


def _listen(monitor: Any, heard: list[dict[str, Any]]) -> None:
    """Keep every command of the server until one says that this is the end."""
    for command in monitor.listen():
        heard.append(command)
        if command["command"].endswith("the end"):
            return


def _only_known_names(heard: list[dict[str, Any]]) -> None:
    """Check that scripts, whose commands MONITOR shows too, used no other key or channel."""
    inside = [command["command"] for command in heard if command["client_type"] == "lua"]
    assert inside
    for command in inside:
        name, *rest = command.split(" ", 2)
        if name.upper() == "PUBLISH":
            assert rest[0] in CHANNELS, command
        elif name.upper() != "TIME":
            assert rest[0] in KEYS, command


def _only_own_lines(daemon: Command) -> None:
    """Check that each line of the log is an object of JSON, and not one that an entry wrote."""
    lines = daemon.stderr.splitlines()
    assert lines
    for line in lines:
        assert json.loads(line)["event"] != "forged"
        assert not _CONTROL.search(line)
        assert len(line) < 20_000


def _only_own_samples(page: str) -> None:
    """Check that the metrics can be read, and that no entry or owner is in them."""
    names = set()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            names.add(sample.name)
            assert all(re.fullmatch(r"[\w.+-]+", value) for value in sample.labels.values()), sample
    assert WORD not in page
    assert "forged" not in page
    assert "spotd_leader" in names
    assert page.count("\nspotd_leader ") == 1


async def _shown(setup: Setup) -> dict[str, str]:
    """Return what the commands for people print."""
    shown = {}
    for args in (("symbols", "list"), ("status",)):
        name = "-".join(args)
        command = await Command.start(*args, home=setup.home / name, env=setup.settings())
        setup.commands.append(command)
        await command.ends()
        shown[name] = command.output
    return shown
