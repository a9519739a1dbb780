"""``spotd check``: a line for each thing, and the exit code of the first that failed.

What INFO and CONFIG mean is proved in tests/core/test_redis_fitness.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from pydantic import SecretStr

from spotd.cli.check import NAMES, check_alpaca, check_settings
from spotd.cli.check_redis import RedisCheck
from spotd.core.redis_fitness import Finding
from spotd.redis.calls import CALL_TIMEOUT_S
from spotd.settings import Settings
from spotd.simulator import Faults, MarketModel, Simulator
from tests.cli.conftest import Call
from tests.cli.terminal import on_terminal, read_until
from tests.kit.acl import rules_of
from tests.kit.ports import free_port
from tests.kit.publisher import KEYS, status_of
from tests.kit.redis_port import clock_after
from tests.kit.redis_proxy import RedisProxy
from tests.kit.servers import Server
from tests.kit.waiting import until


@pytest.fixture
async def alpaca() -> AsyncIterator[Simulator]:
    """Yield an Alpaca that grants the iex feed, with prices for every symbol."""
    async with Simulator(feeds=("iex", "sip"), market=MarketModel()) as simulator:
        yield simulator


def settings_for(simulator: Simulator | None = None, **more: object) -> Settings:
    """Return settings with the simulator's keys."""
    url = {} if simulator is None else {"data_url": f"http://{simulator.host}:{simulator.port}"}
    keys = {"api_key": SecretStr("demo-key"), "secret_key": SecretStr("demo-secret")}
    return Settings(**{**keys, **url, **more})  # type: ignore[arg-type]


async def on_redis(settings: Settings) -> dict[str, Finding]:
    """Return the findings on Redis, by name."""
    check = RedisCheck(settings)
    await check.run()
    return check.findings


def shown(finding: Finding) -> str:
    """Return the words of a line."""
    return f"{finding.text}; {finding.remedy}"


def marks(out: str) -> dict[str, str]:
    """Return what each line of the output begins with: name and mark."""
    return {line.split()[0]: line.split()[1] for line in out.splitlines()}


class TestAlpaca:
    async def test_good(self, alpaca: Simulator) -> None:
        """Good keys show a quote, and how old it is."""
        finding, ahead_s = await check_alpaca(settings_for(alpaca))
        assert finding.level == "ok"
        assert finding.text.startswith("feed iex: SPY bid ")
        assert ahead_s is not None
        assert abs(ahead_s) < 60

    async def test_no_quote(self, alpaca: Simulator) -> None:
        """Good keys without a quote are good keys."""
        alpaca.faults.rest_null = True
        finding, _ = await check_alpaca(settings_for(alpaca))
        assert finding.level == "ok"
        assert "no quote of SPY" in finding.text

    @pytest.mark.parametrize("more", [{"secret_key": SecretStr("wrong")}, {"feed": "boats"}])
    async def test_refused(self, alpaca: Simulator, more: dict[str, object]) -> None:
        """Wrong keys, or a feed that the plan lacks, are refused for good."""
        finding, _ = await check_alpaca(settings_for(alpaca, **more))
        assert (finding.level, finding.exit_code) == ("failure", 3)
        assert "check the keys" in finding.text

    @pytest.mark.parametrize("faults", [Faults(rest_status=500), Faults(rest_garbage=True)])
    async def test_failing(self, faults: Faults) -> None:
        """An Alpaca that does not work is no refusal: another try may succeed."""
        async with Simulator(faults=faults) as simulator:
            finding, _ = await check_alpaca(settings_for(simulator))
        assert (finding.level, finding.exit_code) == ("failure", 1)
        assert "try later" in finding.remedy

    @pytest.mark.parametrize("user", ["", "me:hunter2@"])
    async def test_nobody_there(self, user: str) -> None:
        """An address where nobody listens is named, with the cause and without credentials."""
        place = f"127.0.0.1:{free_port()}"
        finding, _ = await check_alpaca(settings_for(data_url=f"http://{user}{place}"))
        assert (finding.level, finding.exit_code) == ("failure", 1)
        assert finding.text.startswith(f"no latest values from {place}: ")
        assert "(Connection refused)" in finding.text
        assert "hunter2" not in finding.text

    @pytest.mark.parametrize("more", [{"feed": "test"}, {"api_key": None}])
    async def test_skipped(self, more: dict[str, object]) -> None:
        """Without keys, or on the feed that has no REST, there is nothing to try."""
        finding, _ = await check_alpaca(settings_for(None, **more))
        assert finding.level == "skipped"


