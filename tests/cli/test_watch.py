"""``spotd watch``: lines in a pipe, a table on a terminal, and leases that end with it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from tests.cli.conftest import Call
from tests.kit.ports import free_port
from tests.kit.publisher import KEYS, publish, state_of, status_of
from tests.kit.waiting import GUARD_S, until_sync


@contextmanager
def publishing(server: redis.Redis, *symbols: str) -> Iterator[None]:
    """Publish prices, as a daemon does, while the block runs."""
    done = threading.Event()

    def run() -> None:
        seq = 0
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


def start(*args: str) -> subprocess.Popen[str]:
    """Start watching in a process of its own, with its output in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "spotd", "watch", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
    assert outcome.err == "no daemon answers: prices are the last known\n"


def test_states(server: redis.Redis) -> None:
    """In a pipe, abnormal states are told on stderr, and so is their end."""
    server.set(KEYS.status, status_of().to_json())
    server.hset(KEYS.states, "SPY", state_of("SPY", "stale").to_json())
    server.hset(KEYS.states, "QQQ", state_of("QQQ").to_json())
    with start("SPY", "QQQ") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "# SPY is stale\n"
        for symbol in ("QQQ", "SPY", "IWM"):
            server.publish(KEYS.events, state_of(symbol).to_json())
        assert process.stderr.readline() == "# SPY is live\n"
        server.publish(KEYS.events, status_of("waiting", "no answer").to_json())
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
        assert process.stderr.readline() == "no daemon answers: prices are the last known\n"
        # Not the same bytes as before: a status that nothing tells apart is told once.
        server.publish(KEYS.events, status_of("waiting", "no answer").to_json())
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
        "import os, sys\n"
        "from spotd.cli.main import main\n"
        "class Stop:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'rich.live':\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Stop())\n"
        "sys.exit(main(['watch', 'SPY']))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, timeout=GUARD_S
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


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


class TestTerminal:
    def watch(self, *args: str) -> tuple[int, str]:
        """Watch on a terminal; return the exit code and what the terminal was sent."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "spotd", "watch", *args],
            stdin=theirs, stdout=theirs, stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"},
        )  # fmt: skip
        os.close(theirs)
        sent = bytearray()
        try:
            while block := os.read(ours, 4096):
                sent += block
        except OSError:  # Linux' way to say that the other side is closed
            pass
        os.close(ours)
        return process.wait(timeout=GUARD_S), sent.decode()

    def test_table(self, server: redis.Redis) -> None:
        """On a terminal there is a table, with the states and the daemon below."""
        server.set(KEYS.status, status_of().to_json())
        for symbol in ("SPY", "IWM"):
            server.hset(KEYS.states, symbol, state_of(symbol).to_json())
        with publishing(server, "SPY"):
            code, sent = self.watch("SPY", "QQQ", "--seconds", "1.5")
        assert code == 0
        last = sent.replace("\r", "").rpartition("symbol")[2].splitlines()
        rows = {line.split()[0]: line.split() for line in last if line.split()}
        assert rows["SPY"][1:5] == ["421.35", "421.39", "421.37", "-"]
        assert rows["SPY"][-1] == "live"
        assert rows["QQQ"][-1] == "-"
        assert "IWM" not in rows
        assert "daemon streaming" in sent
        assert "\x1b[?25h" in sent  # the cursor is given back
        assert server.zcard(KEYS.leases) == 0

    def test_no_daemon(self, server: redis.Redis) -> None:
        """Without a daemon live symbols are shown as stale, with a note below."""
        server.hset(KEYS.states, "SPY", state_of("SPY").to_json())
        publish(server, "SPY")
        code, sent = self.watch("SPY", "--seconds", "1.5")
        assert code == 0
        last = sent.replace("\r", "").rpartition("symbol")[2].splitlines()
        assert [line.split()[-1] for line in last if line.startswith("SPY")] == ["stale"]
        assert "no daemon answers" in "".join(last)

    def test_count(self, server: redis.Redis) -> None:
        """The count ends it on a terminal too."""
        with publishing(server, "SPY"):
            code, sent = self.watch("SPY", "--count", "2")
        assert code == 0
        assert "421.37" in sent


def test_no_subscription_is_left(server: redis.Redis) -> None:
    """Whatever was watched before, nothing is subscribed any more."""
    until_sync(lambda: server.pubsub_channels() == [], "no subscription")
