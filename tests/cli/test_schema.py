"""``spotd schema``: prints documents, and loads nothing for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from spotd.cli.schema import DOCUMENTS
from spotd.relay import openapi
from tests.cli.conftest import Call
from tests.kit.waiting import GUARD_S


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_printed(spotd: Call, name: str) -> None:
    """As indented JSON with a line feed at its end, and nothing else."""
    outcome = spotd("schema", name)
    assert (outcome.code, outcome.err) == (0, "")
    document = json.loads(outcome.out)
    assert {"asyncapi", "openapi", "$schema"} & document.keys()
    assert outcome.out.startswith('{\n  "')
    assert outcome.out.endswith("}\n")


def test_openapi_is_what_the_relay_serves(spotd: Call) -> None:
    """Byte for byte; tests/relay/test_api.py holds the other end."""
    assert spotd("schema", "openapi").out.encode() == openapi.document()


def test_an_unknown_name_is_wrong_usage(spotd: Call) -> None:
    """The error names all that there are."""
    outcome = spotd("schema", "quote")
    assert outcome.code == 2
    assert all(f"'{name}'" in outcome.err for name in DOCUMENTS)


def test_nothing_large_is_loaded() -> None:
    """Neither Alpaca's client nor pandas, nor what talks to Redis or over HTTP."""
    script = (
        "import sys; from spotd.cli.main import main; main(['schema', 'asyncapi'])\n"
        "heavy = {'alpaca', 'pandas', 'redis', 'aiohttp', 'rich', 'pydantic', 'structlog',\n"
        "         'asyncio', 'websockets'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=GUARD_S
    )
    assert ran.stderr == "[]\n"
