"""The health check of the image: which address it asks, and which answer is healthy."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from spotd.ops.livez import LISTENS, address, command_of
from spotd.relay.settings import RelaySettings
from spotd.settings import Settings
from tests.kit.waiting import GUARD_S


@pytest.mark.parametrize(
    ("command_line", "command"),
    [
        (["/opt/spotd/bin/python3", "/opt/spotd/bin/spotd", "run"], "run"),
        (["/opt/spotd/bin/python3", "/opt/spotd/bin/spotd", "relay"], "relay"),
        (["/sbin/docker-init", "--", "spotd", "relay"], "relay"),
        (["python3", "-m", "spotd", "simulate", "--port", "9820"], "simulate"),
        (["/opt/spotd/bin/python3", "/opt/spotd/bin/spotd"], ""),
        (["/bin/sh", "-c", "exec something"], "run"),
        ([], "run"),
    ],
)
def test_command(command_line: list[str], command: str) -> None:
    """Process 1 tells which command runs; a process that is not spotd's counts as a daemon."""
    assert command_of(command_line) == command


@pytest.mark.parametrize(
    ("command", "env", "asked"),
    [
        ("run", {}, ("127.0.0.1", 9810)),
        ("relay", {}, ("127.0.0.1", 9811)),
        ("run", {"SPOTD_HTTP_HOST": "0.0.0.0", "SPOTD_HTTP_PORT": "99"}, ("127.0.0.1", 99)),  # noqa: S104
        ("run", {"SPOTD_HTTP_HOST": "::"}, ("::1", 9810)),
        ("run", {"SPOTD_HTTP_HOST": "10.1.2.3"}, ("10.1.2.3", 9810)),
        ("run", {"SPOTD_HTTP_HOST": "", "SPOTD_HTTP_PORT": " "}, ("127.0.0.1", 9810)),
        ("run", {"SPOTD_HTTP_PORT": "0"}, None),
        ("relay", {"SPOTD_HTTP_PORT": "0", "SPOTD_RELAY_PORT": "98"}, ("127.0.0.1", 98)),
        ("relay", {"SPOTD_RELAY_PORT": "0"}, None),
        ("run", {"spotd_http_port": "99"}, ("127.0.0.1", 99)),
        ("relay", {"SPOTD_RELAY_PORT": "tcp://10.0.0.7:9811"}, ("127.0.0.1", 9811)),
        ("simulate", {}, None),
        ("demo", {}, None),
    ],
)
def test_address(command: str, env: dict[str, str], asked: tuple[str, int] | None) -> None:
    """A command is asked where its settings let it listen, and nothing else is asked."""
    assert address(command, env) == asked


def test_defaults_are_those_of_the_settings() -> None:
    """The check, which cannot read the settings, knows their defaults."""
    daemon, relay = Settings.model_fields, RelaySettings.model_fields

    assert (LISTENS["run"].host, LISTENS["run"].port) == (
        daemon["http_host"].default,
        daemon["http_port"].default,
    )
    assert (LISTENS["relay"].host, LISTENS["relay"].port) == (
        relay["relay_host"].default,
        relay["relay_port"].default,
    )


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_healthy(status: int, code: int) -> None:
    """The check asks /livez once, and only the answer 200 is healthy."""
    asked = []

    class Livez(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Livez) as server:
        thread = threading.Thread(target=server.serve_forever, name="livez")
        thread.start()
        run = check(server.server_port)
        server.shutdown()
        thread.join()

    assert asked == ["/livez"]
    assert run.returncode == code


def test_nobody_listens() -> None:
    """Where nothing listens, the container is not healthy, and the check says why in one line."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    run = check(port)

    assert run.returncode == 1
    assert run.stderr.startswith(f"http://127.0.0.1:{port}/livez: ")
    assert run.stderr.count("\n") == 1


def test_hung() -> None:
    """A daemon that accepts and does not answer is not healthy."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        run = check(server.getsockname()[1])

    assert run.returncode == 1


def test_turned_off() -> None:
    """Port 0 turns the endpoint off, and the check with it."""
    assert check(0).returncode == 0


def test_light() -> None:
    """The check loads no package but the standard library, since it runs every few seconds."""
    code = (
        "import sys; before = set(sys.modules); import spotd.ops.livez; "
        "print({name.partition('.')[0] for name in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "{'spotd'}"


def check(port: int) -> subprocess.CompletedProcess[str]:
    """Run the check as the image does."""
    # A proxy that nobody listens on: the check must not go through it.
    env = {**os.environ, "SPOTD_HTTP_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    env.pop("SPOTD_HTTP_HOST", None)
    return subprocess.run(
        [sys.executable, "-P", "-m", "spotd.ops.livez"],
        env=env,
        capture_output=True,
        text=True,
        timeout=GUARD_S,
        check=False,
    )
