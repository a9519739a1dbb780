"""``spotd watch`` in a real terminal: prices, keys, a resize, and the screen given back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.kit.publisher import KEYS, publish, state_of, status_of
from tests.kit.waiting import until_sync

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Pane:
    """A shell in a terminal of 80 columns and 24 lines, in a tmux of its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = str(socket)
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sh")

    def tmux(self, *args: str) -> str:
        """Call tmux. Return what it says."""
        env = os.environ | {"PS1": "$ "}
        command = ["tmux", "-S", self._socket, *args]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout

    def press(self, *keys: str) -> None:
        """Press keys, by tmux' names of them."""
        self.tmux("send-keys", *keys)

    def shown(self) -> list[str]:
        """Return the lines that are seen."""
        return self.tmux("capture-pane", "-p").splitlines()

    def shows(self, text: str, *, but: str = "\0") -> None:
        """Wait until one text is seen, and another is not."""
        until_sync(
            lambda: text in (shown := "\n".join(self.shown())) and but not in shown,
            f"{text!r} on the terminal",
        )


def test_real_terminal(server: redis.Redis, tmp_path: Path) -> None:
    """First prices, sort, filter, help, pause, Ctrl-Z, a new symbol; q restores the screen."""
    server.set(KEYS.status, status_of().to_json())
    for symbol in ("SPY", "QQQ"):
        server.hset(KEYS.states, symbol, state_of(symbol).to_json())
        publish(server, symbol)
    pane = Pane(tmp_path / "tmux")
    try:
        pane.press("echo before", "Enter")
        pane.shows("before")
        pane.press(f"{sys.executable} -m spotd watch SPY QQQ", "Enter")
        pane.shows("421.39", but="before")
        pane.shows("streaming")
        assert [line.split()[0] for line in pane.shown()[3:5]] == ["QQQ", "SPY"]
        pane.press("r")
        until_sync(lambda: pane.shown()[3].startswith("SPY"), "the other order")
        pane.press("/", "q", "q", "Enter")
        pane.shows("QQQ", but="SPY")
        pane.press("Escape")
        pane.shows("SPY")
        pane.press("?")
        pane.shows("Keys", but="SPY")
        pane.press("?", "Space")
        pane.shows("paused")
        pane.press("C-z")
        pane.shows("before", but="streaming")
        pane.press("fg", "Enter")
        pane.shows("streaming", but="before")
        pane.press("a", "IWM", "Enter")
        until_sync(lambda: server.zcard(KEYS.leases) == 3, "the third lease")
        pane.press("p")
        pane.shows("IWM")
        pane.press("q")
        pane.shows("before", but="streaming")
        until_sync(lambda: server.zcard(KEYS.leases) == 0, "the end of the leases")
    finally:
        pane.tmux("kill-server")


def test_resize(server: redis.Redis, tmp_path: Path) -> None:
    """The screen follows the size of the terminal, with its footer in the last line."""
    server.set(KEYS.status, status_of().to_json())
    server.hset(KEYS.states, "SPY", state_of("SPY").to_json())
    publish(server, "SPY")
    pane = Pane(tmp_path / "tmux")
    try:
        pane.press(f"exec {sys.executable} -m spotd watch SPY", "Enter")
        pane.shows("421.39")
        pane.tmux("resize-window", "-x", "50", "-y", "12")
        until_sync(lambda: pane.shown()[-1].startswith("q quit"), "the footer")
        pane.shows("421.39", but="spread")
        pane.tmux("resize-window", "-x", "120", "-y", "30")
        pane.shows("spread")
        until_sync(lambda: pane.shown()[29].startswith("q quit"), "the footer")
    finally:
        pane.tmux("kill-server")
