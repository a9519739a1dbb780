"""The JSON Schemas: valid, told in words, as strict as the contract and no stricter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from spotd.examples import UPDATE
from spotd.json_schema import MESSAGES, draft_07, encoded
from spotd.models import MAX_SEQ, SpotPriceUpdate
from spotd.reasons import MEANINGS
from tests.kit.schemas import Json, Schema, with_wrong_types, without_each
from tests.test_pydantic_models import UPDATES

SCHEMAS = {name: json.loads(encoded(draft_07(model))) for name, model in MESSAGES.items()}
VALIDATORS = {name: Schema(schema) for name, schema in SCHEMAS.items()}
EXAMPLES = [(name, example) for name in SCHEMAS for example in SCHEMAS[name]["examples"]]
CONTRACT = (Path(__file__).parent.parent / "docs/contract.md").read_text()


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_examples_are_valid(name: str, example: Json) -> None:
    """Each example is valid, also by the format of its times."""
    VALIDATORS[name].check(example)


def test_the_example_of_the_contract_is_ours() -> None:
    """The update that the contract shows is the schema's example, byte for byte."""
    assert f"\n{UPDATE.to_json().decode()}\n" in CONTRACT


@given(UPDATES)
def test_every_update_is_valid(update: SpotPriceUpdate) -> None:
    """An update is valid whatever its prices, its time and its number are."""
    VALIDATORS["update"].check(json.loads(update.to_json()))


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_fields_and_codes_may_be_added(name: str, example: Json) -> None:
    """What a newer spotd adds is valid, also in what a message holds."""
    newer = {**example, "venue": {"name": "IEX"}}
    if name != "update":
        newer["code"] = "a_code_of_2030"
    if name == "status":
        newer["symbols"] = {**example["symbols"], "sleeping": 1}
    VALIDATORS[name].check(newer)


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_nothing_may_be_missing(name: str, example: Json) -> None:
    """A message without any one of its required fields is not valid."""
    found = list(without_each(example, SCHEMAS[name]["required"]))
    assert len(found) >= 5
    assert not any(map(VALIDATORS[name].takes, found))


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_wrong_types_are_refused(name: str, example: Json) -> None:
    """A value of a wrong type is refused in every field."""
    found = list(with_wrong_types(example, SCHEMAS[name]))
    assert len(found) > 3 * len(example)
    assert [message for message in found if VALIDATORS[name].takes(message)] == []


NOT_TIMES = [
    "2026-01-20T05:12:00Z",
    "2026-01-20T05:12:00.000Z",
    "2026-01-20T05:12:00.000000+00:00",
    "2026-01-20T05:12:00.000000",
    "2026-13-20T05:12:00.000000Z",
    "2026-01-20 05:12:00.000000Z",
    "2026-01-20T05:12:00.000000Z\n",
    "2026-01-2\u0660T05:12:00.000000Z",
    "now",
]


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("update", "symbol", ["spy", " SPY", "", "SPY-B", "ABCDEFGHI", "BRK.ABCDE", "*", "SPY\n"]),
        ("update", "bid_price", [0, -1, "421.35"]),
        ("update", "ask_price", [0, -0.01]),
        ("update", "mid_price", [-0.01]),
        ("update", "last_price", [0, -1, "421.35"]),
        ("update", "timestamp", NOT_TIMES),
        ("update", "seq", [-1, 1.5, MAX_SEQ + 1, "1"]),
        ("state", "type", ["daemon", "Symbol"]),
        ("state", "symbol", ["S" * 65]),
        ("state", "state", ["alive", "Live", "streaming"]),
        ("state", "code", ["", "Mute", "no daemon", "9", "mute\n"]),
        ("state", "since", NOT_TIMES),
        ("status", "type", ["symbol"]),
        ("status", "state", ["live", "absent"]),
        ("status", "breaker", ["half-open"]),
        ("status", "market", ["night"]),
        ("status", "symbols", [{"desired": -1}, {"live": "2"}]),
        ("status", "quotes_received", [-1, 0.5]),
        ("status", "at", NOT_TIMES),
        ("status", "market_changes_at", NOT_TIMES),
        ("gap", "type", ["Gap"]),
        ("gap", "from", NOT_TIMES),
        ("gap", "to", NOT_TIMES),
        ("gap", "symbols", [-1, 2.5]),
    ],
)
def test_values_against_the_contract_are_refused(name: str, field: str, values: list[Any]) -> None:
    """Each of them alone makes a valid message wrong."""
    [example, *_] = SCHEMAS[name]["examples"]
    taken = [value for value in values if VALIDATORS[name].takes({**example, field: value})]
    assert taken == []


def parts(schema: Any) -> list[Json]:
    """Return all fields that a schema describes, also those of what it holds."""
    definitions = schema.get("definitions", {}).values()
    found = [{"name": name, **field} for name, field in schema.get("properties", {}).items()]
    return found + [part for each in definitions for part in parts(each)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_is_told_in_words(name: str) -> None:
    """Every field has words, but for `type` and the numbers of symbols by state."""
    plain = {"type", "symbols", "desired", "live", "pending", "stale", "halted"}
    silent = [part["name"] for part in parts(SCHEMAS[name]) if "description" not in part]
    assert set(silent) <= plain
    assert SCHEMAS[name]["description"]
    assert SCHEMAS[name]["$schema"] == "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize("name", ["state", "status", "gap"])
def test_every_code_is_told_in_words(name: str) -> None:
    """Each code of ``spotd.reasons`` has its meaning; the last entry says that others may come."""
    *known, other = SCHEMAS[name]["definitions"]["ReasonCode"]["anyOf"]
    assert {each["const"]: each["description"] for each in known} == {
        code: told.meaning for code, told in MEANINGS.items()
    }
    assert "newer" in other["description"]
