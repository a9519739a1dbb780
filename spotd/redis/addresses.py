"""Addresses of Redis as text: which URLs are valid, what they name, and their secrets.

Shared by daemon and client; ``clients`` makes a client of one. Must not talk to anything, must not
read settings, and must not return a text for people that holds a password.

``redis://`` and ``rediss://`` (TLS) name one server, ``unix://`` a socket.
``redis+sentinel://[user:password@]host:port,host:port/service[/db]`` asks Sentinels for the
master, ``redis+cluster://[user:password@]host:port,…`` names nodes of a cluster, and ``rediss+…``
uses TLS. Query parameters are options of the connection (``ssl_ca_certs=…``), those that begin
with ``sentinel_`` are options of the connections to the Sentinels.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS

SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)

REDIS_PORT = 6379
_SENTINEL_PORT = 26379


class Hosts(NamedTuple):
    """A URL that names several hosts, taken apart."""

    nodes: list[tuple[str, int]]
    path: list[str]
    options: dict[str, Any]


def check_address(url: str) -> None:
    """Raise ValueError, with words that hold no part of ``url``, where it is no Redis address."""
    scheme, found, _ = url.partition("://")
    if not found or scheme not in SCHEMES:
        raise ValueError(f"must start with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    try:
        if "+" not in scheme:
            parts = urlsplit(url)
            _ = parts.port  # raises ValueError where it is not a number
            hosts = [parts.netloc or scheme == "unix"]
            if scheme != "unix":  # whose path is that of the socket
                _check_database(parts.path.removeprefix("/"))
        else:
            named = hosts_of(url)
            hosts = [host for host, _ in named.nodes]
            if scheme.endswith("+sentinel"):
                service_of(named)
            else:
                _check_database("/".join(named.path))
    except _UnnamedServiceError:
        raise ValueError("names no service: …://host:port/service") from None
    except _WrongDatabaseError:
        raise ValueError("names a database that is no number") from None
    except ValueError:  # its text would quote the URL
        raise ValueError("is not a valid URL") from None
    if not all(hosts):
        raise ValueError("names no host")


def secrets_in(url: str) -> list[str]:
    """Return every form in which a password of ``url`` may appear in a text. Raises nothing."""
    before, _, query = url.partition("?")
    rest = before.partition("://")[2]
    secrets = []
    # A password that is not quoted may hold a slash; the path of a socket may hold an @.
    for part in (rest.partition("/")[0], rest if not rest.startswith("/") else ""):
        written = part.rpartition("@")[0].partition(":")[2]
        secrets += [written, unquote(written)]
    for option, value in parse_qsl(query):
        if "password" in option:
            secrets += [value, quote(value), quote_plus(value)]
    return list(dict.fromkeys(filter(None, secrets)))


def without_secrets(url: str) -> str:
    """Return ``url`` without what may hold a password: its user part and its query."""
    return re.sub(r"^([^/]*://)[^/].*@", r"\1", url.partition("?")[0], flags=re.DOTALL)


class _UnnamedServiceError(ValueError):
    pass


class _WrongDatabaseError(ValueError):
    pass


def service_of(named: Hosts) -> tuple[str, int]:
    """Return Sentinel's service and the number of the database. Raises ValueError."""
    if not named.path:
        raise _UnnamedServiceError
    service, *database = named.path
    _check_database("/".join(database))
    return service, int(database[0]) if database else 0


def _check_database(text: str) -> None:
    """Raise ValueError where this is no number of a database. redis-py would take 0 instead."""
    if not re.fullmatch(r"[0-9]*/?", text):
        raise _WrongDatabaseError


def hosts_of(url: str) -> Hosts:
    """Return the parts of a URL that names several hosts. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    authority, tail = re.fullmatch(r"([^/?]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    credentials, _, hosts = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    split = urlsplit(f"//x{tail}")
    default_port = _SENTINEL_PORT if scheme.endswith("+sentinel") else REDIS_PORT
    options: dict[str, Any] = {
        name: URL_QUERY_ARGUMENT_PARSERS.get(name, str)(value)
        for name, value in parse_qsl(split.query)
    }
    if username:
        options["username"] = unquote(username)
    if password:
        options["password"] = unquote(password)
    if scheme.startswith("rediss"):
        options["ssl"] = True
    nodes = []
    for host in hosts.split(","):
        parts = urlsplit(f"//{host}")
        nodes.append((parts.hostname or "", parts.port or default_port))
    return Hosts(nodes, [part for part in split.path.split("/") if part], options)
