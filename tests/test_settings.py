"""Every setting: its names, its default, its sources, and what is said when it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from spotd.errors import SettingsError
from spotd.keys import Keys
from spotd.relay.settings import RelaySettings
from spotd.setting_sources import refuse_unknown
from spotd.settings import Feed, Settings, known_names, names_of

SECRET = "tell-nobody"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Empty the environment, and work in a directory without a `.env`."""
    import os

    for name in os.environ:
        if name.upper().startswith(("SPOTD_", "ALPACA_", "APCA_", "REDIS_")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the directory in which systemd puts files of secrets."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    return directory


def plain(value: object) -> object:
    """Return a setting's value, also where it is a secret."""
    return value.get_secret_value() if isinstance(value, SecretStr) else value


# The contract's table

DEFAULTS: dict[str, Any] = {
    "api_key": None,
    "secret_key": None,
    "feed": "iex",
    "stream_url": None,
    "data_url": "https://data.alpaca.markets",
    "redis_url": "redis://127.0.0.1:6379/0",
    "key_prefix": "spotd:",
    "channel_prefix": "spot:",
    "throttle_ms": 200,
    "trades": True,
    "snapshots": True,
    "max_symbols": None,
    "allow_wildcard": False,
    "subscribers_are_demand": False,
    "breaker_failures": 5,
    "breaker_recovery_s": 60.0,
    "leader_ttl_s": 5.0,
    "keep_stream_s": 20.0,
    "max_lag_s": 10.0,
    "http_host": "127.0.0.1",
    "http_port": 9810,
    "log_level": "info",
    "log_format": "auto",
}

NAMED = [
    ("api_key", "ALPACA_API_KEY", "key", "key"),
    ("api_key", "APCA_API_KEY_ID", "key", "key"),
    ("secret_key", "ALPACA_SECRET_KEY", "secret", "secret"),
    ("secret_key", "APCA_API_SECRET_KEY", "secret", "secret"),
    ("feed", "SPOTD_FEED", "SIP", "sip"),
    ("stream_url", "SPOTD_STREAM_URL", "ws://127.0.0.1:9/v2/iex", "ws://127.0.0.1:9/v2/iex"),
    ("data_url", "SPOTD_DATA_URL", "http://127.0.0.1:9/", "http://127.0.0.1:9"),
    ("redis_url", "SPOTD_REDIS_URL", "rediss://h:1/2", "rediss://h:1/2"),
    ("redis_url", "REDIS_URL", "unix:///run/redis.sock", "unix:///run/redis.sock"),
    ("key_prefix", "SPOTD_KEY_PREFIX", "{spotd}:", "{spotd}:"),
    ("channel_prefix", "SPOTD_CHANNEL_PREFIX", "sip:", "sip:"),
    ("throttle_ms", "SPOTD_THROTTLE_MS", "0", 0),
    ("throttle_ms", "ALPACA_PRICE_THROTTLE_MS", "500", 500),
    ("trades", "SPOTD_TRADES", "false", False),
    ("snapshots", "SPOTD_SNAPSHOTS", "0", False),
    ("max_symbols", "SPOTD_MAX_SYMBOLS", "30", 30),
    ("allow_wildcard", "SPOTD_ALLOW_WILDCARD", "true", True),
    ("subscribers_are_demand", "SPOTD_SUBSCRIBERS_ARE_DEMAND", "1", True),
    ("breaker_failures", "SPOTD_BREAKER_FAILURES", "3", 3),
    ("breaker_recovery_s", "SPOTD_BREAKER_RECOVERY_S", "1.5", 1.5),
    ("leader_ttl_s", "SPOTD_LEADER_TTL_S", "2", 2.0),
    ("keep_stream_s", "SPOTD_KEEP_STREAM_S", "0", 0.0),
    ("max_lag_s", "SPOTD_MAX_LAG_S", "0", 0.0),
    ("http_host", "SPOTD_HTTP_HOST", "0.0.0.0", "0.0.0.0"),  # noqa: S104 - read, not bound
    ("http_port", "SPOTD_HTTP_PORT", "0", 0),
    ("log_level", "SPOTD_LOG_LEVEL", "DEBUG", "debug"),
    ("log_format", "SPOTD_LOG_FORMAT", "json", "json"),
]


def test_the_defaults_are_the_contracts() -> None:
    """With nothing set, every setting has the value of the table."""
    loaded = Settings.load()
    assert {name: plain(getattr(loaded, name)) for name in Settings.model_fields} == DEFAULTS


@pytest.mark.parametrize(("field", "variable", "text", "value"), NAMED)
def test_every_variable_is_read(
    monkeypatch: pytest.MonkeyPatch, field: str, variable: str, text: str, value: object
) -> None:
    """A variable is read under each of its names, and changes nothing else."""
    monkeypatch.setenv(variable, text)
    loaded = Settings.load()
    assert {name: plain(getattr(loaded, name)) for name in Settings.model_fields} == {
        **DEFAULTS,
        field: value,
    }


@pytest.mark.parametrize(
    ("feed", "max_lag_s", "limit_s"),
    [
        ("iex", 10, 10),
        ("sip", 2.5, 2.5),
        ("overnight", 10, 10),
        ("delayed_sip", 10, None),
        ("test", 10, None),
        ("sip", 0, None),
    ],
)
def test_a_lag_is_not_held_against_a_feed_that_is_late_by_design(
    feed: Feed, max_lag_s: float, limit_s: float | None
) -> None:
    """0 turns the limit off, and so do the feeds whose times say nothing about the stream."""
    assert Settings.load(feed=feed, max_lag_s=max_lag_s).lag_limit_s == limit_s


def test_no_variable_has_a_name_that_the_table_lacks() -> None:
    """The names of the settings are those of the table, the preferred one first."""
    assert {(field, name) for field in Settings.model_fields for name in names_of(field)} == {
        (field, variable) for field, variable, _, _ in NAMED
    }
    assert names_of("throttle_ms")[0] == "SPOTD_THROTTLE_MS"
    assert names_of("redis_url")[0] == "SPOTD_REDIS_URL"


@pytest.mark.parametrize(
    "name", ["FEED", "LOG_LEVEL", "HTTP_PORT", "API_KEY", "SECRET_KEY", "TRADES", "DATA_URL"]
)
def test_a_variable_of_another_program_is_not_read(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Only the names of the table count, not what the fields are called inside."""
    monkeypatch.setenv(name, "TRACE")
    loaded = Settings.load()
    assert {name: plain(getattr(loaded, name)) for name in Settings.model_fields} == DEFAULTS


def test_an_empty_value_counts_as_not_set(
    monkeypatch: pytest.MonkeyPatch, credentials: Path
) -> None:
    """An empty value counts as not set, in whichever source: compose files are full of them."""
    monkeypatch.setenv("SPOTD_MAX_SYMBOLS", "")
    monkeypatch.setenv("ALPACA_API_KEY", "")
    monkeypatch.setenv("APCA_API_KEY_ID", "key")
    Path(".env").write_text("SPOTD_HTTP_PORT=\nSPOTD_LOG_LEVEL=''\n")
    (credentials / "SPOTD_THROTTLE_MS").write_text("\n")
    (credentials / "ALPACA_SECRET_KEY").write_text("")
    loaded = Settings.load()
    assert {name: plain(getattr(loaded, name)) for name in Settings.model_fields} == {
        **DEFAULTS,
        "api_key": "key",
    }


# Sources


def test_a_dotenv_file_is_read() -> None:
    """A `.env` in the working directory is read, with comments, quotes and `export`."""
    Path(".env").write_text(
        "# keys\nexport ALPACA_API_KEY='key'\nSPOTD_FEED=\"sip\"\nOTHER=1\nSPOTD_THROTTLE_MS=50\n"
    )
    loaded = Settings.load()
    assert plain(loaded.api_key) == "key"
    assert loaded.feed == "sip"
    assert loaded.throttle_s == 0.05


@pytest.mark.parametrize("name", ["ALPACA_API_KEY", "alpaca_api_key", "apca_api_key_id"])
def test_a_secret_may_come_from_a_file(credentials: Path, name: str) -> None:
    """A secret's file is named like the variable, in any case, and loses an editor's newline."""
    (credentials / name).write_text(f"{SECRET}\n")
    (credentials / "unrelated").write_text("?")
    assert plain(Settings.load().api_key) == SECRET


def test_any_setting_may_come_from_a_file(credentials: Path) -> None:
    """Any setting may come from a file, not only a secret one."""
    (credentials / "spotd_redis_url").write_text("redis://:secret@h:1/0\n")
    (credentials / "SPOTD_HTTP_PORT").write_text("1\n")
    loaded = Settings.load()
    assert plain(loaded.redis_url) == "redis://:secret@h:1/0"
    assert loaded.http_port == 1


def test_a_directory_of_credentials_that_is_not_there_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """systemd sets the variable only where there is one; others may leave it behind."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/nowhere/at/all")
    assert Settings.load().api_key is None


def test_the_environment_goes_before_dotenv_before_secrets(
    monkeypatch: pytest.MonkeyPatch, credentials: Path
) -> None:
    """The environment goes before `.env`, and `.env` before files, under whichever name."""
    (credentials / "ALPACA_API_KEY").write_text("from the file")
    assert plain(Settings.load().api_key) == "from the file"
    Path(".env").write_text("ALPACA_API_KEY=dotenv\n")
    assert plain(Settings.load().api_key) == "dotenv"
    monkeypatch.setenv("APCA_API_KEY_ID", "environment")
    assert plain(Settings.load().api_key) == "environment"


# Mistakes


@pytest.mark.parametrize(
    ("one", "other"),
    [("ALPACA_API_KEY", "APCA_API_KEY_ID"), ("ALPACA_SECRET_KEY", "APCA_API_SECRET_KEY")],
)
def test_two_names_of_a_key_have_one_value(
    monkeypatch: pytest.MonkeyPatch, credentials: Path, one: str, other: str
) -> None:
    """With different values in one source nobody knows which one counts; equal ones are fine."""
    message = f"^{one} and {other} have different values: set one of them$"
    for name, value in ((one, SECRET), (other, f" {SECRET} ")):
        monkeypatch.setenv(name, value)
    Settings.load()
    monkeypatch.setenv(other, "another")
    with pytest.raises(SettingsError, match=message):
        Settings.load()
    monkeypatch.delenv(other)
    Path(".env").write_text(f"{one}=a\n{other.lower()}=b\n")
    with pytest.raises(SettingsError, match=message):
        Settings.load()
    Path(".env").unlink()
    (credentials / one).write_text("a")
    (credentials / other).write_text("b\n")
    with pytest.raises(SettingsError, match=message):
        Settings.load()
    (credentials / other).write_text("a\n")
    Settings.load()


@pytest.mark.parametrize("glob", ["x*", "s?:", "[ab]", "b]", "\\:"])
@pytest.mark.parametrize("name", ["SPOTD_KEY_PREFIX", "SPOTD_CHANNEL_PREFIX"])
def test_a_prefix_holds_no_glob(monkeypatch: pytest.MonkeyPatch, name: str, glob: str) -> None:
    """PSUBSCRIBE and an ACL would match other names than the daemon's."""
    monkeypatch.setenv(name, glob)
    with pytest.raises(SettingsError, match=f"^{name}: must hold none of "):
        Settings.load()


def test_a_mark_at_the_beginning_of_a_file_is_no_part_of_a_value(credentials: Path) -> None:
    """Editors of Windows put one in front, which Alpaca would take for a part of a key."""
    Path(".env").write_bytes(b"\xef\xbb\xbfSPOTD_FEED=sip\n")
    (credentials / "ALPACA_API_KEY").write_bytes(b"\xef\xbb\xbfkey\r\n")
    (credentials / "ALPACA_SECRET_KEY").write_bytes(b"\xef\xbb\xbf\r\n")
    loaded = Settings.load()
    assert (loaded.feed, plain(loaded.api_key), loaded.secret_key) == ("sip", "key", None)


def test_a_file_that_is_not_utf_8_is_told(credentials: Path) -> None:
    """It is told by file and line, without its text."""
    Path(".env").write_bytes(b"SPOTD_FEED=sip\nALPACA_API_KEY=hunter\xff2\n")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert str(caught.value) == ".env, line 2: not UTF-8"
    assert caught.value.__suppress_context__
    Path(".env").unlink()
    (credentials / "ALPACA_API_KEY").write_bytes(b"hunter\xff2")
    with pytest.raises(SettingsError, match=r"ALPACA_API_KEY, line 1: not UTF-8$"):
        Settings.load()


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("SPOTD_THROTLE_MS", "SPOTD_THROTTLE_MS"),
        ("spotd_thottle", "SPOTD_THROTTLE_MS"),
        ("SPOTD_REDIS", "SPOTD_REDIS_URL"),
        ("SPOTD_MAX_SYMBOL", "SPOTD_MAX_SYMBOLS"),
        ("SPOTD_RELAY_PROT", "SPOTD_RELAY_PORT"),
        ("SPOTD_LOGLEVEL", "SPOTD_LOG_LEVEL"),
    ],
)
def test_an_unknown_name_is_an_error_that_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, wrong: str, nearest: str
) -> None:
    """An unknown name is an error, in the environment and in `.env`, that hides its value."""
    message = f"{wrong} is not a setting of spotd; did you mean {nearest}?"
    monkeypatch.setenv(wrong, SECRET)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert str(caught.value) == message
    monkeypatch.delenv(wrong)
    Path(".env").write_text(f"{wrong}={SECRET}\n")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert str(caught.value) == message


