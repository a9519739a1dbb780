"""How the command ends when it may not work, and that no output ever holds a secret."""

from __future__ import annotations

import json
import socket
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.setup import KEY, SECRET, Setup, quote
from tests.kit.processes import Command
from tests.kit.values import Values

PASSWORD = "p4ss/w0rd&of+redis"
QUOTED = "p4ss%2Fw0rd%26of%2Bredis"


async def _ends(setup: Setup, **settings: str | None) -> Command:
    """Return a daemon that is expected to end by itself."""
    daemon = await setup.start(**settings)
    await daemon.ends()
    return daemon


def _sentence(daemon: Command) -> str:
    """Return the last line on stderr, which is the one a person reads."""
    return daemon.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "closes",
    [pytest.param(False, marks=pytest.mark.long), True],
    ids=["stays_open", "closes"],
)
async def test_wrong_keys_end_it_with_3(setup: Setup, *, closes: bool) -> None:
    """402 is for good: exit code 3, and a sentence that says which settings to check."""
    setup.sim.limits.close_after_refused_auth = closes
    await setup.values.want("SPY")
    daemon = await _ends(setup, ALPACA_SECRET_KEY="wrongSecretDoNotPrint00001")

    assert daemon.process.returncode == 3
    assert "402" in daemon.stderr
    assert "check ALPACA_API_KEY and ALPACA_SECRET_KEY" in _sentence(daemon)
    assert "Traceback" not in daemon.output
    assert "wrongSecret" not in daemon.output
    assert setup.sim.stats.connections == 1  # it did not hammer
    assert await setup.redis.exists("spotd:leader", "spotd:status") == 0


async def test_a_feed_outside_the_plan_ends_it_with_3(setup: Setup) -> None:
    """409 is for good: exit code 3, and a sentence that names the setting to change."""
    setup.sim.faults.auth_error = 409
    await setup.values.want("SPY")
    daemon = await _ends(setup)

    assert daemon.process.returncode == 3
    assert "409" in daemon.stderr
    assert "SPOTD_FEED" in _sentence(daemon)
    assert "Traceback" not in daemon.output
    assert setup.sim.stats.connections == 1
    assert await setup.redis.exists("spotd:leader", "spotd:status") == 0


@pytest.mark.long
async def test_a_killed_daemon_is_no_leader(setup: Setup, tmp_path: Path) -> None:
    """`status` ends with 0 while it leads, and with 1 once its key has lapsed."""
    await setup.daemon()
    await setup.streaming("SPY")

    async def status() -> tuple[int, str]:
        asked = await Command.start("status", home=tmp_path / "status", env=setup.settings())
        return await asked.ends(), asked.output

    assert (await status())[0] == 0
    await setup.commands[0].kill()
    assert await setup.redis.persist("spotd:status")  # however long the command takes to start
    await setup.until(lambda: _is_gone(setup), "the leader key to lapse")
    code, told = await status()
    assert (code, "no leader (last status is " in told) == (1, True)


async def _is_gone(setup: Setup) -> bool:
    return not await setup.redis.exists("spotd:leader")


async def test_an_unknown_setting_ends_it_with_2_naming_the_nearest(setup: Setup) -> None:
    """A mistyped name is an error, not a default."""
    daemon = await _ends(setup, SPOTD_TROTTLE_MS="100")

    assert daemon.process.returncode == 2
    assert "SPOTD_TROTTLE_MS" in daemon.stderr
    assert "SPOTD_THROTTLE_MS" in daemon.stderr
    assert "Traceback" not in daemon.output


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SPOTD_REDIS_URL", "redis://127.0.0.1/foo", "names a database that is no number"),
        *(  # quick: tests/test_settings.py
            pytest.param(*case, marks=pytest.mark.long)
            for case in (
                ("SPOTD_CHANNEL_PREFIX", "x*", "must hold none of"),
                ("APCA_API_KEY_ID", "another", "have different values"),
            )
        ),
    ],
)
async def test_a_wrong_setting_ends_it_with_2(
    setup: Setup, name: str, value: str, says: str
) -> None:
    """The last line names the setting and what is wrong."""
    daemon = await _ends(setup, **{name: value})

    assert daemon.process.returncode == 2
    assert name in _sentence(daemon)
    assert says in _sentence(daemon)
    assert "Traceback" not in daemon.output


