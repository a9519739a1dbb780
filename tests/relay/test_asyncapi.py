"""``spotd schema asyncapi``: whole, with valid examples, and true of what the relay takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.keys import Keys
from spotd.relay import asyncapi, protocol
from spotd.relay.close_codes import CLOSE_CODES
from spotd.relay.protocol import Problem
from tests.kit.npm import asked_for, node
from tests.kit.schemas import component
from tests.relay.test_openapi import references

DOCUMENT = json.loads(asyncapi.document())
MESSAGES = DOCUMENT["components"]["messages"]
CONTRACT = (Path(__file__).parents[2] / "docs/contract.md").read_text()
PARSE = Path(__file__).parent / "js" / "parse_asyncapi.cjs"
PARSER = "@asyncapi/parser@3.6.6"


def found(reference: str) -> Any:
    """Return what a reference leads to."""
    part = DOCUMENT
    for name in reference.removeprefix("#/").split("/"):
        part = part[name]
    return part


def test_every_reference_leads_somewhere() -> None:
    """Each ``$ref``, of channels too, leads to a part of the document."""
    for reference in references(DOCUMENT):
        assert found(reference), reference


def test_the_channels_are_those_of_the_contract() -> None:
    """The addresses are those of the default prefixes."""
    keys = Keys()
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert addresses == {keys.channel("{symbol}"), keys.events, keys.wake, "/ws"}


@pytest.mark.parametrize("name", sorted(set(MESSAGES) - {"Wake"}))
def test_examples_are_valid(name: str) -> None:
    """Each message has examples, by its own schema."""
    schema = component(DOCUMENT, name)
    assert MESSAGES[name]["examples"]
    for example in MESSAGES[name]["examples"]:
        schema.check(example["payload"])


def test_the_websocket_has_every_message_of_the_contract() -> None:
    """By type or action, as the tables and examples of section 8 name them; and no other."""
    section = CONTRACT.partition("### Messages of the client")[2]
    client, _, relay = section.partition("### Messages of the relay")
    rows = relay.partition("\nA relay does not")[0]
    named = set(re.findall(r'"action":"(\w+)"', client))
    named |= set(re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE))
    told = set()
    for name in DOCUMENT["channels"]["websocket"]["messages"]:
        properties = DOCUMENT["components"]["schemas"][name]["properties"]
        field = "action" if "action" in properties else "type"
        told |= set(properties.get(field, {"enum": []})["enum"])
    assert told == named


def test_the_websocket_names_every_close_code() -> None:
    """With what each asks of the client."""
    text = DOCUMENT["channels"]["websocket"]["description"]
    for code in CLOSE_CODES:
        assert f"| {code.code} | {code.reason} |" in text


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2_000) | st.floats(-5, 2_000) | st.text("aS1"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=2),
    max_leaves=4,
)
ACTIONS = ["subscribe", "unsubscribe", "ping"]
ENTRIES = st.lists(st.sampled_from(["SPY", "spy ", "*"]), max_size=3)
CLIENT_MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from([*ACTIONS, "buy"]) | JSON_VALUES,
        "symbols": ENTRIES | JSON_VALUES,
        "batch": st.booleans() | JSON_VALUES,
        "max_hz": st.floats(0, 2_000) | JSON_VALUES,
        "id": JSON_VALUES,
    },
)
FROM_CLIENT = [component(DOCUMENT, name.capitalize()) for name in ACTIONS]


@given(CLIENT_MESSAGES)
def test_the_relay_takes_what_the_document_allows(message: Any) -> None:
    """The relay takes a message exactly where the document does."""
    taken = not isinstance(protocol.parse(json.dumps(message).encode()), Problem)
    assert taken == any(schema.takes(message) for schema in FROM_CLIENT)


@asked_for
@pytest.mark.timeout(300)
def test_the_parser_of_asyncapi_takes_it() -> None:
    """It finds no error and no warning, and it sees schemas and references that are wrong."""
    whole = node(PARSE, PARSER, json.dumps(DOCUMENT))
    assert whole == {"version": "3.0.0", "found": []}

    broken = json.loads(json.dumps(DOCUMENT))
    broken["components"]["schemas"]["Gap"]["properties"]["symbols"]["type"] = "three"
    broken["channels"]["wake"]["servers"] = [{"$ref": "#/servers/kafka"}]
    told = node(PARSE, PARSER, json.dumps(broken))["found"]
    assert any(each.startswith("components.schemas.Gap.properties.symbols") for each in told)
    assert any(each.startswith("channels.wake.servers") for each in told)