def test_however_far_off_a_name_is_there_is_a_nearest() -> None:
    """Every unknown name has a nearest known one, and all unknown names are told at once."""
    with pytest.raises(SettingsError) as caught:
        refuse_unknown(["SPOTD_ZZZ", "SPOTD_", "PATH", "SPOTD_FEED"], known_names())
    assert str(caught.value).count("did you mean SPOTD_") == 2


def of_a_service(name: str, port: int) -> dict[str, str]:
    """Return what Kubernetes injects for a Service with one named port."""
    prefix, address = name.upper().replace("-", "_"), "10.96.0.7"
    return {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(port),
        f"{prefix}_SERVICE_PORT_HTTP": str(port),
        f"{prefix}_PORT": f"tcp://{address}:{port}",
        f"{prefix}_PORT_{port}_TCP": f"tcp://{address}:{port}",
        f"{prefix}_PORT_{port}_TCP_PROTO": "tcp",
        f"{prefix}_PORT_{port}_TCP_PORT": str(port),
        f"{prefix}_PORT_{port}_TCP_ADDR": address,
    }


@pytest.mark.parametrize("settings", [Settings, RelaySettings])
@pytest.mark.parametrize("name", ["spotd", "spotd-relay", "spotd-http", "spotd-redis-master"])
def test_what_kubernetes_injects_for_a_service_is_ignored(
    monkeypatch: pytest.MonkeyPatch, settings: type[Settings], name: str
) -> None:
    """A Service named like spotd, or like a setting of it, changes nothing."""
    before = settings.load()
    for variable, value in of_a_service(name, 9811).items():
        monkeypatch.setenv(variable, value)
    assert settings.load() == before


