"""``spotd check``: one line for each of the three, and the exit code of the first that failed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from spotd.cli.check import check_alpaca, check_redis, check_settings
from spotd.settings import Settings
from spotd.simulator import Faults, MarketModel, Simulator
from tests.cli.conftest import Call
from tests.kit.acl import rules_of
from tests.kit.ports import free_port
from tests.kit.publisher import KEYS, status_of


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


class TestAlpaca:
    async def test_good(self, alpaca: Simulator) -> None:
        """Good keys show a quote, and how old it is."""
        finding = await check_alpaca(settings_for(alpaca))
        assert finding.exit_code == 0
        assert finding.text.startswith("feed iex: SPY bid ")

    async def test_no_quote(self, alpaca: Simulator) -> None:
        """Good keys without a quote are good keys."""
        alpaca.faults.rest_null = True
        finding = await check_alpaca(settings_for(alpaca))
        assert finding.exit_code == 0
        assert "no quote of SPY" in finding.text

    @pytest.mark.parametrize("more", [{"secret_key": SecretStr("wrong")}, {"feed": "boats"}])
    async def test_refused(self, alpaca: Simulator, more: dict[str, object]) -> None:
        """Wrong keys, or a feed that the plan lacks, are refused for good."""
        finding = await check_alpaca(settings_for(alpaca, **more))
        assert finding.exit_code == 3
        assert "check the keys" in finding.text

    @pytest.mark.parametrize("faults", [Faults(rest_status=500), Faults(rest_garbage=True)])
    async def test_failing(self, faults: Faults) -> None:
        """An Alpaca that does not work is no refusal: another try may succeed."""
        async with Simulator(faults=faults) as simulator:
            finding = await check_alpaca(settings_for(simulator))
        assert finding.exit_code == 1
        assert "try later" in finding.text

    @pytest.mark.parametrize("user", ["", "me:hunter2@"])
    async def test_nobody_there(self, user: str) -> None:
        """An address where nobody listens is named, with the cause and without credentials."""
        place = f"127.0.0.1:{free_port()}"
        finding = await check_alpaca(settings_for(data_url=f"http://{user}{place}"))
        assert finding.exit_code == 1
        assert finding.text.startswith(f"no latest values from {place}: ")
        assert "(Connection refused)" in finding.text
        assert "hunter2" not in finding.text

    @pytest.mark.parametrize("more", [{"feed": "test"}, {"api_key": None}])
    async def test_skipped(self, more: dict[str, object]) -> None:
        """Without keys, or on the feed that has no REST, there is nothing to try."""
        finding = await check_alpaca(settings_for(None, **more))
        assert finding.skipped
        assert finding.exit_code == 0


class TestRedis:
    async def test_good(self, server: redis.Redis) -> None:
        """A server that does everything is ok; nothing is left in it, and nobody leads."""
        finding = await check_redis(Settings.load())
        assert finding.exit_code == 0
        assert finding.text.startswith("Valkey ")
        assert finding.text.endswith("scripts and pub/sub work; no daemon leads")
        assert server.keys() == []

    async def test_leader(self, server: redis.Redis) -> None:
        """The leader is named by the status, or by its token where there is no status."""
        server.set(KEYS.leader, "token-1")
        assert (await check_redis(Settings.load())).text.endswith("led by token-1")
        server.set(KEYS.status, status_of().to_json())
        assert (await check_redis(Settings.load())).text.endswith("led by host-1-ab (streaming)")
        assert server.get(KEYS.leader) == b"token-1"

    async def test_no_server(self) -> None:
        """A server that is not there is reported without the password, with a hint what to do."""
        url = SecretStr(f"redis://:hunter2@127.0.0.1:{free_port()}/0?password=hunter2")
        finding = await check_redis(settings_for(redis_url=url))
        assert finding.exit_code == 1
        assert "start Redis there, or correct SPOTD_REDIS_URL" in finding.text
        assert "hunter2" not in finding.text

    @pytest.mark.parametrize(
        ("user", "database"), [("", "99"), (":hunter2@", "0"), ("me:hunter2@", "0")]
    )
    async def test_refused(
        self, server: redis.Redis, monkeypatch: pytest.MonkeyPatch, user: str, database: str
    ) -> None:
        """A server that answers with an error is up: the address holds something wrong."""
        port = server.get_connection_kwargs()["port"]
        monkeypatch.setenv("SPOTD_REDIS_URL", f"redis://{user}127.0.0.1:{port}/{database}")
        finding = await check_redis(Settings.load())
        assert finding.exit_code == 1
        assert "Redis is up: correct the user, password or database" in finding.text
        assert "start Redis" not in finding.text
        assert "hunter2" not in finding.text

    async def test_password_missing(self, server: redis.Redis) -> None:
        """A server that misses a password is up too."""
        settings = Settings.load()
        server.config_set("requirepass", "hunter2")
        try:
            finding = await check_redis(settings)
        finally:
            server.config_set("requirepass", "")
        assert "Redis is up" in finding.text

    @pytest.mark.parametrize(
        ("denied", "named"),
        [
            ("-eval", "'eval'"),  # with which Redis is asked for all the others
            ("-evalsha", "for EVALSHA spotd:leader, EVALSHA spotd:seq, EVALSHA spotd:status, "),
            ("-publish", "for PUBLISH spot:*, PUBLISH spotd:events, PUBLISH leaders:spot:; "),
            ("-subscribe", "for SUBSCRIBE spotd:wake, SUBSCRIBE leaders:spot:; "),
            ("-zrangebyscore", "for ZRANGEBYSCORE spotd:leases; "),
            ("-smembers -sscan", "for SMEMBERS spotd:symbols, SSCAN spotd:symbols; "),
            ("-hset", "for HSET spotd:last, HSET spotd:states; "),
            ("resetchannels &spotd:*", "for PUBLISH spot:*, PUBLISH leaders:spot:, SUBSCRIBE lea"),
            (
                "resetkeys ~spotd:l* ~spotd:s[^t]*",
                "SET spotd:status, DEL spotd:status, DEL spotd:s",
            ),
        ],
    )
    async def test_denied(self, server: Any, denied: str, named: str) -> None:
        """Every right that the daemon lacks is named, with its key or channel."""
        rules = ["on", ">pw", "~*", "&*", "+@all", *denied.split()]
        server.execute_command("ACL", "SETUSER", "poor", *rules)
        try:
            port = server.get_connection_kwargs()["port"]
            url = SecretStr(f"redis://poor:pw@127.0.0.1:{port}/0")
            finding = await check_redis(settings_for(redis_url=url))
        finally:
            server.acl_deluser("poor")
        assert finding.exit_code == 1
        assert named in finding.text
        assert "permission" in finding.text.lower()
        assert "Redis is up" in finding.text

    async def test_denied_subscribers(self, server: Any) -> None:
        """The right to ask for subscribers is needed where these are demand."""
        rules = ["on", ">pw", "~*", "&*", "+@all", "-pubsub"]
        server.execute_command("ACL", "SETUSER", "poor", *rules)
        port = server.get_connection_kwargs()["port"]
        url = SecretStr(f"redis://poor:pw@127.0.0.1:{port}/0")
        assert (await check_redis(settings_for(redis_url=url))).exit_code == 0
        asking = settings_for(redis_url=url, subscribers_are_demand=True)
        assert "for PUBSUB spot:*; " in (await check_redis(asking)).text
        server.acl_deluser("poor")

    async def test_least_rights(self, server: Any) -> None:
        """A user with the rights of ``deploy/redis/users.acl`` is enough for the check."""
        rules = rules_of("spotd-daemon")
        server.execute_command("ACL", "SETUSER", "least", "reset", ">pw", *rules)
        server.execute_command("ACL", "SETUSER", "least", "+select")  # of database 1
        try:
            port = server.get_connection_kwargs()["port"]
            url = SecretStr(f"redis://least:pw@127.0.0.1:{port}/1")
            finding = await check_redis(settings_for(redis_url=url))
        finally:
            server.acl_deluser("least")
        assert finding.exit_code == 0
        assert finding.text.endswith("scripts and pub/sub work; no daemon leads")

    async def test_another_database(self, server: redis.Redis) -> None:
        """A leader with the same prefixes in another database is an error, and stays untouched."""
        port = server.get_connection_kwargs()["port"]
        with redis.Redis(port=port, db=3) as other:
            other.set(KEYS.leader, "host-1:ab")
            finding = await check_redis(Settings.load())
            assert other.get(KEYS.leader) == b"host-1:ab"
        assert finding.exit_code == 1
        assert "host-1:ab leads in database 3" in finding.text
        assert "SPOTD_CHANNEL_PREFIX" in finding.text


def test_settings() -> None:
    """Settings are ok with keys; the address is shown without its password."""
    finding = check_settings(
        settings_for(redis_url=SecretStr("redis://u:hun@ter2@h:1/0?x=hunter2"))
    )
    assert finding == ("feed iex, Redis redis://h:1/0", 0, False)
    finding = check_settings(settings_for(secret_key=None))
    assert finding.exit_code == 2
    assert "ALPACA_SECRET_KEY is not set" in finding.text


def test_unreadable_settings(spotd: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the settings cannot be read, nothing else is tried."""
    monkeypatch.setenv("SPOTD_FED", "iex")
    outcome = spotd("check")
    assert outcome.code == 2
    assert outcome.out.startswith("settings  FAILED   SPOTD_FED is not a setting")
    assert outcome.out.count("\n") == 1


