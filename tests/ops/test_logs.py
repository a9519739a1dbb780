"""Log lines as operators and their tools read them, and what must not be in them."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog

from spotd.ops import logs
from spotd.redaction import REDACTED
from tests.kit.waiting import GUARD_S

SECRET = 'hunter2"\\ä'


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Restore the logging that was there before the test."""
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
    """Log into a text, and return it."""
    stream = io.StringIO()
    logs.configure(level, form, secrets=secrets, stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the JSON lines, decoded."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail() -> None:
    """Raise something that holds the secret."""
    raise ValueError(f"refused {SECRET}")


def test_a_line_of_json_holds_event_level_time_and_facts() -> None:
    """Each line, of ours and of libraries, is one JSON object."""
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
    """The console form has no JSON, and no colours where stderr is not a terminal."""
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
    """``auto`` is the console form on a terminal, JSON otherwise."""
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
    """Lines go to stderr; stdout is for the output of commands."""
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
    """Our lines are written from the level on, those of libraries from warning on at least."""
    stream = configured(level)
    for each in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger("spotd.test"), each)("ours")
        getattr(logging.getLogger("library"), each)("theirs")
    said = lines(stream)
    assert [line["level"] for line in said if line["event"] == "ours"] == ours
    assert [line["level"] for line in said if line["event"] == "theirs"] == theirs


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_is_cut_out_of_everything(form: Literal["json", "console"]) -> None:
    """A secret is cut out of events, values, tracebacks and lines of libraries, however escaped."""
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
    assert text.count(REDACTED) >= 8
    assert "hunter2" not in text
    assert "key-id-1" not in text
    assert "ValueError" in text
    assert "fail" in text


def test_a_password_in_a_url_is_cut_out_whoever_knows_it() -> None:
    """A password in a URL is cut out, a known secret or not; the rest of the URL stays."""
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


def test_a_short_secret_is_not_cut_out() -> None:
    """A secret of one character is not cut out, since it occurs inside ordinary words."""
    stream = configured("info", "json", "a", "")
    structlog.get_logger("spotd.test").info("banana")
    assert lines(stream)[0]["event"] == "banana"


def test_the_longest_secret_is_cut_first() -> None:
    """Where one secret contains another, the longer is cut out first."""
    stream = configured("info", "json", "abcd", "abcd-efgh")
    structlog.get_logger("spotd.test").info("abcd-efgh and abcd")
    assert lines(stream)[0]["event"] == "*** and ***"


def test_configured_twice_is_said_once() -> None:
    """Logging that is configured twice writes a line once, as configured last."""
    first, second = configured(), configured()
    structlog.get_logger("spotd.test").info("said")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


@pytest.mark.parametrize(
    "text",
    ["x" * 100_000, "://a:" * 20_000, "a://" + "b:" * 50_000, "?a_" * 30_000, "&" + "a_" * 50_000],
)
def test_a_long_line_is_cut(text: str) -> None:
    """Of a long line both ends are written, even of one made to slow the search for passwords."""
    stream = configured("info", "json", SECRET)
    log = structlog.get_logger("spotd.test")
    log.error("refused", why=text)
    [line] = lines(stream)
    assert "too long" in line["event"]
    assert "refused" in line["line"]
    assert len(stream.getvalue()) < 40_000


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_cut_leaves_no_part_of_a_secret(form: Literal["json", "console"]) -> None:
    """Wherever in a secret a long line is cut, no part of the secret is left."""
    secret = "s3cr3t" * 5
    for length in (*range(12_000, 12_400, 3), 20_000):
        stream = configured("info", form, secret)
        structlog.get_logger("spotd.test").info("x" * length + secret * 20)
        assert "s3cr" not in stream.getvalue()
        assert stream.getvalue().endswith("\n")


_CHATTY = """
import sys
from spotd.ops import logs
from spotd.redaction import REDACTED
import structlog
logs.configure("info", "json", secrets=["hunter2-hunter2"])
log = structlog.get_logger("spotd.test")
for number in range(int(sys.argv[1])):
    log.info("said", number=number, pad="hunter2-hunter2" + "x" * 200)
print("done", flush=True)
"""


def _chatty(lines_said: int, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHATTY, str(lines_said)], stdout=subprocess.PIPE, **streams
    )


def test_a_reader_that_stalls_holds_nothing_up() -> None:
    """While a full pipe is not read, lines are dropped, and the process goes on and ends."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"):
        process = _chatty(10_000, stderr=writing)
        os.close(writing)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == b"done\n"
        assert process.wait(GUARD_S) == 0


def test_lost_lines_are_counted() -> None:
    """When the reader is back, a line says how many lines it missed; the others are whole."""
    reading, writing = os.pipe()
    sink = logs.BackgroundWriter(writing)
    line = "x" * 999 + "\n"
    for _ in range(5_000):
        sink.write(line)
    heard = b""
    with os.fdopen(reading, "rb", buffering=0) as stream:
        while b"lost" not in heard:
            heard += stream.read(65_536)
        assert sink.drain(GUARD_S)
    *whole, last = heard.decode().splitlines()
    assert all(each == line.rstrip() for each in whole)
    assert len(whole) + json.loads(last)["lost"] == 5_000
    sink.write("unread\n")  # the reader is gone
    assert sink.drain(GUARD_S)
    os.close(writing)


def test_all_lines_are_written_at_the_exit(tmp_path: Path) -> None:
    """Where no reader stalls, the last lines are written in order before the process ends."""
    path = tmp_path / "stderr"
    with path.open("wb") as file:
        process = _chatty(1_000, stderr=file)
        process.communicate(timeout=GUARD_S)
    err = path.read_bytes()
    assert process.returncode == 0
    assert [json.loads(line)["number"] for line in err.splitlines()] == [*range(1_000)]
    assert b"hunter2" not in err


def test_without_a_stderr_nothing_is_said() -> None:
    """If stderr was closed before the process began, nothing is written, and nothing fails."""
    process = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", _CHATTY, "3"],
        stdout=subprocess.PIPE,
        timeout=GUARD_S,
        check=False,
    )
    assert process.returncode == 0
    assert process.stdout == b"done\n"
