"""Every setting of the daemon: its name, its default, its limits, and what it means.

``setting_sources`` says where they are read. An empty value counts as not set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from spotd.errors import SettingsError
from spotd.keys import Keys
from spotd.kubernetes import is_injected
from spotd.redis.addresses import check_address, secrets_in
from spotd.setting_sources import ENCODING, MARK, PREFIX, check_sources, secret_directories

Feed = Literal["iex", "sip", "delayed_sip", "boats", "overnight", "test"]

_STREAM_HOST = "wss://stream.data.alpaca.markets"
_STREAM_PATHS: dict[Feed, str] = {
    "iex": "/v2/iex",
    "sip": "/v2/sip",
    "delayed_sip": "/v2/delayed_sip",
    "boats": "/v1beta1/boats",
    "overnight": "/v1beta1/overnight",
    "test": "/v2/test",
}
_DATA_URL = "https://data.alpaca.markets"


def _without_glob(prefix: str) -> str:
    # PSUBSCRIBE and the rules of an ACL would match other names than the daemon's.
    if re.search(r"[*?\[\]\\]", prefix):
        raise ValueError("must hold none of * ? [ ] \\, which Redis' patterns give a meaning")
    return prefix


def _encodable(host: str) -> str:
    # Where such a name is looked up, UnicodeError is raised, which is no OSError.
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError("holds what is no host name") from None
    return host


# The web tier reads these itself; they may stand in a file that both read.
RELAY_NAMES = (
    "SPOTD_RELAY_HOST",
    "SPOTD_RELAY_PORT",
    "SPOTD_RELAY_TOKEN",
    "SPOTD_RELAY_DEMAND",
    "SPOTD_RELAY_ORIGINS",
    "SPOTD_RELAY_MAX_SYMBOLS",
    "SPOTD_RELAY_MAX_TOTAL_SYMBOLS",
    "SPOTD_RELAY_MAX_CLIENTS",
    "SPOTD_RELAY_MAX_CONNECTS_PER_S",
)

Prefix = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$"),
    AfterValidator(_without_glob),
]
Host = Annotated[str, AfterValidator(_encodable)]


class Settings(BaseSettings):
    """The settings of one daemon; field descriptions are the README's configuration table."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding=ENCODING,
        env_ignore_empty=True,
        # The variable of a field is its name behind this prefix, unless the field lists its own.
        # Without a prefix, pydantic-settings would read variables that are named like fields, such
        # as `LOG_LEVEL` and `FEED`, which belong to other programs.
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
        str_strip_whitespace=True,
    )

    api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("ALPACA_API_KEY", "APCA_API_KEY_ID"),
        description="Alpaca API key; required by `run`",
    )
    secret_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("ALPACA_SECRET_KEY", "APCA_API_SECRET_KEY"),
        description="Alpaca secret key; required by `run`",
    )
    feed: Feed = Field(
        "iex",
        description="`iex`, `sip`, `delayed_sip`, `boats`, `overnight` or `test`",
    )
    stream_url: str | None = Field(
        None,
        repr=False,  # may hold a password of a proxy
        description="another websocket address (simulator, proxy, sandbox), complete with path",
    )
    data_url: str = Field(
        _DATA_URL,
        repr=False,
        description="another REST address, without path",
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        validation_alias=AliasChoices("SPOTD_REDIS_URL", "REDIS_URL"),
        description="`redis://`, `rediss://`, `unix://`, `redis+sentinel://`, `redis+cluster://`",
    )
    key_prefix: Prefix = Field("spotd:", description="prefix of every key")
    channel_prefix: Prefix = Field("spot:", description="prefix of every channel")
    throttle_ms: int = Field(
        200,
        ge=0,
        le=60_000,
        validation_alias=AliasChoices("SPOTD_THROTTLE_MS", "ALPACA_PRICE_THROTTLE_MS"),
        description="at most one update per symbol in any window of this length; 0: no throttle",
    )
    trades: bool = Field(True, description="subscribe to trades, for `last_price`")
    snapshots: bool = Field(
        True,
        description="fetch a new symbol's latest quote and trade over REST",
    )
    max_symbols: int | None = Field(
        None,
        ge=1,
        description="never ask for more symbols; the rest is refused with `symbol_limit`",
    )
    allow_wildcard: bool = Field(
        False,
        description="`*` in the demand means the whole market; refused with `SPOTD_MAX_SYMBOLS`",
    )
    subscribers_are_demand: bool = Field(
        False,
        description="a plain SUBSCRIBE is enough to have a symbol streamed",
    )
    breaker_failures: int = Field(
        5,
        ge=1,
        description="failures in a row that open the circuit breaker around the stream",
    )
    breaker_recovery_s: float = Field(
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="how long the breaker stays open before one try, in seconds",
    )
    leader_ttl_s: float = Field(
        5.0,
        ge=1,
        le=300,
        description="how long a dead leader blocks a standby, in seconds",
    )
    keep_stream_s: float = Field(
        20.0,
        ge=0,
        le=3_600,
        description="how long the stream is kept while Redis does not answer, beyond "
        "`SPOTD_LEADER_TTL_S`, in seconds",
    )
    max_lag_s: float = Field(
        10.0,
        ge=0,
        allow_inf_nan=False,
        description="prices that come later than this after their exchange time, for 15 s, are "
        "stale, and the connection is remade; 0: never; off for `delayed_sip` and `test`",
    )
    http_host: Host = Field("127.0.0.1", description="health and metrics: address")
    http_port: int = Field(
        9810,
        ge=0,
        le=65_535,
        description="health and metrics: port; 0 turns them off",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="`debug` … `error`"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="`json`, `console`, or by whether stderr is a terminal",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings passes it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, without what Kubernetes injects into the environment."""
        if isinstance(env_settings, EnvSettingsSource):
            # A Service named spotd-relay injects SPOTD_RELAY_PORT=tcp://…, which must not hide a
            # port that a file sets.
            env_settings.env_vars = {
                name: value
                for name, value in env_settings.env_vars.items()
                if not is_injected(name, value)
            }
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @model_validator(mode="before")
    @classmethod
    def _without_mark_and_empty(cls, values: Mapping[str, object]) -> dict[str, object]:
        # pydantic-settings does this for variables and `.env`, but not for files of secrets.
        given = {
            name: value.removeprefix(MARK) if isinstance(value, str) else value
            for name, value in values.items()
        }
        return {name: value for name, value in given.items() if value != ""}

    @field_validator("log_level", "log_format", "feed", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("api_key", "secret_key", mode="after")
    @classmethod
    def _strip(cls, value: SecretStr | None) -> SecretStr | None:
        # A file with a key usually ends in a newline. Alpaca would refuse a key with a newline.
        return None if value is None else SecretStr(value.get_secret_value().strip())

    @field_validator("stream_url")
    @classmethod
    def _websocket_url(cls, value: str | None) -> str | None:
        if value is not None:
            _require_url(value, ("ws", "wss"))
        return value

    @field_validator("data_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        _require_url(value, ("http", "https"))
        return value.rstrip("/")

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value().strip()
        check_address(url)
        return SecretStr(url)

    @property
    def keys(self) -> Keys:
        """The Redis names under this daemon's prefixes."""
        return Keys(self.key_prefix, self.channel_prefix)

    @property
    def stream_endpoint(self) -> str:
        """The complete websocket address of the feed."""
        return self.stream_url or _STREAM_HOST + _STREAM_PATHS[self.feed]

    @property
    def throttle_s(self) -> float:
        """The throttle window in seconds."""
        return self.throttle_ms / 1000

    @property
    def lag_limit_s(self) -> float | None:
        """The largest lag that is not held against the stream, in seconds; None: any.

        Prices of ``delayed_sip`` are late by design, and those of ``test`` are made up.
        """
        if self.max_lag_s == 0 or self.feed in ("delayed_sip", "test"):
            return None
        return self.max_lag_s

    def credentials(self) -> tuple[SecretStr, SecretStr]:
        """Return key and secret. Raises SettingsError that names all that is missing."""
        key, secret = self.api_key, self.secret_key
        if key and secret:  # neither None nor empty
            return key, secret
        missing = []
        if not key:
            missing.append("ALPACA_API_KEY is not set (also accepted: APCA_API_KEY_ID)")
        if not secret:
            missing.append("ALPACA_SECRET_KEY is not set (also accepted: APCA_API_SECRET_KEY)")
        raise SettingsError("; ".join(missing))

    def secrets(self) -> list[str]:
        """Return the texts that must never be written anywhere."""
        keys = [key.get_secret_value() for key in (self.api_key, self.secret_key) if key]
        urls = (self.redis_url.get_secret_value(), self.stream_url or "", self.data_url)
        return keys + [secret for url in urls for secret in secrets_in(url)]

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read all sources; ``overrides``, by field name, come before them.

        Raises SettingsError, with one clause for each thing that is wrong.
        """
        try:
            check_sources(known_names())
            return cls(_secrets_dir=secret_directories(), **overrides)  # type: ignore[call-arg]
        except ValidationError as error:
            raise SettingsError("; ".join(_explain(error, cls))) from None
        except OSError as error:
            raise SettingsError(
                f"cannot read the settings in {error.filename}: {error.strerror}"
            ) from error


def names_of(field_name: str, settings: type[BaseSettings] = Settings) -> tuple[str, ...]:
    """Return the variable names of one setting, the preferred one first."""
    aliases = settings.model_fields[field_name].validation_alias
    if isinstance(aliases, AliasChoices):
        return tuple(str(choice) for choice in aliases.choices)
    return (PREFIX + field_name.upper(),)


def known_names() -> tuple[str, ...]:
    """Return every variable that spotd reads."""
    own = (name for field in Settings.model_fields for name in names_of(field))
    return (*own, *RELAY_NAMES)


def _require_url(value: str, schemes: tuple[str, ...]) -> None:
    """Raise ValueError, without the value (it may hold a password), where it is not such a URL."""
    try:
        parts = urlsplit(value)
        _ = parts.port  # raises ValueError where it is not a number
    except ValueError:
        raise ValueError("is not a valid URL") from None
    if parts.scheme not in schemes:
        raise ValueError(f"must start with one of {', '.join(f'{s}://' for s in schemes)}")
    if not parts.hostname:
        raise ValueError("names no host")
    _encodable(parts.hostname)


def _explain(error: ValidationError, settings: type[BaseSettings]) -> Iterable[str]:
    """Yield a clause per wrong setting: the variable's name and what is wrong, never its value."""
    for item in error.errors(include_input=False, include_context=False, include_url=False):
        where = str(item["loc"][0]) if item["loc"] else "settings"
        if where in settings.model_fields:
            where = names_of(where, settings)[0]
        yield f"{where}: {item['msg'].removeprefix('Value error, ')}"
