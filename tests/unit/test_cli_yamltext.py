"""What is written as YAML is read back by the strict loader as the same value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from universal_registry.cli.yamltext import yaml_text
from universal_registry.kernel.loader import load_yaml

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
AMBIGUOUS = ["", "no", "Null", "~", "1.0", "0x1F", "1e3", ".5", "- a", "a: b", "a #b", "#", "|", "@x", "%", "!t", "&a"]
ODD = [
    "*a",
    "'",
    '"',
    "\\",
    "=",
    "<<",
    "?",
    "---",
    "...",
    "2020-01-01",
    "12:30",
    "_",
    "\u2028",
    "\x85",
    "\x7f",
    "\u202e",
]
LINES = ["a\nb", "a\n", "a\n\n", "\na", " a\nb", "a\n  b\n", "a\r\nb", "a\tb", "\ta\nb", "a \n b ", "\ufeff", "🦊", " "]
TRICKY = st.sampled_from([*AMBIGUOUS, *ODD, *LINES])
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | TEXT | TRICKY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | TRICKY, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_it_is_read_back_as_the_same_value(value: Any) -> None:
    document = {"value": value}
    assert load_yaml(yaml_text(document)) == [document]


def test_a_key_of_any_length_is_read_back() -> None:
    document = {"k" * 5000: {"é" * 600: 1}}
    assert load_yaml(yaml_text(document)) == [document]


def test_it_reads_well() -> None:
    shown = yaml_text({"kind": "alias", "spec": {"command": "git status -sb", "size": "1", "list": ["a", {"b": 1}]}})
    assert shown == ('kind: alias\nspec:\n  command: git status -sb\n  size: "1"\n  list:\n    - a\n    - b: 1\n')
    assert yaml_text({"body": "one\n  two\n"}) == "body: |\n  one\n    two\n"
    assert yaml_text({"a": {}, "b": [], "c": None}) == "a: {}\nb: []\nc: null\n"


@pytest.mark.parametrize("text", ["yes", "off", "true", "null", "1", "1.0", "-rf", "a: b", ""])
def test_what_could_be_misread_is_quoted(text: str) -> None:
    assert yaml_text({"a": text}) == f'a: "{text}"\n'