class TestRedis:
    async def test_good(self, server: redis.Redis) -> None:
        """A server that does everything is ok; nothing is left in it, and nobody leads."""
        found = await on_redis(Settings.load())
        assert found["redis"].text.endswith(" answers; scripts and pub/sub work")
        assert found["version"].text.startswith("Valkey ")
        assert found["leader"].text == "no daemon leads"
        assert found["buffers"].text.startswith("a subscriber that leaves more than 32 MB")
        levels = {name: each.level for name, each in found.items()}
        assert levels.pop("persistence") == "warning"  # tests keep nothing on disk
        assert set(levels.values()) == {"ok"}
        assert server.keys() == []

    async def test_slow(self, server: redis.Redis, shared_server: Server) -> None:
        """A pause that is longer than the daemon waits for a call is no failure."""
        async with RedisProxy.to(shared_server) as network:
            network.hold("EVALSHA")
            checking = asyncio.create_task(on_redis(settings_for(redis_url=SecretStr(network.url))))
            await until(lambda: network.held, "a call")
            await until(clock_after(CALL_TIMEOUT_S + 0.1), "what the daemon would wait")
            network.release()
            found = await checking
        assert found["redis"].text.endswith(" answers; scripts and pub/sub work")

    async def test_leader(self, server: redis.Redis) -> None:
        """The leader is named by its token, with its state where the status is its own.

        One of another feed is warned of.
        """
        server.set(KEYS.leader, "host-1-ab:1")
        assert (await on_redis(Settings.load()))["leader"] == ("ok", "led by host-1-ab", "", 1)
        server.set(KEYS.status, status_of().to_json())
        found = await on_redis(Settings.load())
        assert found["leader"].text == "led by host-1-ab (streaming)"
        assert server.get(KEYS.leader) == b"host-1-ab:1"
        server.set(KEYS.status, msgspec.structs.replace(status_of(), feed="sip").to_json())
        found = await on_redis(Settings.load())
        assert found["leader"].level == "warning"
        assert found["leader"].text == "led by host-1-ab, whose feed is sip"
        server.set(KEYS.leader, "host-2-cd:1")
        assert (await on_redis(Settings.load()))["leader"].text == "led by host-2-cd"

    @pytest.mark.parametrize(
        ("wrong", "finding"),
        [("symbols", "demand"), ("leases", "demand"), ("leader", "leader")],
    )
    async def test_a_key_of_the_wrong_type(
        self, server: redis.Redis, wrong: str, finding: str
    ) -> None:
        """What the daemon could not read is named, with its remedy; all else is checked too."""
        key: str = getattr(KEYS, wrong)
        server.hset(key, "a", "b")
        found = await on_redis(Settings.load())
        assert found[finding].level == "failure"
        assert f"{key} is of the wrong type" in found[finding].text
        assert "delete the key" in found[finding].remedy
        others = {name: each.level for name, each in found.items() if name != finding}
        assert "failure" not in others.values()
        assert set(others) >= {"redis", "rights", "databases"}
        assert server.keys() == [key.encode()]

    async def test_what_the_server_is_set_to(self, server: redis.Redis) -> None:
        """Persistence, eviction and buffers are read from the server itself."""
        before = {
            name: str(server.config_get(name)[name])
            for name in ("appendonly", "maxmemory", "maxmemory-policy", _BUFFERS)
        }
        server.config_set("appendonly", "yes")
        server.config_set("maxmemory", "1gb")
        server.config_set("maxmemory-policy", "allkeys-lru")
        server.config_set(_BUFFERS, "pubsub 65536 0 0")
        try:
            found = await on_redis(Settings.load())
        finally:
            for name, value in before.items():
                server.config_set(name, value)
        assert found["persistence"].text.endswith("append-only file")
        assert found["memory"].level == "warning"
        assert "CONFIG SET maxmemory-policy noeviction" in found["memory"].remedy
        assert (found["buffers"].level, "cut off" in found["buffers"].text) == ("warning", True)

    @pytest.mark.parametrize("denied", ["-config -info", "-config|get -info"])
    async def test_managed(self, server: Any, denied: str) -> None:
        """What may not be asked is unknown, which is no failure, and a command is named for it."""
        with self.user(server, *denied.split()) as url:
            found = await on_redis(settings_for(redis_url=url))
        asked = ("version", "role", "buffers", "persistence", "memory", "databases")
        assert {found[name].level for name in asked} == {"unknown"}
        assert all(found[name].remedy for name in asked)
        assert {found[name].level for name in found.keys() - asked} == {"ok"}

    async def test_replica(self, server: Any, shared_server: Server, tmp_path: Path) -> None:
        """A replica is told with its master. It answers, and no daemon could lead on it."""
        options = ("--replicaof", "127.0.0.1", str(shared_server.port))
        with Server(tmp_path / "replica", *options) as replica:
            found = await on_redis(settings_for(redis_url=SecretStr(replica.url)))
        assert found["role"].level == "failure"
        assert f"replica of 127.0.0.1:{shared_server.port}" in found["role"].text
        assert found["redis"].level == "ok"

    async def test_no_server(self) -> None:
        """A server that is not there is reported without the password, with a hint what to do."""
        url = SecretStr(f"redis://:hunter2@127.0.0.1:{free_port()}/0?password=hunter2")
        found = await on_redis(settings_for(redis_url=url))
        assert list(found) == ["redis"]
        assert (found["redis"].level, found["redis"].exit_code) == ("failure", 1)
        assert found["redis"].remedy == "start Redis there, or correct SPOTD_REDIS_URL"
        assert "hunter2" not in shown(found["redis"])

    @pytest.mark.parametrize(
        ("user", "database"), [("", "99"), (":hunter2@", "0"), ("me:hunter2@", "0")]
    )
    async def test_refused(
        self, server: redis.Redis, monkeypatch: pytest.MonkeyPatch, user: str, database: str
    ) -> None:
        """A server that answers with an error is up: the address holds something wrong."""
        port = server.get_connection_kwargs()["port"]
        monkeypatch.setenv("SPOTD_REDIS_URL", f"redis://{user}127.0.0.1:{port}/{database}")
        finding = (await on_redis(Settings.load()))["redis"]
        assert finding.level == "failure"
        assert "Redis is up: correct the user, password or database" in finding.remedy
        assert "hunter2" not in shown(finding)

    async def test_password_missing(self, server: redis.Redis) -> None:
        """A server that misses a password is up too."""
        settings = Settings.load()
        server.config_set("requirepass", "hunter2")
        try:
            found = await on_redis(settings)
        finally:
            server.config_set("requirepass", "")
        assert "Redis is up" in found["redis"].remedy

    @pytest.mark.parametrize(
        ("denied", "named"),
        [
            ("-eval", "'eval'"),  # with which Redis is asked for all the others
            (
                "-evalsha",
                "for EVALSHA spotd:leases, EVALSHA spotd:leader, EVALSHA spotd:seq, EVALSHA ",
            ),
            ("-publish", "for PUBLISH spot:*, PUBLISH spotd:events, PUBLISH leaders:spot:; "),
            ("-subscribe", "for SUBSCRIBE spotd:wake, SUBSCRIBE leaders:spot:; "),
            ("-zrangebyscore", "for ZRANGEBYSCORE spotd:leases; "),
            ("-time", "for TIME; "),
            ("-smembers -sscan", "for SMEMBERS spotd:symbols, SSCAN spotd:symbols; "),
            ("-hset -hvals", "for HSET spotd:last, HSET spotd:states, HVALS spotd:last, HVALS sp"),
            ("resetchannels &spotd:*", "for PUBLISH spot:*, PUBLISH leaders:spot:, SUBSCRIBE lea"),
            (
                "resetkeys ~spotd:l* ~spotd:s[^t]*",
                "SET spotd:status, DEL spotd:status, DEL spotd:s",
            ),
        ],
    )
    async def test_denied(self, server: Any, denied: str, named: str) -> None:
        """Every right that the daemon lacks is named, with its key or channel."""
        with self.user(server, *denied.split()) as url:
            finding = (await on_redis(settings_for(redis_url=url)))["rights"]
        assert finding.level == "failure"
        assert named in shown(finding)
        assert "permission" in finding.text.lower()
        assert "Redis is up" in finding.remedy

    async def test_who_leads_is_denied(self, server: Any) -> None:
        """A user who may not read who leads is told everything else."""
        with self.user(server, "-get") as url:
            found = await on_redis(settings_for(redis_url=url))
        assert "GET spotd:leader" in found["rights"].text
        assert found["leader"].level == "unknown"
        assert "demand" not in found
        assert set(found) >= {"redis", "buffers", "persistence", "memory", "databases"}
        assert found["redis"].level == "ok"

    async def test_denied_subscribers(self, server: Any) -> None:
        """The right to ask for subscribers is needed where these are demand."""
        with self.user(server, "-pubsub") as url:
            assert (await on_redis(settings_for(redis_url=url)))["rights"].level == "ok"
            asking = settings_for(redis_url=url, subscribers_are_demand=True)
            assert "for PUBSUB spot:*" in (await on_redis(asking))["rights"].text

    async def test_least_rights(self, server: Any) -> None:
        """A user with the rights of ``deploy/redis/users.acl`` is enough for the check."""
        rules = [*rules_of("spotd-daemon"), "+select"]  # of database 1
        with self.user(server, *rules, everything=False) as url:
            found = await on_redis(settings_for(redis_url=SecretStr(f"{url.get_secret_value()}1")))
        assert found["redis"].text.endswith("scripts and pub/sub work")
        assert {each.level for each in found.values()} == {"ok", "unknown"}

    async def test_another_leader(self, server: redis.Redis) -> None:
        """A leader with the same prefixes in another database is an error, and stays untouched."""
        port = server.get_connection_kwargs()["port"]
        with redis.Redis(port=port, db=3) as other:
            other.set(KEYS.leader, "host-1:ab")
            finding = (await on_redis(Settings.load()))["databases"]
            assert other.get(KEYS.leader) == b"host-1:ab"
        assert finding.level == "failure"
        assert "host-1:ab leads in database 3" in finding.text
        assert "SPOTD_CHANNEL_PREFIX" in finding.remedy

    async def test_a_demand_elsewhere(self, server: redis.Redis) -> None:
        """A demand in another database is read by nobody, and a warning."""
        port = server.get_connection_kwargs()["port"]
        with redis.Redis(port=port, db=3) as other:
            other.sadd(KEYS.symbols, "SPY")
            finding = (await on_redis(Settings.load()))["databases"]
        assert finding.level == "warning"
        assert "stands in database 3" in finding.text

    @staticmethod
    @contextmanager
    def user(server: Any, *rules: str, everything: bool = True) -> Iterator[SecretStr]:
        """Have a user with these rules for a while. Yield the URL that logs it in."""
        most = ("~*", "&*", "+@all") if everything else ()
        server.execute_command("ACL", "SETUSER", "poor", "reset", "on", ">pw", *most, *rules)
        try:
            port = server.get_connection_kwargs()["port"]
            yield SecretStr(f"redis://poor:pw@127.0.0.1:{port}/{'0' if everything else ''}")
        finally:
            server.acl_deluser("poor")


