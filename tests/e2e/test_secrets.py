"""No secret leaves spotd, whatever fails: not by logs, HTTP, output, arguments or errors."""

from __future__ import annotations

import asyncio
import json
import traceback
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from pydantic import SecretStr
from websockets.frames import Frame, Opcode

import spotd
from spotd.errors import SettingsError, SpotdError
from spotd.keys import Keys
from spotd.redis.port import RedisPort
from spotd.relay.settings import RelaySettings
from spotd.settings import Settings
from tests.e2e.setup import Setup
from tests.kit.marked import Marked, found_in, marked
from tests.kit.ports import free_port
from tests.kit.processes import Command
from tests.kit.servers import Server, make_certificates
from tests.kit.template import AVAILABLE
from tests.kit.websocket import ServerEnd, frame, framed, tcp_server, websocket_server

REDIS = marked("redisPw")
SENTINEL = marked("sentinelPw")
API_KEY = marked("alpacaKey", "/x+y&z=%40@")  # a header carries it
API_SECRET = marked("alpacaSecret", "/x+y&z=%40@")
TOKEN = marked("relayToken", "/x+y&z=%40@'\"\\")
TLS = marked("tlsKeyPw")
PROXY = marked("proxyPw")
ALL = (REDIS, SENTINEL, API_KEY, API_SECRET, TOKEN, TLS, PROXY)

PAGES = ("/livez", "/readyz", "/status", "/metrics", "/nothing")


@dataclass
class Scene:
    """What a failure needs: a setup, and the ports of two servers that let nobody in."""

    setup: Setup
    sentinel: int  # which has another password
    parrot: int  # which answers every command with its arguments


# Failures: each prepares the scene, and returns what it changes in the environment.


async def _wrong_password(scene: Scene) -> dict[str, str]:
    await scene.setup.redis.config_set("requirepass", "another")
    return {"SPOTD_REDIS_URL": f"redis://:{REDIS.quoted}@127.0.0.1:{scene.setup.server.port}/0"}


async def _wrong_user(scene: Scene) -> dict[str, str]:
    url = f"redis://user:{REDIS.quoted}@127.0.0.1:{scene.setup.server.port}/0"
    return {"SPOTD_REDIS_URL": url}


async def _acl_refusal(scene: Scene) -> dict[str, str]:
    await scene.setup.redis.execute_command(
        "ACL", "SETUSER", "few", "on", f">{REDIS.text}", "~*", "&*", "+@all", "-zscan", "-eval",
        "-evalsha", "-publish",
    )  # fmt: skip
    url = f"redis://few:{REDIS.quoted}@127.0.0.1:{scene.setup.server.port}/0"
    return {"SPOTD_REDIS_URL": url}


async def _unreachable(scene: Scene) -> dict[str, str]:
    return {"SPOTD_REDIS_URL": f"redis://u:{REDIS.quoted}@127.0.0.1:{free_port()}/0"}


async def _no_such_host(scene: Scene) -> dict[str, str]:
    return {"SPOTD_REDIS_URL": f"redis://u:{REDIS.quoted}@no.such.invalid:1/0"}


async def _no_cluster(scene: Scene) -> dict[str, str]:
    port = scene.setup.server.port
    url = f"redis+cluster://:{REDIS.quoted}@127.0.0.1:{port}"
    return {"SPOTD_REDIS_URL": url, "SPOTD_KEY_PREFIX": "{spotd}:"}


async def _sentinel_wrong_password(scene: Scene) -> dict[str, str]:
    url = f"redis+sentinel://u:{REDIS.quoted}@127.0.0.1:{scene.sentinel}/prices"
    return {"SPOTD_REDIS_URL": f"{url}?sentinel_password={SENTINEL.quoted}"}


async def _repeats_arguments(scene: Scene) -> dict[str, str]:
    url = f"redis://u:{REDIS.quoted}@127.0.0.1:{scene.parrot}/0"
    return {"SPOTD_REDIS_URL": url}


async def _sentinel_repeats_arguments(scene: Scene) -> dict[str, str]:
    url = f"redis+sentinel://u:{REDIS.quoted}@127.0.0.1:{scene.parrot}/prices"
    return {"SPOTD_REDIS_URL": f"{url}?sentinel_password={SENTINEL.quoted}"}


