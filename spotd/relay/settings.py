"""Every setting of the web tier: ``SPOTD_RELAY_*``, and what it shares with the daemon.

One file of settings may serve both, so it is read, and checked, as a whole by both.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from spotd.relay.access import Origins, Tokens
from spotd.relay.limits import Limits
from spotd.settings import Host, Settings

_MOST_TOKENS = 2


class RelaySettings(Settings):
    """The settings of one relay; field descriptions are a table of the documents."""

    relay_host: Host = Field("127.0.0.1", description="where the web tier listens: address")
    relay_port: int = Field(
        9811, ge=0, le=65_535, description="where the web tier listens: port; 0: any free one"
    )
    relay_token: SecretStr | None = Field(
        None,
        repr=False,
        description="one token, or two separated by a comma, of which every request needs one",
    )
    relay_demand: bool = Field(
        True, description="`false`: shows what is streamed anyway, and demands nothing"
    )
    relay_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="origins whose pages may connect, separated by commas; `*`: all; "
        "none: only the relay's own",
    )
    relay_max_symbols: int = Field(200, ge=1, description="symbols of one client")
    relay_max_total_symbols: int | None = Field(
        None, ge=1, description="symbols of all clients together"
    )
    relay_max_clients: int = Field(
        10_000, ge=1, description="websockets and event streams at a time; beyond it: 503"
    )
    relay_max_connects_per_s: int = Field(
        1_000, ge=1, description="new ones per second; beyond it: 503"
    )

    @field_validator("relay_token")
    @classmethod
    def _usable_tokens(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        tokens = _parts(value.get_secret_value())
        if not 1 <= len(tokens) <= _MOST_TOKENS:
            raise ValueError("must be one token, or two separated by a comma")
        Tokens(tokens)  # says what is wrong with them
        return SecretStr(",".join(tokens))

    @field_validator("relay_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _parts(value) if isinstance(value, str) else value

    @field_validator("relay_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        Origins(value)  # says what is wrong with them
        return value

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens of which a request needs one. Empty: no request needs a token."""
        return () if self.relay_token is None else _parts(self.relay_token.get_secret_value())

    @property
    def limits(self) -> Limits:
        """What the relay grants."""
        return Limits(
            symbols=self.relay_max_symbols,
            total_symbols=self.relay_max_total_symbols,
            clients=self.relay_max_clients,
            connects_per_s=self.relay_max_connects_per_s,
        )

    @property
    def is_exposed(self) -> bool:
        """Whether other machines may reach the address that the relay listens on."""
        try:
            return not ip_address(self.relay_host).is_loopback
        except ValueError:  # a name
            return self.relay_host != "localhost"


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
