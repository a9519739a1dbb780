"""``/openapi.json``: OpenAPI 3.1 from the models."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState
from spotd.relay.close_codes import CLOSE_CODES
from spotd.relay.openapi import document

DOCUMENT = json.loads(document())


def references(part: Any) -> set[str]:
    """Return every reference in a part of the document."""
    if isinstance(part, dict):
        found = {part["$ref"]} if "$ref" in part else set()
        return found.union(*map(references, part.values()))
    if isinstance(part, list):
        return set().union(*map(references, part))
    return set()


def test_every_reference_leads_somewhere() -> None:
    """A schema is named where it is defined."""
    schemas = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert references(DOCUMENT) <= schemas
    assert DOCUMENT["openapi"].startswith("3.1")


def test_the_document_is_valid() -> None:
    """By an independent validator of OpenAPI 3.1."""
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_the_schemas_have_the_fields_of_the_models() -> None:
    """All of them, by their names in JSON."""
    for model in (SpotPriceUpdate, SymbolState, DaemonStatus, Gap):
        properties = set(DOCUMENT["components"]["schemas"][model.__name__]["properties"])
        fields = {field.encode_name for field in msgspec.structs.fields(model)}
        assert fields <= properties


@pytest.mark.parametrize("path", ["/api/spot-prices", "/sse"])
def test_symbols_are_required_in_a_query(path: str) -> None:
    """The answer is 400 where they are missing."""
    told = DOCUMENT["paths"][path]["get"]
    [symbols] = [each for each in told["parameters"] if each["name"] == "symbols"]
    assert (symbols["in"], symbols["required"]) == ("query", True)
    assert "400" in told["responses"]


def test_the_websocket_names_every_close_code() -> None:
    """With what each asks of the client."""
    text = DOCUMENT["paths"]["/ws"]["get"]["description"]
    for code in CLOSE_CODES:
        assert f"| {code.code} | {code.reason} |" in text
