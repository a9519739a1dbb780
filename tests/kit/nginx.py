"""nginx with the configuration that spotd ships, in a directory of the test's own."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Self

from tests.kit.ports import free_port
from tests.kit.waiting import until_sync

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "spotd-relay.conf"
# Debian has it where a user's PATH does not reach.
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")

_MAIN = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log info;
worker_rlimit_nofile 8192;
events { worker_connections 8192; }
http {
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include spotd-relay.conf;
}
"""


class Nginx:
    """One nginx before two relays, which listen on these ports. ``with`` runs it."""

    def __init__(self, directory: Path, relay_ports: tuple[int, int]) -> None:
        self.port = free_port()
        self._directory = directory
        self._relay_ports = relay_ports
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address for a browser."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Start it, and wait until it listens."""
        assert NGINX is not None
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "nginx.conf").write_text(_MAIN)
        (self._directory / SHIPPED.name).write_text(self._shipped())
        error_log = self._directory / "error.log"  # also for what happens before nginx.conf is read
        self._process = subprocess.Popen(
            [NGINX, "-p", str(self._directory), "-e", str(error_log), "-c", "nginx.conf"]
        )
        atexit.register(self._process.kill)
        until_sync(self._listens, f"nginx to listen on port {self.port}")
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        atexit.unregister(self._process.kill)

    def logged(self) -> str:
        """Return everything that it has written to files."""
        return "".join(path.read_text("utf-8", "replace") for path in self._directory.glob("*.log"))

    def _shipped(self) -> str:
        """Return the configuration as it stands, but for the ports."""
        text = SHIPPED.read_text()
        first, second = self._relay_ports
        for line, changed in (
            ("    listen 8080 ", f"    listen 127.0.0.1:{self.port} "),
            ("    server 127.0.0.1:9811 ", f"    server 127.0.0.1:{first} "),
            ("    server 127.0.0.1:9812 ", f"    server 127.0.0.1:{second} "),
        ):
            assert text.count(line) == 1, line
            text = text.replace(line, changed)
        return text

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.logged()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
