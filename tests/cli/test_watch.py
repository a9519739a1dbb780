"""``spotd watch``: lines in a pipe, a screen on a terminal, and leases that end with it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from spotd.models import DaemonStatus, SymbolState
from tests.cli.conftest import Call
from tests.cli.terminal import hang_up, on_terminal, read_until
from tests.kit.ports import free_port
from tests.kit.processes import popen, popen_on
from tests.kit.publisher import KEYS, publish, state_of, status_of, update_of
from tests.kit.template import Popen
from tests.kit.waiting import GUARD_S, until_sync


@contextmanager
def publishing(server: redis.Redis, *symbols: str) -> Iterator[None]:
    """Publish prices, as a daemon does, before the block and while it runs."""
    done = threading.Event()
    for symbol in symbols:
        publish(server, symbol)

    def run() -> None:
        seq = 1
        while not done.wait(0.01):
            seq += 1
            for symbol in symbols:
                publish(server, symbol, seq)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def start(*args: str) -> Popen | subprocess.Popen[str]:
    """Start watching in a process of its own, with its output in a pipe."""
    return popen("watch", *args)


def announce(server: redis.Redis, event: DaemonStatus | SymbolState) -> None:
    """Write and announce an event, as a daemon does: what is stored and what is heard agree."""
    if isinstance(event, SymbolState):
        server.hset(KEYS.states, event.symbol, event.to_json())
    else:
        server.set(KEYS.status, event.to_json())
    server.publish(KEYS.events, event.to_json())


@contextmanager
def watching(server: redis.Redis, *symbols: str) -> Iterator[Callable[[], set[str]]]:
    """Yield a function that returns which of some symbols were leased while the block ran."""
    seen: set[str] = set()
    done = threading.Event()

    def run() -> None:
        while not done.wait(0.01):
            for member in server.zrange(KEYS.leases, 0, -1):
                seen.add(str(member, "ascii").partition("@")[0])  # type: ignore[arg-type]

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: seen
    finally:
        done.set()
        thread.join()


def test_lines(spotd: Call, server: redis.Redis) -> None:
    """In a pipe every update is one line, and the count ends it."""
    with publishing(server, "SPY"):
        outcome = spotd("watch", "spy", "--count", "3")
    assert outcome.code == 0
    told = outcome.out.splitlines()
    assert told == ["2026-01-20T05:12:00.000000Z SPY bid=421.35 ask=421.39 mid=421.37 last=-"] * 3
    assert server.zcard(KEYS.leases) == 0


def test_seconds(spotd: Call, server: redis.Redis) -> None:
    """The time ends it too, also when nothing arrives."""
    server.set(KEYS.status, status_of().to_json())
    assert spotd("watch", "SPY", "--seconds", "0.2") == (0, "", "")
    assert server.zcard(KEYS.leases) == 0


def test_no_daemon(spotd: Call, server: redis.Redis) -> None:
    """Without a daemon prices are shown, with a note on stderr that they are the last known."""
    publish(server, "SPY")
    outcome = spotd("watch", "SPY", "--count", "1")
    assert outcome.code == 0
    assert outcome.out.split()[1] == "SPY"
    assert outcome.err == "no daemon runs here: prices are the last known\n"


def test_states(server: redis.Redis) -> None:
    """In a pipe, abnormal states are told on stderr, and so is their end."""
    server.set(KEYS.status, status_of().to_json())
    server.hset(KEYS.states, "SPY", state_of("SPY", "stale").to_json())
    server.hset(KEYS.states, "QQQ", state_of("QQQ").to_json())
    with start("SPY", "QQQ") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "# SPY is stale\n"
        for symbol in ("QQQ", "SPY", "IWM"):
            announce(server, state_of(symbol))
        assert process.stderr.readline() == "# SPY is live\n"
        announce(server, status_of("waiting", "no answer"))
        assert process.stderr.readline() == "# daemon is waiting: no answer\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=GUARD_S) == ("", "")
        assert process.returncode == 0


def test_a_daemon_that_crashed(server: redis.Redis) -> None:
    """In a pipe it is told once that the status lapsed, and then that a daemon is there again."""
    server.set(KEYS.status, status_of().to_json())
    server.hset(KEYS.states, "SPY", state_of("SPY", "stale").to_json())
    with start("SPY") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "# SPY is stale\n"
        server.delete(KEYS.status)
        assert process.stderr.readline() == "no daemon runs here: prices are the last known\n"
        # Not the same bytes as before: a status that nothing tells apart is told once.
        announce(server, status_of("waiting", "no answer"))
        assert process.stderr.readline() == "# daemon is waiting: no answer\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=GUARD_S) == ("", "")


def test_what_is_there(spotd: Call, server: redis.Redis) -> None:
    """Without symbols all that is streamed is shown, and nothing is demanded."""
    publish(server, "SPY")
    publish(server, "QQQ")
    server.config_resetstat()
    outcome = spotd("watch", "--count", "2")
    assert sorted(line.split()[1] for line in outcome.out.splitlines()) == ["QQQ", "SPY"]
    assert "cmdstat_zadd" not in server.info("commandstats")


def test_nothing_there(spotd: Call, server: redis.Redis) -> None:
    """Without symbols and without prices there is nothing to watch, which is said."""
    outcome = spotd("watch")
    assert outcome.code == 1
    assert "name symbols" in outcome.err


def test_malformed(spotd: Call, server: redis.Redis) -> None:
    """A malformed symbol is wrong usage."""
    outcome = spotd("watch", "sp-y")
    assert outcome.code == 2
    assert "'sp-y'" in outcome.err


def test_no_redis(spotd: Call) -> None:
    """Without Redis there is one line, and exit code 1."""
    outcome = spotd("watch", "SPY", "--redis-url", f"redis://127.0.0.1:{free_port()}")
    assert outcome.code == 1
    assert outcome.err.startswith("Error: Redis at ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped(server: redis.Redis, number: signal.Signals) -> None:
    """Being told to stop is a good end, quiet, and removes the leases."""
    server.set(KEYS.status, status_of().to_json())
    with start("SPY") as process:
        until_sync(lambda: server.zcard(KEYS.leases) == 1, "the lease")
        publish(server, "SPY")
        assert process.stdout is not None
        assert process.stdout.readline().split()[1] == "SPY"
        process.send_signal(number)
        out, err = process.communicate(timeout=GUARD_S)
        assert (process.returncode, out, err) == (0, "", "")
    assert server.zcard(KEYS.leases) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_it_loads(server: redis.Redis, number: signal.Signals) -> None:
    """A stop is a good end whenever it comes, here while a module is imported."""
    script = (
        "import os, signal, sys\n"
        # A shell's background job ignores SIGINT.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from spotd.cli.main import main\n"
        "class Stop:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'spotd.cli.screen.show':\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Stop())\n"
        "sys.exit(main(['watch', 'SPY']))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, timeout=GUARD_S
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


def test_commas(spotd: Call, server: redis.Redis) -> None:
    """Symbols are listed with commas, too."""
    publish(server, "SPY")
    publish(server, "QQQ")
    lines = spotd("watch", "spy,QQQ", "--count", "2").out.splitlines()
    assert {line.split()[1] for line in lines} == {"SPY", "QQQ"}


def test_closed_pipe(server: redis.Redis) -> None:
    """A reader that has enough ends it quietly, and the leases with it."""
    server.set(KEYS.status, status_of().to_json())
    with publishing(server, "SPY"), start("SPY") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=GUARD_S) == 0
        assert process.stderr.read() == ""
    assert server.zcard(KEYS.leases) == 0


def test_json(spotd: Call, server: redis.Redis) -> None:
    """With --json each line is an update as it was published."""
    server.set(KEYS.status, status_of().to_json())
    publish(server, "SPY")
    outcome = spotd("watch", "SPY", "--json", "--count", "1")
    assert outcome == (0, update_of("SPY").to_json().decode() + "\n", "")


class TestTerminal:
    def watch(
        self,
        *args: str,
        press: bytes = b"",
        when: str = "",
        quits: Callable[[str], bool] | None = None,
        script: str | None = None,
    ) -> tuple[int, str]:
        """Watch on a terminal; return the exit code and what the terminal was sent.

        ``press`` is typed as soon as the terminal was sent ``when``, and ``q`` as soon as
        ``quits`` is true of what it was sent after that. ``script`` is what the process runs
        instead of the command.
        """
        ours, theirs = pty.openpty()
        before = termios.tcgetattr(theirs)
        env = {"TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
        process: Popen | subprocess.Popen[bytes]
        if script is None:
            process = popen_on(theirs, "watch", *args, leads=False, env=env)
        else:
            process = subprocess.Popen(
                [sys.executable, "-c", script, "watch", *args],
                stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **env},
            )  # fmt: skip
        sent, pressed_at = bytearray(), 0
        try:
            while process.poll() is None:
                if select.select([ours], [], [], 0.05)[0]:
                    sent += os.read(ours, 65536)
                if press and when.encode() in sent:
                    os.write(ours, press)
                    press, pressed_at = b"", len(sent)
                elif not press and quits and quits(sent[pressed_at:].decode(errors="replace")):
                    os.write(ours, b"q")
                    quits = None
            while select.select([ours], [], [], 0)[0]:
                sent += os.read(ours, 65536)
            assert termios.tcgetattr(theirs) == before
        finally:
            process.kill()
            process.wait()
            os.close(ours)
            os.close(theirs)
        return process.wait(), sent.decode()

    def test_screen(self, server: redis.Redis) -> None:
        """On a terminal there is a screen without colours where NO_COLOR is set; q ends it."""
        server.set(KEYS.status, status_of().to_json())
        for symbol in ("SPY", "IWM"):
            server.hset(KEYS.states, symbol, state_of(symbol).to_json())
        with publishing(server, "SPY"):
            code, sent = self.watch("SPY", "QQQ", press=b"q", when="live  ")
        assert code == 0
        assert sent.startswith("\x1b[?1049h")
        for text in ("streaming", "421.35", "421.39", "QQQ", "live"):
            assert text in sent
        assert "IWM" not in sent
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", sent)
        assert sent.endswith("\x1b[?7h\x1b[?25h\x1b[?1049l")  # the cursor is given back
        assert server.zcard(KEYS.leases) == 0

    def test_more_symbols_than_rows(self, server: redis.Redis) -> None:
        """What is beyond the most rows is counted, whether a price or a state tells of it."""
        server.set(KEYS.status, status_of().to_json())
        for symbol in ("SPY", "QQQ", "IWM"):
            server.hset(KEYS.states, symbol, state_of(symbol).to_json())
        for symbol in ("SPY", "QQQ"):
            publish(server, symbol)
        script = (
            "import asyncio, os\n"
            "from spotd.cli.screen.show import show\n"
            "from spotd.client import SpotClient\n"
            "async def main():\n"
            "    async with SpotClient(os.environ['SPOTD_REDIS_URL']) as spot:\n"
            "        await show(spot, (), everything=True, most_rows=1)\n"
            "asyncio.run(main())\n"
        )
        code, _ = self.watch(press=b"q", when="1–1 of 1, 2 not shown", script=script)
        assert code == 0

    def test_add_and_remove(self, server: redis.Redis) -> None:
        """Without symbols all is shown that others demand; a key demands more, by a lease."""
        server.set(KEYS.status, status_of().to_json())
        server.hset(KEYS.states, "SPY", state_of("SPY").to_json())
        server.hset(KEYS.states, "sp-y", state_of("sp-y", "refused", "invalid_symbol").to_json())
        publish(server, "SPY")
        publish(server, "IWM")
        typed = b"xSPY\raQQQ\rasp-y\r\x0c"
        with watching(server, "QQQ") as leased:

            def is_anew(sent: str) -> bool:
                _, anew, shown = sent.rpartition("\x1b[2J")
                return bool(anew) and "QQQ" in shown and bool(leased())

            code, sent = self.watch(press=typed, when="refused: invalid", quits=is_anew)
        assert code == 0
        assert "421.35" in sent
        assert leased() == {"QQQ"}
        last = sent.rpartition("\x1b[2J")[2]
        assert "QQQ" in last
        assert "IWM" in last
        assert "SPY" not in last
        assert server.zcard(KEYS.leases) == 0

    def test_no_daemon(self, server: redis.Redis) -> None:
        """Without a daemon live symbols are shown as stale, with the reason above."""
        server.hset(KEYS.states, "SPY", state_of("SPY").to_json())
        publish(server, "SPY")
        code, sent = self.watch("SPY", press=b"q", when="stale")
        assert code == 0
        assert "no_daemon: " in sent

    def test_lines_with_a_count(self, server: redis.Redis) -> None:
        """With a count there are lines on a terminal too."""
        server.set(KEYS.status, status_of().to_json())
        with publishing(server, "SPY"):
            code, sent = self.watch("SPY", "--count", "2")
        assert code == 0
        assert "mid=421.37" in sent
        assert "\x1b" not in sent

    def test_lines_on_a_dumb_terminal(self, server: redis.Redis) -> None:
        """Where TERM is dumb there are lines until it is told to stop."""
        server.set(KEYS.status, status_of().to_json())
        env = {"TERM": "dumb"}
        with publishing(server, "SPY"), on_terminal("watch", "SPY", env=env) as (process, ours):
            sent = read_until(ours, b"mid=421.37")
            process.send_signal(signal.SIGTERM)
            assert process.wait(GUARD_S) == 0
        assert b"\x1b" not in sent

    @pytest.mark.parametrize("press", [b"\x03", b"\x1c"])
    def test_stopped(self, server: redis.Redis, press: bytes) -> None:
        """Ctrl-C and Ctrl-\\ end it with 0, and give the terminal back."""
        server.set(KEYS.status, status_of().to_json())
        with on_terminal("watch", "SPY") as (process, ours):
            read_until(ours, b"streaming")
            os.write(ours, press)
            read_until(ours, b"\x1b[?1049l")
            assert process.wait(GUARD_S) == 0
        assert server.zcard(KEYS.leases) == 0

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_signals(self, server: redis.Redis, number: signal.Signals) -> None:
        """SIGTERM and SIGHUP end it with 0, and give the terminal back."""
        server.set(KEYS.status, status_of().to_json())
        with on_terminal("watch", "SPY") as (process, ours):
            read_until(ours, b"streaming")
            process.send_signal(number)
            read_until(ours, b"\x1b[?1049l")
            assert process.wait(GUARD_S) == 0
        assert server.zcard(KEYS.leases) == 0

    def test_a_terminal_that_hangs_up(self, server: redis.Redis) -> None:
        """It ends with 0 and removes its leases, with the signals that a closed window sends."""
        server.set(KEYS.status, status_of().to_json())
        with on_terminal("watch", "SPY") as (process, ours):
            read_until(ours, b"streaming")
            hang_up(ours)
            assert process.wait(GUARD_S) == 0
        assert server.zcard(KEYS.leases) == 0

    def test_defect(self, server: redis.Redis) -> None:
        """After a defect the terminal is as before, the traceback stands behind, and 1 is told."""
        server.set(KEYS.status, status_of().to_json())
        script = (
            "import sys\n"
            "from spotd.cli.main import main\n"
            "from spotd.cli.screen.screen import Screen\n"
            "Screen.draw = None\n"
            "sys.exit(main())\n"
        )
        code, sent = self.watch("SPY", script=script)
        assert code == 1
        left, _, behind = sent.partition("\x1b[?1049l")
        assert "Traceback" not in left
        assert "TypeError" in behind
        assert server.zcard(KEYS.leases) == 0

    def test_continued(self, server: redis.Redis) -> None:
        """After a stop that nothing announced, everything is drawn anew."""
        server.set(KEYS.status, status_of().to_json())
        with on_terminal("watch", "SPY") as (process, ours):
            read_until(ours, b"streaming")
            process.send_signal(signal.SIGSTOP)
            process.send_signal(signal.SIGCONT)
            read_until(ours, re.compile(rb"\x1b\[2J.*quit", re.DOTALL))

    def test_resized(self, server: redis.Redis) -> None:
        """What is shown follows the size of the terminal."""
        server.set(KEYS.status, status_of().to_json())
        with on_terminal("watch", "SPY") as (_, ours):
            read_until(ours, b"streaming")
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 40, 0, 0))
            read_until(ours, b"\x1b[10H\x1b[K")


def test_no_subscription_is_left(server: redis.Redis) -> None:
    """Whatever was watched before, nothing is subscribed any more."""
    until_sync(lambda: server.pubsub_channels() == [], "no subscription")