def test_a_port_in_a_file_counts_beside_what_kubernetes_injects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The environment goes before the file, and what is ignored in it hides nothing."""
    monkeypatch.setenv("SPOTD_RELAY_PORT", "tcp://10.96.0.7:9811")
    Path(".env").write_text("SPOTD_RELAY_PORT=9000\n")
    assert RelaySettings.load().relay_port == 9000
    monkeypatch.setenv("SPOTD_RELAY_PORT", "9001")
    assert RelaySettings.load().relay_port == 9001


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SPOTD_PORT", "9810"),
        ("SPOTD_RELAYS_PORT", "9811"),
        ("SPOTD_SERVICE", "10.96.0.7"),
        ("SPOTD_PORT_TCP", "tcp://10.96.0.7:9810"),
    ],
)
def test_a_name_that_kubernetes_does_not_inject_is_still_an_error(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Only the names of a Service are ignored, and ``…_PORT`` only with an address."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"{variable} is not a setting of spotd"):
        Settings.load()


def test_an_unknown_name_is_told_in_secret_files_too(credentials: Path) -> None:
    """A mistyped file is as silent as a mistyped variable."""
    (credentials / "spotd_throtle_ms").write_text(SECRET)
    with pytest.raises(SettingsError, match="did you mean SPOTD_THROTTLE_MS") as caught:
        Settings.load()
    assert SECRET not in str(caught.value)


def test_a_line_that_is_no_assignment_is_told() -> None:
    """A line that is no assignment is told by file and line, without its text."""
    Path(".env").write_text(f"SPOTD_TRADES=false\nSPOTD_FEED {SECRET}\n")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert str(caught.value) == ".env, line 2: not NAME=value"


def test_an_env_file_that_cannot_be_read_is_told() -> None:
    """A `.env` that cannot be read, such as a directory of that name, is an error."""
    Path(".env").mkdir()
    with pytest.raises(SettingsError, match=r"cannot read the settings in \.env"):
        Settings.load()


def test_no_address_is_shown_by_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    """No address is shown by repr, since it may hold a proxy's password."""
    monkeypatch.setenv("SPOTD_STREAM_URL", f"ws://user:{SECRET}@h/v2/iex")
    monkeypatch.setenv("SPOTD_DATA_URL", f"http://user:{SECRET}@h")
    assert SECRET not in repr(Settings.load())


