"""How the command ends when it may not work, and that no output ever holds a secret."""

from __future__ import annotations

import json
import socket
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.kit import KEY, SECRET, START_S, Command, World, free_port, quote

PASSWORD = "p4ss/w0rd&of+redis"
QUOTED = "p4ss%2Fw0rd%26of%2Bredis"
ENDS_S = 15.0


async def _ends(world: World, **settings: str | None) -> Command:
    """A daemon that is expected to end by itself."""
    daemon = await world.start(**settings)
    await daemon.ends(ENDS_S)
    return daemon


def _sentence(daemon: Command) -> str:
    """The last line on stderr, which is the one a person reads."""
    return daemon.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("closes", [False, True], ids=["stays_open", "closes"])
async def test_wrong_keys_end_it_with_3(world: World, *, closes: bool) -> None:
    """402 is for good: exit code 3, and a sentence that says which settings to check."""
    world.sim.limits.close_after_refused_auth = closes
    await world.want("SPY")
    daemon = await _ends(world, ALPACA_SECRET_KEY="wrongSecretDoNotPrint00001")

    assert daemon.process.returncode == 3
    assert "402" in daemon.stderr
    assert "check ALPACA_API_KEY and ALPACA_SECRET_KEY" in daemon.stderr
    assert "Traceback" not in daemon.output
    assert "wrongSecret" not in daemon.output
    assert world.sim.stats.connections == 1  # it did not hammer
    assert await world.redis.exists("spotd:leader", "spotd:status") == 0


@pytest.mark.parametrize("closes", [False, True], ids=["stays_open", "closes"])
async def test_a_feed_outside_the_plan_ends_it_with_3(world: World, *, closes: bool) -> None:
    """409 is for good: exit code 3, and a sentence that names the setting to change."""
    world.sim.limits.close_after_refused_auth = closes
    world.sim.faults.auth_error = 409
    await world.want("SPY")
    daemon = await _ends(world)

    assert daemon.process.returncode == 3
    assert "409" in daemon.stderr
    assert "SPOTD_FEED" in daemon.stderr
    assert "Traceback" not in daemon.output
    assert world.sim.stats.connections == 1
    assert await world.redis.exists("spotd:leader", "spotd:status") == 0


async def test_an_unknown_setting_ends_it_with_2_naming_the_nearest(world: World) -> None:
    """A mistyped name is an error, not a default."""
    daemon = await _ends(world, SPOTD_TROTTLE_MS="100")

    assert daemon.process.returncode == 2
    assert "SPOTD_TROTTLE_MS" in daemon.stderr
    assert "SPOTD_THROTTLE_MS" in daemon.stderr
    assert "Traceback" not in daemon.output


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ALPACA_API_KEY", None, "ALPACA_API_KEY"),
        ("ALPACA_SECRET_KEY", None, "ALPACA_SECRET_KEY"),
        ("ALPACA_API_KEY", "", "ALPACA_API_KEY"),
        ("SPOTD_FEED", "nasdaq", "SPOTD_FEED"),
        ("SPOTD_THROTTLE_MS", "often", "SPOTD_THROTTLE_MS"),
        ("SPOTD_LEADER_TTL_S", "0", "SPOTD_LEADER_TTL_S"),
        ("SPOTD_REDIS_URL", "http://127.0.0.1/", "SPOTD_REDIS_URL"),
        ("SPOTD_STREAM_URL", "ftp://127.0.0.1/", "SPOTD_STREAM_URL"),
        ("SPOTD_KEY_PREFIX", "a b", "SPOTD_KEY_PREFIX"),
    ],
)
async def test_wrong_settings_end_it_with_2(
    world: World, name: str, value: str | None, told: str
) -> None:
    """A setting that is missing or wrong ends it with 2 and a line that names it."""
    daemon = await _ends(world, **{name: value})

    assert daemon.process.returncode == 2
    assert told in _sentence(daemon)
    assert "Traceback" not in daemon.output
    assert SECRET not in daemon.output


async def test_several_wrong_settings_are_told_at_once(world: World) -> None:
    """One start tells all that is wrong with the settings."""
    daemon = await _ends(world, SPOTD_FEED="nasdaq", SPOTD_THROTTLE_MS="-1")

    assert daemon.process.returncode == 2
    assert "SPOTD_FEED" in daemon.stderr
    assert "SPOTD_THROTTLE_MS" in daemon.stderr