async def test_a_dotenv_file_that_is_not_utf_8_ends_it_with_2(setup: Setup) -> None:
    """The line names the file."""
    home = setup.home / "daemon"
    home.mkdir()
    (home / ".env").write_bytes("SPOTD_FEED=iex\n".encode("utf-16"))
    daemon = await _ends(setup)

    assert daemon.process.returncode == 2
    assert ".env, line 1: not UTF-8" in _sentence(daemon)
    assert "Traceback" not in daemon.output


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (f"redis://:{QUOTED}@127.0.0.1:{{port}}/0", "refuses the login"),
        ("redis://127.0.0.1:{port}/99", "refuses the database"),
    ],
    ids=["password", "database"],
)
async def test_redis_that_does_not_let_it_in_is_not_said_to_be_away(
    setup: Setup, address: str, says: str
) -> None:
    """Log, status and readiness say that Redis refuses, and why."""
    daemon = await setup.start(SPOTD_REDIS_URL=address.format(port=setup.server.port))
    await setup.until(lambda: "redis refuses" in daemon.stderr, "the log line")

    assert says in daemon.stderr
    assert "redis is away" not in daemon.stderr
    assert says in (await daemon.get("/status"))[1]
    assert says in (await daemon.get("/readyz"))[1]
    assert await daemon.stop() == 0
    assert "redis is away" not in daemon.stderr


async def test_an_occupied_http_port_ends_it_with_2(setup: Setup) -> None:
    """The port of health and metrics is taken: 2, and the line names the setting and the port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        daemon = await _ends(setup, SPOTD_HTTP_PORT=port)

    assert daemon.process.returncode == 2
    assert "SPOTD_HTTP_PORT" in _sentence(daemon)
    assert port in _sentence(daemon)
    assert "Traceback" not in daemon.output
    assert "Warning" not in daemon.stderr


async def test_a_daemon_without_http_behind_a_unix_socket(setup: Setup) -> None:
    """``unix://`` is an address of Redis; with SPOTD_HTTP_PORT=0 it listens nowhere.

    Where stderr is not a terminal, each line of its log is one JSON object by default.
    """
    await setup.values.want("SPY")
    daemon = await setup.start(
        SPOTD_REDIS_URL=f"unix://{setup.server.socket_path}",
        SPOTD_HTTP_PORT="0",
        SPOTD_LOG_FORMAT=None,
    )
    await setup.until(lambda: setup.values.live("SPY"), "SPY live")

    assert _listening(daemon) == set()
    assert await daemon.stop() == 0
    assert daemon.stderr
    for line in daemon.stderr.splitlines():
        assert {"event", "level", "timestamp"} <= json.loads(line).keys()


async def test_no_secret_in_the_output_of_a_hard_life(setup: Setup) -> None:
    """Whatever fails, the output holds no key and no password, also at level debug."""
    await setup.redis.config_set("requirepass", PASSWORD)
    url = f"redis://:{QUOTED}@127.0.0.1:{setup.server.port}/0"
    await setup.values.aclose()
    setup.values = Values(url)
    setup.sim.faults.rest_status = 500
    daemon = await setup.daemon(SPOTD_REDIS_URL=url, SPOTD_LOG_LEVEL="debug")
    await setup.streaming("SPY", "QQQ")
    await setup.sim.send([quote("SPY", 10, 11)])
    await setup.until(lambda: setup.values.last("SPY"), "published")
    told = [(await daemon.get(page))[1] for page in ("/livez", "/readyz", "/status", "/metrics")]
    told += [(await setup.redis.get(key)).decode() for key in ("spotd:status", "spotd:leader")]
    setup.sim.faults.rest_garbage = True
    setup.sim.faults.bad_symbols = {"KO"}
    await setup.values.want("KO", "IBM", "not one")
    await setup.until(partial(_says, daemon, "no snapshots"), "REST failed")
    setup.sim.faults.auth_error = 500
    await setup.sim.drop_sessions("abort")
    await setup.until(partial(_says, daemon, "stream is down"), "the stream is down")
    await setup.redis.config_set("requirepass", "another")
    await setup.redis.client_kill_filter(skipme=True, _type="normal")
    await setup.until(partial(_misses_redis, daemon), "Redis refuses the password")
    told += [(await daemon.get(page))[1] for page in ("/readyz", "/status", "/metrics")]
    setup.server.kill()

    assert await daemon.stop() == 0
    for text in (daemon.output, *told):
        for secret in (KEY, SECRET, PASSWORD, QUOTED):
            assert secret not in text
    assert "Traceback" not in daemon.output


def _says(daemon: Command, words: str) -> bool:
    return words in daemon.output


async def _misses_redis(daemon: Command) -> bool:
    """Return whether the daemon has found out that Redis refuses it, or has ended."""
    return not daemon.running or "redis" in (await daemon.get("/readyz"))[1]


def _listening(daemon: Command) -> set[str]:
    """Return the inodes of TCP sockets on which the process listens."""
    table = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    listening = {row.split()[9] for row in table if row.split()[3] == "0A"}
    own = set()
    for link in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        target = str(link.readlink())
        if target.startswith("socket:["):
            own.add(target[8:-1])
    return listening & own