def test_known_names_are_not_refused() -> None:
    """Known names are accepted, and so are the relay's, which may stand in the same file."""
    refuse_unknown([*known_names(), "spotd_feed", "SPOTD_RELAY_TOKEN"], known_names())


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("SPOTD_FEED", SECRET),
        ("SPOTD_STREAM_URL", f"http://{SECRET}/v2/iex"),
        ("SPOTD_STREAM_URL", "ws:///v2/iex"),
        ("SPOTD_STREAM_URL", "127.0.0.1:9999"),
        ("SPOTD_STREAM_URL", f"ws://{SECRET}..example/v2/iex"),
        ("SPOTD_STREAM_URL", "ws://:9999/v2/iex"),
        ("SPOTD_DATA_URL", f"ftp://{SECRET}"),
        ("SPOTD_DATA_URL", f"http://{SECRET}:99999"),
        ("SPOTD_DATA_URL", f"http://{SECRET}..example"),
        ("SPOTD_REDIS_URL", f"http://:{SECRET}@h"),
        ("SPOTD_REDIS_URL", f"redis://:{SECRET}@h:port"),
        ("SPOTD_REDIS_URL", f"redis://:{SECRET}[@h"),
        ("SPOTD_REDIS_URL", f"redis://:{SECRET}@a:1,b:2"),
        ("SPOTD_REDIS_URL", SECRET),
        ("SPOTD_REDIS_URL", "redis://"),
        ("SPOTD_KEY_PREFIX", f"{SECRET} {SECRET}"),
        ("SPOTD_CHANNEL_PREFIX", "x" * 65),
        ("SPOTD_THROTTLE_MS", SECRET),
        ("SPOTD_THROTTLE_MS", "-1"),
        ("SPOTD_THROTTLE_MS", "60001"),
        ("SPOTD_TRADES", SECRET),
        ("SPOTD_MAX_SYMBOLS", "0"),
        ("SPOTD_BREAKER_FAILURES", "0"),
        ("SPOTD_BREAKER_RECOVERY_S", "0"),
        ("SPOTD_BREAKER_RECOVERY_S", "nan"),
        ("SPOTD_BREAKER_RECOVERY_S", "inf"),
        ("SPOTD_LEADER_TTL_S", "0.5"),
        ("SPOTD_LEADER_TTL_S", "301"),
        ("SPOTD_KEEP_STREAM_S", "-1"),
        ("SPOTD_KEEP_STREAM_S", "inf"),
        ("SPOTD_MAX_LAG_S", "-1"),
        ("SPOTD_MAX_LAG_S", "inf"),
        ("SPOTD_HTTP_HOST", f"{SECRET}..example"),
        ("SPOTD_HTTP_HOST", "x" * 64),
        ("SPOTD_HTTP_PORT", "65536"),
        ("SPOTD_LOG_LEVEL", SECRET),
        ("SPOTD_LOG_FORMAT", SECRET),
    ],
)
def test_a_wrong_value_is_named_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    """A wrong value is one sentence with the variable's name, and without the value."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert str(caught.value).startswith(f"{variable}: ")
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_all_that_is_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All wrong settings are told at once, so that one start shows every mistake."""
    monkeypatch.setenv("SPOTD_FEED", "?")
    monkeypatch.setenv("SPOTD_HTTP_PORT", "?")
    with pytest.raises(SettingsError, match=r"SPOTD_FEED: .*; SPOTD_HTTP_PORT: "):
        Settings.load()


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://user:pw@h:6379/0?socket_timeout=1",
        " rediss://h \n",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://a:26379,b:26379/mymaster/0",
        "rediss+sentinel://a,b/mymaster",
        "redis+cluster://a:1,b:2,c:3",
        "rediss+cluster://[::1]:1",
    ],
)
def test_every_kind_of_redis_address_is_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The address may be that of a server, a socket, Sentinels or a cluster."""
    monkeypatch.setenv("SPOTD_REDIS_URL", url)
    assert plain(Settings.load().redis_url) == url.strip()


@pytest.mark.parametrize("variable", ["SPOTD_STREAM_URL", "SPOTD_HTTP_HOST", "SPOTD_KEY_PREFIX"])
def test_spaces_around_a_value_are_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """They cannot be seen in a file, and would make an address that looks right fail."""
    monkeypatch.setenv(variable, " ws://h/v2/iex ")
    (field,) = [field for field in Settings.model_fields if variable in names_of(field)]
    assert getattr(Settings.load(), field) == "ws://h/v2/iex"


# What is made of them


def test_no_secret_is_in_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repr, str and dump of settings hide keys and the Redis address."""
    monkeypatch.setenv("ALPACA_API_KEY", f"{SECRET}-1")
    monkeypatch.setenv("ALPACA_SECRET_KEY", f"{SECRET}-2")
    monkeypatch.setenv("SPOTD_REDIS_URL", f"redis://:{SECRET}@h")
    loaded = Settings.load()
    for text in (repr(loaded), str(loaded), str(loaded.model_dump()), loaded.model_dump_json()):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("feed", "endpoint"),
    [
        ("iex", "wss://stream.data.alpaca.markets/v2/iex"),
        ("sip", "wss://stream.data.alpaca.markets/v2/sip"),
        ("delayed_sip", "wss://stream.data.alpaca.markets/v2/delayed_sip"),
        ("boats", "wss://stream.data.alpaca.markets/v1beta1/boats"),
        ("overnight", "wss://stream.data.alpaca.markets/v1beta1/overnight"),
        ("test", "wss://stream.data.alpaca.markets/v2/test"),
    ],
)
def test_every_feed_has_its_address(
    monkeypatch: pytest.MonkeyPatch, feed: str, endpoint: str
) -> None:
    """Every feed has Alpaca's address, unless another one is set."""
    monkeypatch.setenv("SPOTD_FEED", feed)
    assert Settings.load().stream_endpoint == endpoint
    monkeypatch.setenv("SPOTD_STREAM_URL", "ws://127.0.0.1:9/v2/iex")
    assert Settings.load().stream_endpoint == "ws://127.0.0.1:9/v2/iex"