async def _tls_key_password(scene: Scene) -> dict[str, str]:
    authority, certificate, key = make_certificates(scene.setup.home)
    options = f"ssl_ca_certs={authority}&ssl_certfile={certificate}&ssl_keyfile={key}"
    port = scene.setup.server.port
    url = f"rediss://u:{REDIS.quoted}@127.0.0.1:{port}/0?{options}&ssl_password={TLS.quoted}"
    return {"SPOTD_REDIS_URL": url}


async def _tls_key_missing(scene: Scene) -> dict[str, str]:
    options = f"ssl_certfile=/nowhere&ssl_keyfile=/nowhere&ssl_password={TLS.quoted}"
    url = f"rediss://u:{REDIS.quoted}@127.0.0.1:{scene.setup.server.port}/0?{options}"
    return {"SPOTD_REDIS_URL": url}


async def _wrong_keys(scene: Scene) -> dict[str, str]:
    scene.setup.sim.keys.clear()
    return {}


async def _keys_repeated(scene: Scene) -> dict[str, str]:
    scene.setup.sim.faults.auth_error = 500
    scene.setup.sim.faults.rest_status = 403
    return {}


async def _proxy_in_urls(scene: Scene) -> dict[str, str]:
    port = free_port()
    return {
        "SPOTD_STREAM_URL": f"wss://u:{PROXY.quoted}@127.0.0.1:{port}/v2/iex",
        "SPOTD_DATA_URL": f"https://u:{PROXY.quoted}@127.0.0.1:{port}",
    }


async def _proxy_in_environment(scene: Scene) -> dict[str, str]:
    proxy = f"http://u:{PROXY.quoted}@127.0.0.1:{free_port()}"
    return {
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy),
        "SPOTD_STREAM_URL": "ws://stream.invalid/v2/iex",
        "SPOTD_DATA_URL": "http://data.invalid",
    }


FAILURES: list[Callable[[Scene], Awaitable[dict[str, str]]]] = [
    _wrong_password, _wrong_user, _acl_refusal, _unreachable, _no_such_host, _no_cluster,
    _sentinel_wrong_password, _repeats_arguments, _sentinel_repeats_arguments, _tls_key_password,
    _tls_key_missing, _wrong_keys, _keys_repeated, _proxy_in_urls, _proxy_in_environment,
]  # fmt: skip
# One of each source of errors: server, Sentinel, TLS, Alpaca, proxies. Quick tests of the texts of
# the others: tests/redis/test_errors.py, tests/cli/test_check.py, tests/alpaca, and below.
OF_EACH_KIND = {
    _repeats_arguments, _sentinel_wrong_password, _tls_key_missing, _keys_repeated, _proxy_in_urls,
}  # fmt: skip


@pytest.fixture
async def scene(setup: Setup) -> AsyncIterator[Scene]:
    """Yield a scene: an Alpaca that knows the marked keys, and servers that refuse."""
    setup.sim.keys[API_KEY.text] = API_SECRET.text
    config = f"sentinel monitor prices 127.0.0.1 {setup.server.port} 1\n"
    with Server(setup.home / "sentinel", "--sentinel", config=config) as sentinel:
        with sentinel.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "resetpass", ">another")
        async with await asyncio.start_server(_parrot, "127.0.0.1", 0) as parrot:
            yield Scene(setup, sentinel.port, parrot.sockets[0].getsockname()[1])


