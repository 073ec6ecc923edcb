"""What a studio's tools take, the URIs of records, and what is written into the configurations of AI clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from universal_registry.kernel.errors import Invalid, Malformed, NotFound, RegistryError
from universal_registry.kernel.ids import Key
from universal_registry.studio.clients import CLIENTS, changed
from universal_registry.studio.resources import key_of, uri_of
from universal_registry.studio.tools import TOOLS, tool

CURSOR = CLIENTS["cursor"]
ENTRY = CURSOR.entry(("ureg", "studio", "serve"), {"REGISTRY_HOME": "/home"})


@pytest.mark.parametrize("each", TOOLS, ids=lambda each: each.name)
def test_a_tool_s_schema_and_what_it_takes_are_one(each: Any) -> None:
    jsonschema_rs.meta.validate(each.schema())
    assert each.schema()["type"] == "object"
    for arguments in ({"surely_not": 1}, {"name": 5}, {"limit": 0}, {"limit": "1"}, {"documents": {}}, {"words": []}):
        assert not jsonschema_rs.is_valid(each.schema(), arguments)
        with pytest.raises(Invalid, match=each.name):
            each.read(arguments)


def test_whatever_writes_only_foretells_until_it_is_told_otherwise() -> None:
    writing = [each for each in TOOLS if not each.reads]
    assert [each.name for each in writing] == ["apply", "propagate"]
    for each in writing:
        assert each.schema()["properties"]["dry_run"]["default"] is True
        assert each.reaches_out


def test_a_tool_that_is_not_there_is_named_with_a_near_one() -> None:
    with pytest.raises(NotFound, match="'serach'") as caught:
        tool("serach", TOOLS)
    assert caught.value.hint == "did you mean 'search'?"


@given(st.builds(Key, st.sampled_from(["alias", "env_var"]), st.sampled_from(["default", "ops"]), st.text(min_size=1)))
def test_a_record_has_one_uri_and_a_uri_one_record(key: Key) -> None:
    try:
        uri = uri_of(*key)
    except Invalid:  # a lone surrogate: no record is called that
        return
    assert uri.isascii()
    assert key_of(uri) == key


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "registry://",
        "registry://alias",
        "registry://alias/",
        "registry:///gs",
        "https://alias/gs",
        "file:///etc/passwd",
        "registry://alias/gs?space=ops",
        "registry://alias/gs?namespace=a&namespace=b",
        "registry://alias/gs#x",
        "registry://alias/%FF",
        "registry://[/gs",
    ],
)
def test_what_is_no_record_s_uri_is_refused(uri: str) -> None:
    with pytest.raises(Invalid):
        key_of(uri)


def test_the_server_is_added_and_everything_else_stays() -> None:
    before = (
        '{\n    "theme": "dark",\n    "mcpServers": {"other": {"command": "x", "env": {"KEY": "hush"}}},\n    "é": 1\n}'
    )
    after = changed(before, CURSOR, "universal-registry", ENTRY)
    assert after is not None
    kept = json.loads(after)
    assert kept["mcpServers"].pop("universal-registry") == ENTRY
    assert kept == json.loads(before)
    assert "é" in after
    assert '\n    "theme"' in after  # indented as it was
    assert changed(after, CURSOR, "universal-registry", ENTRY) is None
    gone = changed(after, CURSOR, "universal-registry", None)
    assert gone is not None
    assert json.loads(gone) == json.loads(before)
    assert changed(before, CURSOR, "universal-registry", None) is None


@pytest.mark.parametrize("text", [None, "", "  \n", "{}"])
def test_a_file_that_is_not_there_or_empty_is_begun(text: str | None) -> None:
    after = changed(text, CURSOR, "ours", ENTRY)
    assert after is not None
    assert json.loads(after) == {"mcpServers": {"ours": ENTRY}}


@pytest.mark.parametrize(
    "text",
    ['{"mcpServers": ', "[]", '{"mcpServers": []}', '{"a": 1, "a": 2}', '{ // comment\n "a": 1}', "null", '{"a": NaN}'],
)
def test_a_file_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(RegistryError) as caught:
        changed(text, CURSOR, "ours", ENTRY)
    assert isinstance(caught.value, Invalid | Malformed)


def test_each_client_has_its_place_on_either_system() -> None:
    home = Path("/home/me")
    for each in CLIENTS.values():
        for darwin in (False, True):
            assert home in each.path(home, home / ".config", darwin=darwin).parents
    code = CLIENTS["vscode"]
    assert code.path(home, Path("/x"), darwin=False) == Path("/x/Code/User/mcp.json")
    assert code.path(home, Path("/x"), darwin=True) == home / "Library/Application Support/Code/User/mcp.json"
    assert code.entry(("ureg",), {})["type"] == "stdio"
