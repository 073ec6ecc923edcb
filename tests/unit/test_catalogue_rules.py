from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from universal_registry.kernel.errors import Invalid
from universal_registry.registry import compile as compiler
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.catalogue_rules import normalise
from universal_registry.registry.compile import compile_source, parse_source, write_if_possible

WRITTEN: dict[str, Any] = {
    "kinds": {
        "thing": {
            "plural": "things",
            "tier": "core",
            "family": "f",
            "doc": "a thing",
            "fields": {
                "size": {"type": "integer", "index": True},
                "box": {"type": "object", "fields": {"pin": {"type": "string", "secret": True}}},
            },
            "classifications": {
                "Plain": "plain",
                "Deep": {"doc": "deep", "parent": "Plain", "add": {"depth": "number"}},
            },
            "columns": ["size", "title"],
            "example": {"name": "a"},
        },
        "other": {
            "plural": "others",
            "tier": "extended",
            "family": "f",
            "doc": "o",
            "fields": {},
            "classifications": {"Odd": "o"},
            "example": {"name": "o"},
        },
    },
    "aliases": {"old plain": "Plain"},
    "legacy_tables": {"olds": {"kind": "thing", "classification": "Plain"}, "ties": {"becomes": "relations"}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    written = copy.deepcopy(WRITTEN)
    *way, last = path.split("/")
    at = written
    for step in way:
        at = at[step]
    at[last] = value
    return written


def test_the_sample_itself_is_good() -> None:
    made = normalise(WRITTEN, "s")
    assert made["kinds"]["thing"]["secret_paths"] == [["box", "pin"]]
    assert made["kinds"]["thing"]["example"] == {"kind": "thing", "name": "a"}
    assert made["aliases"] == {"oldplain": "Plain"}


FIELD = "kinds/thing/fields/"
CLASS = "kinds/thing/classifications/"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (FIELD + "name", "string", "thing.name: bears the name of a column"),
        (FIELD + "uid", "integer", "column of the envelope"),
        (FIELD + "kind", "string", "column of the envelope"),
        (FIELD + "rowid", "string", "column of the envelope"),
        (FIELD + "Name", "string", "small letters"),
        (FIELD + 'x" TEXT', "string", "small letters"),
        (FIELD + "x", "text", "its type is none of"),
        (FIELD + "x", {"type": "string", "requird": True}, "'requird' is none of"),
        (FIELD + "x", {"type": "string", "ref": "thng"}, "unknown kind 'thng'"),
        (FIELD + "x", {"type": "integer", "ref": "thing"}, "a reference is a string"),
        (FIELD + "x", {"type": "array"}, "says what its items are"),
        (FIELD + "x", {"type": "string", "items": "string"}, "says what its items are"),
        (FIELD + "x", {"type": "string", "fields": {}}, "only an object has fields"),
        (FIELD + "x", {"type": "string", "names": "x"}, "only an object has fields, and names of them"),
        (FIELD + "x", {"type": "integer", "pattern": "x"}, "only a string has a pattern"),
        (FIELD + "x", {"type": "string", "minimum": 1}, "only a number has"),
        (FIELD + "x", {"type": "object", "index": True}, "only a scalar has an index"),
        (FIELD + "x", {"type": "string", "secret": True, "index": True}, "a secret is a string with no index"),
        (FIELD + "x", {"type": "integer", "secret": True}, "a secret is a string"),
        (FIELD + "x", {"type": "string", "secret": True, "default": "s"}, "a secret is a string with no"),
        (FIELD + "x", {"type": "array", "items": {"type": "string", "secret": True}}, "no secret inside an array"),
        (FIELD + "x", {"type": "string", "default": 1}, "is not of the type string"),
        (FIELD + "x", {"type": "integer", "default": True}, "is not of the type integer"),
        (FIELD + "x", {"type": "string", "enum": ["a"], "default": "b"}, "its default is not in its enum"),
        ("kinds/thing/plural", "others", "also names the kind"),
        ("kinds/thing/plural", "changes", "the store has another table"),
        ("kinds/thing/plural", "x; drop", "small letters"),
        ("kinds/thing/tier", "third", "needs a tier"),
        ("kinds/thing/colour", "red", "'colour' is none of"),
        ("kinds/thing/columns", ["weight"], "the column 'weight' is no field"),
        ("kinds/thing/columns", ["box"], "holds a secret"),
        (CLASS + "plain", "again", "CamelCase"),
        (CLASS + "PLain", "again", "thing has that classification"),
        (CLASS + "Odd", "twice", "other.Odd: thing has that classification"),
        (CLASS + "Deep/parent", "Odd", "its parent 'Odd'"),
        (CLASS + "Deep/parent", "Deep", "its parent 'Deep'"),
        (CLASS + "Deep/add", {"size": "string"}, "thing declares 'size' already"),
        ("aliases/x", "Nothing", "unknown classification 'Nothing'"),
        ("aliases/odd", "Plain", "leads to Odd already"),
        ("aliases/Old-Plain", "Deep", "leads to Plain already"),
        ("legacy_tables/olds", {"kind": "thng"}, "unknown kind 'thng'"),
        ("legacy_tables/olds", {"kind": "other", "classification": "Plain"}, "is not a classification of other"),
        ("legacy_tables/olds", {}, "needs a kind"),
        ("kinds", [], "must be a mapping"),
    ],
)
def test_a_broken_rule_is_named_with_its_place(path: str, value: Any, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        normalise(changed(path, value), "s")
    assert said in caught.value.message
    assert caught.value.message.startswith("catalogue: ")


def test_a_child_inherits_what_all_above_it_add() -> None:
    written = changed(CLASS + "Plain", {"doc": "p", "add": {"width": "number"}})
    written["kinds"]["thing"]["classifications"]["Deeper"] = {"doc": "d", "parent": "Deep", "add": {"far": "number"}}
    added = {
        each["name"]: [field["name"] for field in each["fields"]]
        for each in normalise(written, "s")["kinds"]["thing"]["classifications"]
    }
    assert added == {"Plain": ["width"], "Deep": ["width", "depth"], "Deeper": ["width", "depth", "far"]}


def test_parents_in_a_circle_are_refused() -> None:
    written = changed(CLASS + "Plain", {"doc": "p", "parent": "Deep"})
    with pytest.raises(Invalid, match="or below it"):
        normalise(written, "s")


@pytest.mark.parametrize("text", [b"a: [", b"\xff", b"a: 1\na: 2\n", b"kinds: {}", b"- list", b""])
def test_what_is_no_catalogue_is_refused(text: bytes) -> None:
    with pytest.raises(Invalid, match="catalogue: "):
        compile_source(text)


def test_words_that_older_yaml_took_for_booleans_stay_words() -> None:
    assert parse_source(b"[no, on, yes, 2024-01-01]")[:3] == ["no", "on", "yes"]


def test_the_compiled_file_is_what_the_source_compiles_to() -> None:
    load_catalogue()  # makes it, where it is not there
    made = compile_source(compiler.SOURCE.read_bytes())
    assert made == compiler.COMPILED.read_bytes(), "the rules changed: raise COMPILED_FORMAT"


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "catalogue.json"
    target.mkdir()
    assert write_if_possible(target, b"{}") is False
    assert [path.name for path in tmp_path.iterdir()] == ["catalogue.json"]


def test_the_command_compiles_checks_and_explains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    source = tmp_path / "catalogue.yaml"
    source.write_bytes(compiler.SOURCE.read_bytes())
    monkeypatch.setattr(compiler, "SOURCE", source)
    monkeypatch.setattr(compiler, "COMPILED", tmp_path / "catalogue.json")
    assert compiler.main(["--check"]) == 1
    assert "out of date: run" in capsys.readouterr().err
    assert compiler.main([]) == 0
    assert compiler.main(["--check"]) == 0
    source.write_bytes(b"kinds: []")
    assert compiler.main([]) == 1
    assert capsys.readouterr().err == "catalogue: kinds: must be a mapping\n"
    assert compiler.main(["--chek"]) == 2
    assert "usage:" in capsys.readouterr().err


def test_the_compiler_needs_only_yaml_beside_the_standard_library() -> None:
    code = (
        "import sys\nfor name in ('msgspec', 'orjson', 'apsw', 'cryptography', 'aiohttp'): sys.modules[name] = None\n"
        "from universal_registry.registry.compile import SOURCE, compile_source\ncompile_source(SOURCE.read_bytes())\n"
    )
    root = Path(compiler.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