def test_the_keys_stand_under_the_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two daemons with other prefixes share one Redis."""
    assert Settings.load().keys == Keys("spotd:", "spot:")
    monkeypatch.setenv("SPOTD_KEY_PREFIX", "sip-d:")
    monkeypatch.setenv("SPOTD_CHANNEL_PREFIX", "sip:")
    assert Settings.load().keys == Keys("sip-d:", "sip:")


@pytest.mark.parametrize(
    ("key", "secret", "missing"),
    [
        ("", "s", "ALPACA_API_KEY is not set (also accepted: APCA_API_KEY_ID)"),
        (" ", "s", "ALPACA_API_KEY is not set (also accepted: APCA_API_KEY_ID)"),
        ("k", "", "ALPACA_SECRET_KEY is not set (also accepted: APCA_API_SECRET_KEY)"),
        ("k", "\n", "ALPACA_SECRET_KEY is not set (also accepted: APCA_API_SECRET_KEY)"),
    ],
)
def test_missing_keys_are_named_when_they_are_needed(
    monkeypatch: pytest.MonkeyPatch, key: str, secret: str, missing: str
) -> None:
    """Only `run` needs them, so loading does not fail."""
    monkeypatch.setenv("ALPACA_API_KEY", key)
    monkeypatch.setenv("ALPACA_SECRET_KEY", secret)
    loaded = Settings.load()
    with pytest.raises(SettingsError) as caught:
        loaded.credentials()
    assert str(caught.value) == missing
    assert caught.value.exit_code == 2


def test_keys_are_given_without_the_spaces_around_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key with a newline would be refused by Alpaca as wrong."""
    monkeypatch.setenv("ALPACA_API_KEY", " key\n")
    monkeypatch.setenv("ALPACA_SECRET_KEY", "secret\r\n")
    assert [plain(value) for value in Settings.load().credentials()] == ["key", "secret"]


def test_settings_can_be_given_by_field_name_and_never_changed() -> None:
    """Programs that embed the daemon give settings by field name, and cannot change them."""
    made = Settings.load(feed="sip", throttle_ms=0)
    assert made.feed == "sip"
    assert made.throttle_s == 0.0
    with pytest.raises(ValueError, match="frozen"):
        made.feed = "iex"