async def _parrot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each command with an error that repeats its arguments, as old servers do."""
    with suppress(ConnectionError, ValueError, asyncio.IncompleteReadError):
        while count := int((await reader.readline())[1:] or b"0"):
            parts = []
            for _ in range(count):
                size = int((await reader.readline())[1:])
                parts.append((await reader.readexactly(size + 2))[:-2].decode("utf-8", "replace"))
            said = " ".join(f"'{part}'" for part in parts)
            writer.write(f"-ERR wrong {said}, with args beginning with: {said}\r\n".encode())
    writer.close()


@pytest.mark.parametrize(
    "failure",
    [
        failure if failure in OF_EACH_KIND else pytest.param(failure, marks=pytest.mark.long)
        for failure in FAILURES
    ],
    ids=lambda failure: failure.__name__[1:],
)
async def test_whatever_fails_no_secret_is_told(
    scene: Scene, failure: Callable[[Scene], Awaitable[dict[str, str]]]
) -> None:
    """Logs at level debug, HTTP, and ``spotd check`` and ``status`` hold no secret."""
    setup = scene.setup
    await setup.values.want("SPY")
    changed = {
        "ALPACA_API_KEY": API_KEY.text,
        "ALPACA_SECRET_KEY": API_SECRET.text,
        "SPOTD_RELAY_TOKEN": TOKEN.text,
        "SPOTD_LOG_LEVEL": "debug",
        **await failure(scene),
    }
    daemon = await setup.start(**changed)
    others = [await _started(setup, name, changed) for name in ("check", "status")]
    await setup.until(lambda: _failed(daemon), "the failure")
    told = [(page, (await daemon.get(page))[1]) for page in PAGES]
    codes = [await each.ends() for each in others]
    if daemon.running:
        await daemon.stop()
    told += [(each.home.name, each.output) for each in (daemon, *others)]

    assert found_in(told, ALL) == []
    assert all(each.output for each in (daemon, *others))  # the search had texts
    assert any(codes), codes
    for _, text in told:
        assert "Traceback" not in text


@pytest.mark.parametrize("name", ["run", "relay"])
async def test_no_argument_holds_a_secret(setup: Setup, name: str) -> None:
    """The list of processes shows how it was called, and nothing of its settings."""
    changed = {
        "ALPACA_API_KEY": API_KEY.text,
        "ALPACA_SECRET_KEY": API_SECRET.text,
        "SPOTD_REDIS_URL": f"redis://:{REDIS.quoted}@127.0.0.1:{setup.server.port}/0",
        "SPOTD_RELAY_TOKEN": TOKEN.text,
        "SPOTD_RELAY_PORT": str(free_port()),
    }
    # Of a forked one, the list shows how the template was called.
    command = await _started(setup, name, changed, forked=False)
    await setup.until(lambda: command.output, "its first word")
    arguments = await _arguments(command)

    assert arguments.split("\0")[-2:] == [name, ""]
    assert found_in([("arguments", arguments)], ALL) == []


async def _started(
    setup: Setup, name: str, changed: dict[str, str], *, forked: bool = AVAILABLE
) -> Command:
    command = await Command.start(
        name, home=setup.home / name, env=setup.settings(**changed), forked=forked
    )
    setup.commands.append(command)
    return command


async def _failed(daemon: Command) -> bool:
    """Return whether the daemon ended, or has said of something that it failed."""
    warned = any(line.get("level") in ("warning", "error") for line in daemon.log())
    return not daemon.running or (warned and await daemon.unready())


async def _arguments(command: Command) -> str:
    return await asyncio.to_thread(_command_line, command.process.pid)


def _command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace")


# Settings


WRONG_SETTINGS: list[tuple[str, dict[str, str]]] = [
    ("a key where a number belongs", {"SPOTD_MAX_SYMBOLS": API_SECRET.text}),
    ("a key where a choice belongs", {"SPOTD_FEED": API_SECRET.text}),
    ("a key as a prefix", {"SPOTD_KEY_PREFIX": f"{API_SECRET.text} *"}),
    ("two keys", {"APCA_API_SECRET_KEY": f"{API_SECRET.text}2", "APCA_API_KEY_ID": API_KEY.text}),
    ("a password as a port", {"SPOTD_REDIS_URL": f"redis://h:{REDIS.quoted}/0"}),
    ("a password that is not quoted", {"SPOTD_REDIS_URL": f"redis://u:{REDIS.text}@h:1/0"}),
    ("a password with ?", {"SPOTD_REDIS_URL": f"redis://:{'?'.join(REDIS.words)}@h:1/0"}),
    ("a password with #", {"SPOTD_REDIS_URL": f"redis://:{'#'.join(REDIS.words)}@h:1/0"}),
    ("a password as a service", {"SPOTD_REDIS_URL": f"redis+sentinel://h:{REDIS.quoted}/prices"}),
    ("no scheme", {"SPOTD_REDIS_URL": f"u:{REDIS.quoted}@h:1/0"}),
    ("a wrong scheme", {"SPOTD_REDIS_URL": f"http://u:{REDIS.quoted}@h:1/0"}),
    ("a database", {"SPOTD_REDIS_URL": f"redis://u:{REDIS.quoted}@h:1/{REDIS.quoted}"}),
    ("an option", {"SPOTD_REDIS_URL": f"redis://u:{REDIS.quoted}@h:1/0?x={REDIS.quoted}"}),
    (
        "an option of TLS",
        {"SPOTD_REDIS_URL": f"rediss://h:1/0?ssl_cert_reqs=x&ssl_password={TLS.quoted}"},
    ),
    ("a bracket", {"SPOTD_REDIS_URL": f"redis://u:{REDIS.quoted}@[::1/0"}),
    ("a proxy", {"SPOTD_STREAM_URL": f"ftp://u:{PROXY.quoted}@h/"}),
    ("a proxy's port", {"SPOTD_DATA_URL": f"https://u:{PROXY.quoted}@h:port"}),
    ("three tokens", {"SPOTD_RELAY_TOKEN": f"{TOKEN.text},{TOKEN.text},{TOKEN.text}"}),
    ("a token with a space", {"SPOTD_RELAY_TOKEN": f"{TOKEN.text} x"}),
]


@pytest.mark.parametrize(
    "changed", [changed for _, changed in WRONG_SETTINGS], ids=[name for name, _ in WRONG_SETTINGS]
)
def test_a_wrong_setting_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]
) -> None:
    """The error, its traceback, and what is printed of the settings hold no secret."""
    keys = {"ALPACA_API_KEY": API_KEY.text, "ALPACA_SECRET_KEY": API_SECRET.text}
    for name, value in (keys | changed).items():
        monkeypatch.setenv(name, value)
    told = []
    for kind in (Settings, RelaySettings):
        try:
            settings = kind.load()
            RedisPort(settings.redis_url.get_secret_value(), settings.keys)
        except SettingsError as error:
            told.append((kind.__name__, "".join(traceback.format_exception(error))))
            told.append((kind.__name__, repr(error)))
    assert told
    assert found_in(told, ALL) == []


@pytest.mark.parametrize(
    "line",
    [
        f"ALPACA_SECRET_KEY {API_SECRET.text}",
        f"ALPACA_SECRET_KEY='{API_SECRET.words[0]}\n{API_SECRET.words[1]}",
        f"SPOTD_{API_SECRET.words[0]}={API_SECRET.text}",
    ],
    ids=["no equals sign", "an open quote", "a strange name"],
)
def test_a_line_of_dotenv_that_cannot_be_read_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    line: str,
) -> None:
    """Its number is told, and never its text. A name is no secret."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"{line}\n")
    try:
        Settings.load()
        said = ""
    except SettingsError as error:
        said = "".join(traceback.format_exception(error))
    out, err = capfd.readouterr()
    told = [("error", said), ("out", out), ("err", err), ("log", caplog.text)]
    secret = API_SECRET._replace(words=(API_SECRET.words[1],) * 2)
    assert found_in(told, [secret]) == []


