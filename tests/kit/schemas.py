"""An independent check of JSON against a schema: the package ``jsonschema``, not ours."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, TypeAlias

from jsonschema import Draft7Validator, FormatChecker

Json: TypeAlias = dict[str, Any]

WRONG: tuple[Any, ...] = (None, True, -1.5, "", [], {})


class Schema:
    """One draft-07 schema, with formats checked. ``within`` is the document of its references."""

    def __init__(self, schema: Json, within: Json | None = None) -> None:
        whole = schema if within is None else {**within, **schema}
        Draft7Validator.check_schema(whole)
        self._validator = Draft7Validator(whole, format_checker=FormatChecker())

    def takes(self, message: Any) -> bool:
        """Return whether a message is valid."""
        return bool(self._validator.is_valid(message))

    def check(self, message: Any) -> None:
        """Assert that a message is valid."""
        errors = [f"{error.json_path}: {error.message}" for error in self._errors(message)]
        assert not errors, (errors, message)

    def _errors(self, message: Any) -> Iterator[Any]:
        return iter(self._validator.iter_errors(message))


def component(document: Json, name: str) -> Schema:
    """Return one schema of an AsyncAPI or OpenAPI document."""
    return Schema({"$ref": f"#/components/schemas/{name}"}, {"components": document["components"]})


def without_each(message: Json, required: list[str]) -> Iterator[Json]:
    """Yield the message without each of its required fields."""
    for name in required:
        yield {field: value for field, value in message.items() if field != name}


def with_wrong_types(message: Json, schema: Json) -> Iterator[Json]:
    """Yield the message with values of types that a field does not take, for each of its fields.

    The types are found by the field's own schema alone, without its other rules.
    """
    for name, field in schema["properties"].items():
        allowed = _types(field)
        for wrong in WRONG:
            if name in message and not _is_one_of(wrong, allowed):
                changed = deepcopy(message)
                changed[name] = wrong
                yield changed


def _types(field: Json) -> set[str]:
    if "$ref" in field:
        return {"string"} if field["$ref"].endswith("ReasonCode") else {"object"}
    if "type" in field:
        return {field["type"]}
    return set().union(*map(_types, field["anyOf"]))


def _is_one_of(value: Any, types: set[str]) -> bool:
    names = {
        type(None): "null", bool: "boolean", float: "number", str: "string", list: "array",
        dict: "object",
    }  # fmt: skip
    return names[type(value)] in types
