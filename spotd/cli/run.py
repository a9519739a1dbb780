"""``spotd run``: reads the settings and hands them to the daemon. Talks to nothing itself."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import click


@click.command()
def run() -> None:
    """Run the daemon until SIGTERM or SIGINT.

    The daemon reads its settings from the environment, a .env file, Docker secrets or systemd
    credentials. ALPACA_API_KEY and ALPACA_SECRET_KEY are required.
    """
    with _stoppable_while_loading():
        with _garbage_is_left():
            from spotd.settings import Settings  # noqa: PLC0415 - `--help` needs none of this

            settings = Settings.load()
            settings.credentials()

            from spotd.daemon.process import run_daemon  # noqa: PLC0415 - settings come first

        raise click.exceptions.Exit(run_daemon(settings))


@contextmanager
def _stoppable_while_loading() -> Iterator[None]:
    """End with 0 on a stop signal while modules load, before the daemon handles signals itself."""
    before = {
        number: signal.signal(number, lambda *_: os._exit(0))  # nothing is open yet
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _garbage_is_left() -> Iterator[None]:
    """Look for no garbage while modules load: they make none, and it takes an eighth of a start."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