# Words of Alpaca


async def _in_an_error(alpaca: ServerEnd) -> None:
    await alpaca.upgrade(_GREETING)
    alpaca.say({"T": "error", "code": 500, "msg": f"bad {_sent(await alpaca.read())}"})


async def _in_a_close_reason(alpaca: ServerEnd) -> None:
    await alpaca.upgrade(_GREETING)
    said = f"{_sent(await alpaca.read())}".encode()
    # Longer ones are cut, in the middle of whatever stands there.
    alpaca.write(frame(b"\x03\xf0" + said[:123], Opcode.CLOSE))


async def _in_the_end_of_a_close_reason(alpaca: ServerEnd) -> None:
    await alpaca.upgrade(_GREETING)
    await alpaca.read()
    half = API_SECRET.text[: len(API_SECRET.words[0]) + 3]
    alpaca.write(frame(b"\x03\xf0bad secret " + half.encode(), Opcode.CLOSE))


async def _in_a_refusal_of_a_symbol(alpaca: ServerEnd) -> None:
    await alpaca.upgrade(_GREETING)
    keys = _sent(await alpaca.read())
    alpaca.say({"T": "success", "msg": "authenticated"})
    while True:
        await alpaca.read()
        alpaca.say({"T": "error", "code": 400, "msg": f"invalid syntax for {json.dumps(keys)}"})


