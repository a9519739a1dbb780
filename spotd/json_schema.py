"""Decides what a JSON Schema says of a model: made from its fields, docstring and examples.

The schemas are valid under draft-07, AsyncAPI 3 and OpenAPI 3.1 alike. They allow fields that they
do not name, since a reader ignores these. Must not talk to anything.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec

from spotd.examples import EXAMPLES
from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState

Json: TypeAlias = dict[str, Any]

DRAFT_07 = "http://json-schema.org/draft-07/schema#"
# The messages of which a document of its own exists, by its name.
MESSAGES: dict[str, type[msgspec.Struct]] = {
    "update": SpotPriceUpdate,
    "state": SymbolState,
    "status": DaemonStatus,
    "gap": Gap,
}


def draft_07(model: type[msgspec.Struct]) -> Json:
    """Return the document of one model, with all that it refers to and with examples."""
    definitions = components([model], "#/definitions/{name}")
    schema = definitions.pop(model.__name__)
    document = {"$schema": DRAFT_07, **schema, "examples": examples(model)}
    return {**document, "definitions": definitions} if definitions else document


def components(models: Iterable[type], ref_template: str) -> dict[str, Json]:
    """Return the schemas of models and of all that they refer to, by their names.

    A part with a ``title``, as the code of a reason has one, becomes a schema of its own.
    """
    _, found = msgspec.json.schema_components(models, ref_template=ref_template)
    titled: dict[str, Json] = {}
    for name in sorted(found):
        fields = found[name].get("properties", {})
        found[name]["properties"] = _tidied(fields, ref_template, titled)
        if "description" in found[name]:
            found[name]["description"] = _markdown(found[name]["description"])
    return {**found, **titled}


def examples(model: type[msgspec.Struct]) -> list[Json]:
    """Return the examples of a message, as builtins."""
    return [msgspec.json.decode(example.to_json()) for example in EXAMPLES[model]]


def encoded(document: Json) -> bytes:
    """Return a document as indented JSON that ends with a line feed."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _tidied(part: Any, ref_template: str, titled: dict[str, Json]) -> Any:
    """Return a part of a schema in which each titled part is a reference; collect those parts.

    Words that msgspec lists without a type get one, since generators of code ask for it.
    """
    if isinstance(part, list):
        return [_tidied(each, ref_template, titled) for each in part]
    if not isinstance(part, dict):
        return part
    if isinstance(name := part.get("title"), str):
        titled[name] = part
        return {"$ref": ref_template.format(name=name)}
    typed = {"type": "string"} if isinstance(part.get("enum"), list) else {}
    return {**typed, **{name: _tidied(each, ref_template, titled) for name, each in part.items()}}


def _markdown(docstring: str) -> str:
    """Return a docstring as the Markdown that the documents hold."""
    return inspect.cleandoc(docstring).replace("``", "`")
