"""Log lines as operators and their tools read them, and what must not be in them."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog

from spotd.ops import logs

SECRET = 'hunter2"\\ä'


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging as it was, whatever a test set up."""
    root, spotd = logging.getLogger(), logging.getLogger("spotd")
    handlers, levels = list(root.handlers), (root.level, spotd.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    spotd.setLevel(levels[1])
    structlog.reset_defaults()


def configured(
    level: str = "info", form: Literal["auto", "json", "console"] = "json", *secrets: str
) -> io.StringIO:
    """Logging into a text."""
    stream = io.StringIO()
    logs.configure(level, form, secrets=secrets, stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """The JSON lines."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail() -> None:
    """Raise something that holds the secret."""
    raise ValueError(f"refused {SECRET}")


def test_a_line_of_json_holds_event_level_time_and_facts() -> None:
    """One object a line, of ours and of libraries."""
    stream = configured()
    structlog.get_logger("spotd.test").info("said", number=1, text="größer")
    logging.getLogger("some.library").warning("it %s", "broke")
    ours, theirs = lines(stream)
    assert (ours["event"], ours["level"], ours["number"]) == ("said", "info", 1)
    assert ours["text"] == "größer"
    assert ours["timestamp"].endswith("Z")
    assert (theirs["event"], theirs["level"]) == ("it broke", "warning")
    assert theirs["library"] == "some.library"


def test_the_console_is_for_people() -> None:
    """No JSON, no colours where it is no terminal."""
    stream = configured("info", "console")
    structlog.get_logger("spotd.test").info("said", number=1)
    logging.getLogger("some.library").error("broke")
    text = stream.getvalue()
    assert "said" in text
    assert "number=1" in text
    assert "library=some.library" in text
    assert "{" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_auto_is_by_the_terminal(terminal: bool) -> None:
    """Console on a terminal, JSON otherwise."""
    if terminal:
        reading, writing = pty.openpty()
    else:
        reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as heard, os.fdopen(writing, "w") as stream:
        logs.configure("info", "auto", stream=stream)
        structlog.get_logger("spotd.test").info("said")
        stream.flush()
        line = heard.read(10_000).decode()
    assert line.startswith("{") is not terminal
    assert ("\x1b" in line) is terminal


def test_it_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Stdout is for what a command is asked for."""
    logs.configure("info", "json")
    structlog.get_logger("spotd.test").info("said")
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["event"] == "said"


@pytest.mark.parametrize(
    ("level", "ours", "theirs"),
    [
        ("debug", ["debug", "info", "warning", "error"], ["warning", "error"]),
        ("info", ["info", "warning", "error"], ["warning", "error"]),
        ("warning", ["warning", "error"], ["warning", "error"]),
        ("error", ["error"], ["error"]),
    ],
)
def test_the_level_filters(level: str, ours: list[str], theirs: list[str]) -> None:
    """Ours from the level on; libraries speak up when something is wrong, and not below it."""
    stream = configured(level)
    for each in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger("spotd.test"), each)("ours")
        getattr(logging.getLogger("library"), each)("theirs")
    said = lines(stream)
    assert [line["level"] for line in said if line["event"] == "ours"] == ours
    assert [line["level"] for line in said if line["event"] == "theirs"] == theirs


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_is_cut_out_of_everything(form: Literal["json", "console"]) -> None:
    """Of events, values, tracebacks, reprs, and of what libraries say, however it is escaped."""
    stream = configured("info", form, SECRET, "key-id-1")
    log = structlog.get_logger("spotd.test")
    event = f"event {SECRET}"
    log.info(event, value=SECRET, listed=[SECRET], shown=repr(SECRET))
    log.info("key", key="key-id-1")
    try:
        fail()
    except ValueError as error:
        log.exception("failed", error=error)
        logging.getLogger("library").exception("failed with %s", SECRET)
        logging.getLogger("library").warning("failed", exc_info=sys.exc_info())
    text = stream.getvalue()
    assert text.count(logs.REDACTED) >= 8
    assert "hunter2" not in text
    assert "key-id-1" not in text
    assert "ValueError" in text
    assert "fail" in text


def test_a_password_in_a_url_is_cut_out_whoever_knows_it() -> None:
    """Also one that is no known secret; the rest of the URL stays."""
    stream = configured()
    log = structlog.get_logger("spotd.test")
    log.info("a", url="redis://user:pa55word@host:6379/0")
    sentinels = "h1:1,h2:2/prices?sentinel_password"
    log.info("b", url=f"rediss+sentinel://:pa55word@{sentinels}=pa55word&db=1")
    log.info("c", url="unix:///run/redis.sock?password=pa55word")
    log.info("d", url="https://host:8080/path?token=pa55word")
    log.info("e", url="redis://host:6379/0", mail="a:b@c")
    said = lines(stream)
    assert "pa55word" not in stream.getvalue()
    assert said[0]["url"] == "redis://user:***@host:6379/0"
    assert said[1]["url"] == f"rediss+sentinel://:***@{sentinels}=***&db=1"
    assert said[2]["url"] == "unix:///run/redis.sock?password=***"
    assert said[3]["url"] == "https://host:8080/path?token=***"
    assert (said[4]["url"], said[4]["mail"]) == ("redis://host:6379/0", "a:b@c")


def test_a_short_secret_is_no_secret() -> None:
    """It would cut holes into ordinary words."""
    stream = configured("info", "json", "a", "")
    structlog.get_logger("spotd.test").info("banana")
    assert lines(stream)[0]["event"] == "banana"


def test_the_longest_secret_is_cut_first() -> None:
    """One may hold another."""
    stream = configured("info", "json", "abcd", "abcd-efgh")
    structlog.get_logger("spotd.test").info("abcd-efgh and abcd")
    assert lines(stream)[0]["event"] == "*** and ***"


def test_configured_twice_is_said_once() -> None:
    """The last one counts."""
    first, second = configured(), configured()
    structlog.get_logger("spotd.test").info("said")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


@pytest.mark.parametrize(
    "text",
    ["x" * 100_000, "://a:" * 20_000, "a://" + "b:" * 50_000, "?a_" * 30_000, "&" + "a_" * 50_000],
)
def test_a_long_line_costs_little(text: str) -> None:
    """The event loop writes it: it is cut, and looked through in no time."""
    stream = configured("info", "json", SECRET)
    log = structlog.get_logger("spotd.test")
    started = time.monotonic()
    log.error("refused", why=text)
    assert time.monotonic() - started < 0.5
    [line] = lines(stream)
    assert "too long" in line["event"]
    assert "refused" in line["line"]
    assert len(stream.getvalue()) < 40_000


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_cut_leaves_no_part_of_a_secret(form: Literal["json", "console"]) -> None:
    """Wherever in it the cut falls."""
    secret = "s3cr3t" * 5
    for length in (*range(12_000, 12_400, 3), 20_000):
        stream = configured("info", form, secret)
        structlog.get_logger("spotd.test").info("x" * length + secret * 20)
        assert "s3cr" not in stream.getvalue()
        assert stream.getvalue().endswith("\n")


_CHATTY = """
import sys, time
from spotd.ops import logs
import structlog
logs.configure("info", "json", secrets=["hunter2-hunter2"])
log = structlog.get_logger("spotd.test")
started = time.monotonic()
for number in range(int(sys.argv[1])):
    log.info("said", number=number, pad="hunter2-hunter2" + "x" * 200)
print(time.monotonic() - started, flush=True)
"""


def _chatty(lines_said: int, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHATTY, str(lines_said)], stdout=subprocess.PIPE, **streams
    )