async def test_an_occupied_http_port_ends_it_with_2(world: World) -> None:
    """The port of health and metrics is taken: 2, and the line names the setting and the port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        daemon = await _ends(world, SPOTD_HTTP_PORT=port)

    assert daemon.process.returncode == 2
    assert "SPOTD_HTTP_PORT" in _sentence(daemon)
    assert port in _sentence(daemon)
    assert "Traceback" not in daemon.output


async def test_port_0_turns_http_off(world: World) -> None:
    """With SPOTD_HTTP_PORT=0 it works and listens nowhere."""
    await world.want("SPY")
    daemon = await world.start(SPOTD_HTTP_PORT="0")
    await world.until(lambda: world.live("SPY"), START_S, "SPY live")

    assert _listening(daemon) == set()
    assert (await daemon.stop())[0] == 0


async def test_a_wrong_command_line_ends_with_2(world: World) -> None:
    """An unknown option is wrong usage."""
    daemon = await Command.start("run", "--fast", home=world.home / "usage", env={})
    world.commands.append(daemon)

    assert await daemon.ends(ENDS_S) == 2


@pytest.mark.parametrize("form", ["json", "console"])
async def test_no_secret_in_the_output_of_a_hard_life(world: World, form: str) -> None:
    """At level debug, over refusals, broken REST and a Redis that goes: no key, no password."""
    await world.redis.config_set("requirepass", PASSWORD)
    await world.redis.aclose()
    url = f"redis://:{QUOTED}@127.0.0.1:{world.store.port}/0"
    world.redis = world.client(password=PASSWORD)
    world.sim.faults.rest_status = 500
    daemon = await world.daemon(SPOTD_REDIS_URL=url, SPOTD_LOG_LEVEL="debug", SPOTD_LOG_FORMAT=form)
    await world.streaming("SPY", "QQQ")
    await world.sim.send([quote("SPY", 10, 11)])
    await world.until(lambda: world.last("SPY"), 3, "published")
    told = [(await daemon.get(page))[1] for page in ("/livez", "/readyz", "/status", "/metrics")]
    told += [(await world.redis.get(key)).decode() for key in ("spotd:status", "spotd:leader")]
    world.sim.faults.rest_garbage = True
    world.sim.faults.bad_symbols = {"KO"}
    await world.want("KO", "IBM", "not one")
    await world.until(partial(_says, daemon, "no snapshots"), 3, "REST failed")
    world.sim.faults.auth_error = 500
    await world.sim.drop_sessions("abort")
    await world.until(partial(_says, daemon, "stream is down"), 5, "the stream is down")
    await world.redis.config_set("requirepass", "another")
    await world.redis.client_kill_filter(skipme=True, _type="normal")
    await world.until(partial(_misses_redis, daemon), 8, "Redis refuses the password")
    told += [(await daemon.get(page))[1] for page in ("/readyz", "/status", "/metrics")]
    world.store.kill()
    code, _ = await daemon.stop()

    assert code == 0
    for text in (daemon.output, *told):
        for secret in (KEY, SECRET, PASSWORD, QUOTED):
            assert secret not in text
    assert "Traceback" not in daemon.output


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{QUOTED}@127.0.0.1:{{port}}/0",
        f"redis://user:{QUOTED}@127.0.0.1:{{port}}/0?bogus=1",
        f"redis://127.0.0.1:{{port}}/0?password={QUOTED}",
        f"redis://:{QUOTED}@127.0.0.1:notaport/0",
        f"redis://:{QUOTED}@[::1/0",
        f"http://:{QUOTED}@127.0.0.1/",
        f"redis+sentinel://:{QUOTED}@127.0.0.1:{{port}}/name",
        f"redis+sentinel://:{QUOTED}@127.0.0.1:{{port}}",
        f"redis+cluster://:{QUOTED}@127.0.0.1:{{port}}",
        f"rediss://:{QUOTED}@127.0.0.1:{{store}}/0",
        f"unix://:{QUOTED}@/nowhere/redis.sock",
    ],
)
async def test_no_password_of_any_redis_url_is_printed(world: World, url: str) -> None:
    """Whatever is wrong with the URL or behind it, its password is not in the output."""
    url = url.format(port=free_port(), store=world.store.port)
    daemon = await world.start(SPOTD_REDIS_URL=url, SPOTD_LOG_LEVEL="debug")
    await world.until(lambda: _misses_redis(daemon), START_S, "it has seen")
    if daemon.running:
        assert (await daemon.stop())[0] == 0

    assert daemon.process.returncode in (0, 2), daemon.tail()
    assert "Traceback" not in daemon.output
    assert PASSWORD not in daemon.output
    assert QUOTED not in daemon.output


async def test_redis_behind_a_unix_socket(tmp_path: Path) -> None:
    """``unix://`` is an address of Redis like any other."""
    path = tmp_path / "redis.sock"
    async with World(tmp_path, unix_socket=path) as world:
        await world.want("SPY")
        await world.daemon(SPOTD_REDIS_URL=f"unix://{path}")
        await world.until(lambda: world.live("SPY"), START_S, "SPY live")


async def test_the_log_is_json_lines_when_stderr_is_no_terminal(world: World) -> None:
    """By default each line of the log is one JSON object with time, level and event."""
    daemon = await world.daemon(SPOTD_LOG_FORMAT=None)
    await daemon.stop()

    for line in daemon.stderr.splitlines():
        assert {"event", "level", "timestamp"} <= json.loads(line).keys()


def _says(daemon: Command, words: str) -> bool:
    return words in daemon.output


async def _misses_redis(daemon: Command) -> bool:
    """Whether it has found out, or has ended over it."""
    return not daemon.running or "redis" in (await daemon.get("/readyz"))[1]


def _listening(daemon: Command) -> set[str]:
    """The inodes of TCP sockets on which the process listens."""
    table = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    listening = {row.split()[9] for row in table if row.split()[3] == "0A"}
    own = set()
    for link in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        target = str(link.readlink())
        if target.startswith("socket:["):
            own.add(target[8:-1])
    return listening & own