def test_wrong_address(spotd: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of Redis that cannot be read is a wrong setting."""
    monkeypatch.setenv("SPOTD_REDIS_URL", "redis+sentinel://h:26379")
    outcome = spotd("check")
    assert outcome.code == 2
    assert outcome.out.startswith("settings  FAILED   SPOTD_REDIS_URL")


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
    assert [line.split()[:2] for line in outcome.out.splitlines()] == [
        ["settings", "FAILED"],
        ["redis", "ok"],
        ["alpaca", "skipped"],
    ]


async def test_whole(
    alpaca: Simulator, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three lines and exit code 0 when all is well, and the stream is left alone."""
    monkeypatch.setenv("ALPACA_API_KEY", "demo-key")
    monkeypatch.setenv("ALPACA_SECRET_KEY", "demo-secret")
    monkeypatch.setenv("SPOTD_DATA_URL", f"http://{alpaca.host}:{alpaca.port}")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "spotd", "check", stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    out, _ = await process.communicate()
    assert [line.split()[:2] for line in out.decode().splitlines()] == [
        ["settings", "ok"],
        ["redis", "ok"],
        ["alpaca", "ok"],
    ]
    assert process.returncode == 0
    assert not alpaca.sessions
    assert {record.kind for record in alpaca.received} == {"rest"}