def test_a_reader_who_stalls_holds_nothing_up() -> None:
    """A full pipe: lines are dropped, the process goes on and ends in time."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"):
        process = _chatty(10_000, stderr=writing)
        os.close(writing)
        assert process.stdout is not None
        with process.stdout:
            took = float(process.stdout.readline())  # also says that it was not held up
        ended = time.monotonic()
        assert process.wait(20) == 0
        assert took < 10
        assert time.monotonic() - ended < 5


def test_lost_lines_are_counted() -> None:
    """When the reader is back he is told how many he missed; the others are whole."""
    reading, writing = os.pipe()
    sink = logs._Behind(writing)
    line = "x" * 999 + "\n"
    for _ in range(5_000):
        sink.write(line)
    heard = b""
    with os.fdopen(reading, "rb", buffering=0) as stream:
        while b"lost" not in heard:
            heard += stream.read(65_536)
        assert sink.drain(10)
    *whole, last = heard.decode().splitlines()
    assert all(each == line.rstrip() for each in whole)
    assert len(whole) + json.loads(last)["lost"] == 5_000
    sink.write("to nobody\n")  # the reader is gone
    assert sink.drain(10)
    os.close(writing)


def test_the_last_words_are_written_at_the_exit() -> None:
    """All of them, in order, where they are read."""
    process = _chatty(1_000, stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert [json.loads(line)["number"] for line in err.splitlines()] == [*range(1_000)]
    assert b"hunter2" not in err


def test_without_a_stderr_nothing_is_said() -> None:
    """Closed before the process began: no crash, and nothing into whatever has its number now."""
    process = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", _CHATTY, "3"],
        stdout=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    assert process.returncode == 0
    assert float(process.stdout) < 10
