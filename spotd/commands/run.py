"""``spotd run``: reads the settings and hands them to the daemon. Talks to nothing itself."""

from __future__ import annotations

import click


@click.command()
def run() -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Reads every setting from the environment, a .env file, Docker secrets or systemd credentials;
    ALPACA_API_KEY and ALPACA_SECRET_KEY are required.
    """
    from spotd.settings import Settings  # noqa: PLC0415 - `spotd run --help` needs none of this

    settings = Settings.load()
    settings.credentials()

    from spotd.daemon import run_daemon  # noqa: PLC0415 - wrong settings are told before the load

    raise click.exceptions.Exit(run_daemon(settings))