_BUFFERS = "client-output-buffer-limit"


def test_settings() -> None:
    """Settings are ok with keys; the address is shown without its password."""
    finding = check_settings(
        settings_for(redis_url=SecretStr("redis://u:hun@ter2@h:1/0?x=hunter2"))
    )
    assert finding == ("ok", "feed iex, Redis redis://h:1/0", "", 1)
    finding = check_settings(settings_for(secret_key=None))
    assert finding.exit_code == 2
    assert "ALPACA_SECRET_KEY is not set" in finding.text
    assert "ALPACA_API_KEY" not in finding.text


@pytest.mark.parametrize("unset", [None, SecretStr("")])
def test_all_missing_keys_are_named_at_once(unset: SecretStr | None) -> None:
    """Who has set neither key reads of both, with one hint where to create them."""
    finding = check_settings(settings_for(api_key=unset, secret_key=unset))
    assert finding.exit_code == 2
    for name in ("ALPACA_API_KEY", "APCA_API_KEY_ID", "ALPACA_SECRET_KEY", "APCA_API_SECRET_KEY"):
        assert finding.text.count(name) == 1
    assert finding.remedy == "create keys at https://app.alpaca.markets"


def test_unreadable_settings(spotd: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the settings cannot be read, nothing else is tried."""
    monkeypatch.setenv("SPOTD_FED", "iex")
    outcome = spotd("check")
    assert outcome.code == 2
    assert outcome.out.startswith("settings    FAILED   SPOTD_FED is not a setting")
    assert outcome.out.count("\n") == 1


@pytest.mark.parametrize(("no_color", "mark"), [("", b"\x1b[1;31mFAILED"), ("1", b"\x1b[1mFAILED")])
def test_colours(monkeypatch: pytest.MonkeyPatch, no_color: str, mark: bytes) -> None:
    """On a terminal the marks have colours, unless NO_COLOR is set."""
    monkeypatch.setenv("SPOTD_FED", "iex")
    with on_terminal("check", env={"NO_COLOR": no_color}) as (_, ours):
        read_until(ours, mark)


def test_wrong_address(spotd: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of Redis that cannot be read is a wrong setting."""
    monkeypatch.setenv("SPOTD_REDIS_URL", "redis+sentinel://h:26379")
    outcome = spotd("check")
    assert outcome.code == 2
    assert outcome.out.startswith("settings    FAILED   SPOTD_REDIS_URL")


@pytest.mark.parametrize("command", ["check", "status"])
@pytest.mark.parametrize(
    "url",
    [
        "redis://:{password}@127.0.0.1:{closed}/0",
        "redis://user:{password}@127.0.0.1:{closed}/0?bogus=1",
        "redis://127.0.0.1:{closed}/0?password={password}",
        "redis://:{password}@127.0.0.1:notaport/0",
        "redis://:{password}@[::1/0",
        "http://:{password}@127.0.0.1/",
        "redis+sentinel://:{password}@127.0.0.1:{closed}/name",
        "redis+sentinel://:{password}@127.0.0.1:{closed}",
        "redis+cluster://:{password}@127.0.0.1:{closed}",
        "rediss://:{password}@127.0.0.1:{plain}/0",
        "unix://:{password}@/nowhere/redis.sock",
    ],
)
def test_no_password_of_any_redis_url_is_printed(
    spotd: Call, server: redis.Redis, monkeypatch: pytest.MonkeyPatch, url: str, command: str
) -> None:
    """Whatever is wrong with the URL or behind it, its password is not in the output."""
    plain = server.get_connection_kwargs()["port"]
    quoted = "p4ss%2Fw0rd%26of%2Bredis"
    url = url.format(password=quoted, closed=free_port(), plain=plain)
    monkeypatch.setenv("SPOTD_REDIS_URL", url)
    outcome = spotd(command)
    assert outcome.code in (1, 2)
    for secret in (quoted, "p4ss/w0rd&of+redis"):
        assert secret not in outcome.out + outcome.err


def test_no_keys(spotd: Call, server: redis.Redis) -> None:
    """Without keys Redis is still looked at, and the exit code is that of the settings."""
    outcome = spotd("check")
    assert outcome.code == 2
    assert marks(outcome.out) == {
        **dict.fromkeys(NAMES, "ok"),
        "settings": "FAILED",
        "persistence": "warning",
        "alpaca": "skipped",
    }


async def test_whole(
    alpaca: Simulator, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line each and exit code 0 when all is well, and the stream is left alone."""
    monkeypatch.setenv("ALPACA_API_KEY", "demo-key")
    monkeypatch.setenv("ALPACA_SECRET_KEY", "demo-secret")
    monkeypatch.setenv("SPOTD_DATA_URL", f"http://{alpaca.host}:{alpaca.port}")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "spotd", "check", stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    out, _ = await process.communicate()
    assert marks(out.decode()) == {**dict.fromkeys(NAMES, "ok"), "persistence": "warning"}
    assert "clock       ok       agrees with Redis' and Alpaca's within 2 s" in out.decode()
    assert process.returncode == 0
    assert not alpaca.sessions
    assert {record.kind for record in alpaca.received} == {"rest"}


def test_json(spotd: Call, server: redis.Redis) -> None:
    """Programs get the findings with level, words and remedy, and the exit code."""
    outcome = spotd("check", "--json")
    told = json.loads(outcome.out)
    assert told["exit_code"] == outcome.code == 2
    found = {each.pop("name"): each for each in told["findings"]}
    assert list(found) == list(NAMES)
    assert found["role"] == {"level": "ok", "text": "a master", "remedy": None}
    assert found["settings"]["level"] == "failure"


def test_json_of_unreadable_settings(spotd: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is one finding."""
    monkeypatch.setenv("SPOTD_FED", "iex")
    outcome = spotd("check", "--json")
    assert [each["name"] for each in json.loads(outcome.out)["findings"]] == ["settings"]
    assert outcome.code == 2
