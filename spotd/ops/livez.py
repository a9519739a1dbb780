"""``python -m spotd.ops.livez``: asks ``/livez`` of the spotd in this container. The health check.

Exit code 0: alive, or nothing to ask. 1: not alive. Process 1 tells which command runs here, and
the environment tells where it listens. Must load no package but the standard library, since it
runs every few seconds. As a consequence, it does not read settings from files.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from spotd.kubernetes import is_injected

LIMIT_S = 2.0  # below the limit of the health check, so that this process itself says why

# Nothing listens here: these are what a daemon listens on, and where it is then reached.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nosec B104


class Listens(NamedTuple):
    """Where a command listens: the names of its settings, and their defaults."""

    host_name: str
    port_name: str
    port: int
    host: str = "127.0.0.1"


LISTENS = {
    "run": Listens("SPOTD_HTTP_HOST", "SPOTD_HTTP_PORT", 9810),
    "relay": Listens("SPOTD_RELAY_HOST", "SPOTD_RELAY_PORT", 9811),
}


def command_of(arguments: Sequence[str]) -> str:
    """Return the subcommand in the command line of process 1. ``run`` if it is not spotd's."""
    names = [Path(argument).name for argument in arguments]
    if "spotd" not in names:
        return "run"
    return next(iter(arguments[names.index("spotd") + 1 :]), "")


def address(command: str, env: Mapping[str, str]) -> tuple[str, int] | None:
    """Return host and port to ask. Return None if the command has no ``/livez`` or it is off."""
    listens = LISTENS.get(command)
    if listens is None:
        return None
    # As in the settings: names have any case, and an empty value counts as not set.
    own = {name.upper(): v.strip() for name, v in env.items() if not is_injected(name, v)}
    host = own.get(listens.host_name) or listens.host
    port = int(own.get(listens.port_name) or listens.port)
    return (_ANY.get(host, host), port) if port else None


def alive(host: str, port: int) -> bool:
    """Ask, and return whether the answer is 200. Raise OSError or HTTPException without one."""
    # http.client, since urllib would obey a proxy setting.
    connection = http.client.HTTPConnection(host, port, timeout=LIMIT_S)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == http.client.OK
    finally:
        connection.close()


def main() -> int:
    """Ask once and return the exit code."""
    command_line = Path("/proc/1/cmdline").read_text("utf-8", "replace").split("\0")
    asked = address(command_of(command_line), os.environ)
    if asked is None:
        return 0
    try:
        if alive(*asked):
            return 0
        problem = "it does not answer 200"
    except (OSError, http.client.HTTPException) as error:
        problem = str(error) or type(error).__name__
    sys.stderr.write(f"http://{asked[0]}:{asked[1]}/livez: {problem}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
