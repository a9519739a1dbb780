"""Shell completion: what bash, zsh and fish are told, and that a real bash completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import redis

from spotd.cli.completion import SHELLS
from spotd.cli.main import COMMANDS
from tests.cli.conftest import Call
from tests.kit.ports import free_port
from tests.kit.publisher import KEYS
from tests.kit.waiting import GUARD_S, until_sync

# What bash does when a person presses the tab key behind these words.
_TAB = r"""
eval "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
function=$(complete -p spotd | sed -E 's/.*-F ([^ ]+) .*/\1/')
$function spotd
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the ``spotd`` of this checkout on the PATH."""
    script = tmp_path / "bin" / "spotd"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m spotd "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")


@cache
def script() -> str:
    """Return what the command says for bash."""
    return subprocess.run(
        ["spotd", "completion", "bash"],
        capture_output=True, text=True, check=True, timeout=GUARD_S,
    ).stdout  # fmt: skip


def tab(*words: str) -> list[str]:
    """Return what bash offers for the last of the words."""
    ran = subprocess.run(
        ["bash", "--norc", "-c", _TAB, "bash", script(), "spotd", *words],
        capture_output=True, text=True, check=True, timeout=GUARD_S,
    )  # fmt: skip
    assert ran.stderr == ""
    return ran.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.usefixtures("command")
class TestBash:
    """A real bash, which asks the real command."""

    def test_commands(self) -> None:
        """Subcommands, and those of a group."""
        assert tab("") == list(COMMANDS)
        assert tab("st") == ["status"]
        assert tab("symbols", "") == ["add", "list", "remove", "who"]

    def test_options(self) -> None:
        """Options of a subcommand, and what an argument may be."""
        assert tab("status", "--") == ["--redis-url", "--json", "--watch", "--every", "--help"]
        assert tab("completion", "") == list(SHELLS)

    def test_symbols(self, server: redis.Redis) -> None:
        """The symbols of the demand, where it helps to name one."""
        server.sadd(KEYS.symbols, "SPY", "QQQ")
        server.zadd(KEYS.leases, {"SPXL@a": "inf"})
        # Where Redis does not answer at once, nothing is offered.
        until_sync(lambda: tab("symbols", "who", "sp") == ["SPXL", "SPY"], "the symbols")
        assert tab("symbols", "add", "sp") == []

    def test_without_redis(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is offered, and nothing is said."""
        monkeypatch.setenv("SPOTD_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
        assert tab("symbols", "who", "") == []
        monkeypatch.setenv("SPOTD_REDIS_URL", "nonsense")
        assert tab("symbols", "who", "") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script(process: Call, shell: str) -> None:
    """It asks the command by click's variable, and the shell, where it is there, can read it."""
    outcome = process("completion", shell)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"_SPOTD_COMPLETE={shell}_complete" in outcome.out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=outcome.out, text=True, check=True, timeout=GUARD_S)


def test_completing_a_command_loads_no_subcommand() -> None:
    """Completing is as fast as the help."""
    script = (
        "import os, sys; from spotd.cli.main import main\n"
        "os.environ.update(_SPOTD_COMPLETE='bash_complete', COMP_WORDS='spotd s', COMP_CWORD='1')\n"
        "try: main([])\n"
        "except SystemExit: pass\n"
        "print(sorted({'redis', 'rich', 'pydantic', 'asyncio'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=GUARD_S
    )
    assert ran.stdout.splitlines() == [
        *(f"plain,{name}" for name in COMMANDS if name.startswith("s")),
        "[]",
    ]
