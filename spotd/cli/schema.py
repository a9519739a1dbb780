"""``spotd schema``: prints the machine-readable descriptions of the wire. Talks to nothing."""

from __future__ import annotations

from collections.abc import Callable

import click

from spotd.json_schema import MESSAGES, draft_07, encoded
from spotd.relay import asyncapi, openapi

DOCUMENTS: dict[str, Callable[[], bytes]] = {
    "asyncapi": asyncapi.document,
    "openapi": openapi.document,
    **{name: lambda model=model: encoded(draft_07(model)) for name, model in MESSAGES.items()},  # type: ignore[misc]
}


@click.command()
@click.argument("name", type=click.Choice(list(DOCUMENTS)))
def schema(name: str) -> None:
    """Print one description of the wire, as JSON.

    asyncapi: the channels of Redis and the websocket of the relay (AsyncAPI 3). openapi: the
    relay over HTTP (OpenAPI 3.1), the same bytes as its /openapi.json. update, state, status,
    gap: the JSON Schema (draft-07) of one message.
    """
    click.echo(DOCUMENTS[name](), nl=False)