async def _in_text(alpaca: ServerEnd) -> None:
    await alpaca.upgrade()
    alpaca.write(frame(f"you are {API_KEY.quoted} {API_SECRET.text!r}".encode(), Opcode.TEXT))


async def _in_a_header(alpaca: ServerEnd) -> None:
    await alpaca.upgrade(extensions=f"x; key={API_KEY.text}")


_GREETING = framed({"T": "success", "msg": "connected"})
ECHOES = [_in_an_error, _in_the_end_of_a_close_reason]
# Quick: tests/alpaca and tests/test_redaction.py.
OTHER_ECHOES = [_in_a_close_reason, _in_a_refusal_of_a_symbol, _in_text, _in_a_header]


def _sent(authentication: Frame) -> dict[str, str]:
    """Return what a client authenticates with."""
    decoded: dict[str, str] = msgspec.msgpack.decode(authentication.data)
    assert decoded["secret"] == API_SECRET.text
    return decoded


async def _rest_that_repeats_headers(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    body = json.dumps({"code": 40010001, "message": head.decode()}).encode()
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    "echo",
    [*ECHOES, *(pytest.param(echo, marks=pytest.mark.long) for echo in OTHER_ECHOES)],
    ids=lambda echo: echo.__name__[1:],
)
async def test_an_alpaca_that_repeats_the_keys(
    setup: Setup, echo: Callable[[ServerEnd], Awaitable[None]]
) -> None:
    """Its words are told without them: in Redis, on its channels, by HTTP, logs and ``check``."""

    async def behave(alpaca: ServerEnd) -> None:
        await echo(alpaca)
        await alpaca.gone()

    await setup.values.want("SPY")
    recorder = await setup.recorder()
    async with (
        websocket_server(behave) as port,
        tcp_server(_rest_that_repeats_headers) as rest,
    ):
        changed = {
            "ALPACA_API_KEY": API_KEY.text,
            "ALPACA_SECRET_KEY": API_SECRET.text,
            "SPOTD_LOG_LEVEL": "debug",
            "SPOTD_STREAM_URL": f"ws://127.0.0.1:{port}/v2/iex",
            "SPOTD_DATA_URL": f"http://127.0.0.1:{rest}",
        }
        daemon = await setup.start(**changed)
        check = await _started(setup, "check", changed)
        await setup.until(lambda: _says_what_failed(setup), "the failure in Redis")
        told = [(page, (await daemon.get(page))[1]) for page in PAGES]
        told.append(("states", str(await setup.redis.hgetall(setup.values.keys.states))))
        told.append(("status", str(await setup.redis.get(setup.values.keys.status))))
        assert await check.ends() == 1
        assert await daemon.stop() == 0
    told += [("event", heard.raw.decode()) for heard in recorder.heard]
    told += [(each.home.name, each.output) for each in (daemon, check)]
    assert found_in(told, ALL) == []
    assert any("***" in text for where, text in told if where in ("event", "states", "status"))


async def _says_what_failed(setup: Setup) -> bool:
    status = await setup.values.status() or {"code": None}
    states = (await setup.redis.hgetall(setup.values.keys.states)).values()
    return status["code"] in ("backoff", "breaker_open") or any(b"refused" in s for s in states)


# What is printed of objects


async def test_no_object_shows_a_secret(setup: Setup) -> None:
    """``repr`` and ``str`` of settings, clients, ports and errors, and tracebacks of errors."""
    url = f"redis://u:{REDIS.quoted}@127.0.0.1:{setup.server.port}/0"
    sentinels = f"redis+sentinel://u:{REDIS.quoted}@127.0.0.1:{free_port()}/prices"
    sentinels += f"?sentinel_password={SENTINEL.quoted}"
    cluster = f"redis+cluster://u:{REDIS.quoted}@127.0.0.1:{free_port()}"
    told: list[tuple[str, str]] = []

    def keep(thing: object) -> None:
        told.extend((type(thing).__name__, text) for text in (repr(thing), str(thing)))
        if isinstance(thing, BaseException):
            told.append(("traceback", "".join(traceback.format_exception(thing))))

    for address in (url, sentinels, cluster):
        fields: dict[str, Any] = {
            "api_key": SecretStr(API_KEY.text),
            "secret_key": SecretStr(API_SECRET.text),
            "redis_url": SecretStr(address),
            "stream_url": f"wss://u:{PROXY.quoted}@h/",
            "data_url": f"https://u:{PROXY.quoted}@h",
        }
        keep(Settings(**fields))
        keep(RelaySettings(**fields, relay_token=SecretStr(TOKEN.text)))
        told.append(
            ("dump", str(Settings(**fields).model_dump(exclude={"stream_url", "data_url"})))
        )
        told.append(
            ("json", Settings(**fields).model_dump_json(exclude={"stream_url", "data_url"}))
        )
        keys = Keys("{spotd}:")
        port = RedisPort(address, keys)
        keep(port)
        async with spotd.SpotClient(address, key_prefix=keys.key_prefix) as client:
            keep(client)
            for call in (client.status, client.desired, port.leader, port.leases):
                with pytest.raises(SpotdError) as caught:
                    await call()
                keep(caught.value)
        await port.close()
    assert found_in(told, ALL) == []


# The relay


async def test_a_relay_tells_no_secret(setup: Setup) -> None:
    """Neither its own token, nor one that it was given, comes back or stands in its logs."""
    given = marked("givenToken", "/x+y&z=%40@'")
    await setup.redis.config_set("requirepass", "another")
    port = free_port()
    changed = {
        "SPOTD_REDIS_URL": f"redis://:{REDIS.quoted}@127.0.0.1:{setup.server.port}/0",
        "SPOTD_RELAY_TOKEN": TOKEN.text,
        "SPOTD_RELAY_PORT": str(port),
        "SPOTD_LOG_LEVEL": "debug",
    }
    relay = await _started(setup, "relay", changed)
    relay.http_port = port
    await setup.until(lambda: _answers(relay), "the relay to listen")
    told: list[tuple[str, str]] = []
    for secret in (given, TOKEN):
        told += await _asked(port, secret)
    assert await relay.stop() == 0
    told.append(("output", relay.output))

    assert {"401", "503"} <= {text for where, text in told if where == "status"}
    assert found_in(told, (*ALL, given)) == []
    assert "Traceback" not in relay.output


async def _answers(relay: Command) -> bool:
    return (await relay.get("/livez"))[0] == 200


async def _asked(port: int, secret: Marked) -> list[tuple[str, str]]:
    """Ask a relay with a token in every place that a token may stand in. Return all answers."""
    subscribe = "/api/positions/subscribe-spot-prices"
    bearer = {"Authorization": f"Bearer {secret.text}"}
    wrong: dict[str, Any] = {"symbols": "SPY", secret.text: secret.text}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        *(("GET", page, {"headers": bearer}) for page in ("/metrics", "/readyz", "/openapi.json")),
        ("GET", "/api/spot-prices", {"headers": bearer, "params": {"symbols": "SPY"}}),
        ("POST", subscribe, {"headers": bearer, "json": {"symbols": ["SPY"]}}),
        ("POST", subscribe, {"headers": bearer, "json": wrong}),
        ("POST", subscribe, {"headers": bearer, "data": b'{"' + secret.text.encode()}),
        ("GET", "/sse", {"params": {"token": secret.text}}),
        ("GET", "/ws", {"params": {"token": secret.text}}),
        ("GET", "/nothing", {"params": {"token": secret.text}}),
        ("DELETE", "/metrics", {"headers": bearer}),
        ("GET", "/api/spot-prices", {"headers": {"Authorization": f"Basic {secret.text}"}}),
    ]
    told = []
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        for method, path, options in requests:
            async with http.request(method, path, **options) as answer:
                told.append(("status", str(answer.status)))
                told.append((f"headers of {path}", str(dict(answer.headers))))
                told.append((f"body of {path}", await answer.text()))
        encoded = urlsafe_b64encode(secret.text.encode()).decode().rstrip("=")
        with suppress(aiohttp.WSServerHandshakeError):
            async with http.ws_connect("/ws", protocols=(f"bearer.{encoded}", "spotd.v1")) as ws:
                told.append(("protocol", str(ws.protocol)))
    return told
