"""Writes docs/reference/kinds.md from the catalogue: `python -m universal_registry.registry.reference [--check]`."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

from universal_registry.registry.catalogue import Catalogue, Classification, Field, Kind, load_catalogue

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "kinds.md"
_INTRODUCTION = """\
# Kinds of record

Written from `universal_registry/registry/catalogue.yaml` by `make docs`; change that file, not this page.

{kinds} kinds ({core} core, {extended} extended) with {classes} classifications. Each kind is a table named by its
plural, which `sqlite3` and every other reader of SQLite can query: its columns are the envelope
({envelope}) and the fields below, save those that are or hold a secret. Read with SQL, write through a front.
A column whose name is a word of SQL (`"exists"`, `"order"`) stands in double quotes.

Fields that are not listed are kept, with a warning; a strict kind, and `--strict`, refuse them. A field bearing
**required** must be there; all others may be left out. A default is what a reader should assume: it is not written.
A secret is sealed where it is stored and printed as `{{$secret: kept}}`.
A query for a classification also finds those that stand below it.
"""


def render(catalogue: Catalogue) -> str:
    """The page, as Markdown."""
    from universal_registry.registry.words import ENVELOPE

    kinds = list(catalogue.kinds.values())
    core = sum(kind.tier == "core" for kind in kinds)
    parts = [
        _INTRODUCTION.format(
            kinds=len(kinds),
            core=core,
            extended=len(kinds) - core,
            classes=sum(len(kind.classifications) for kind in kinds),
            envelope=", ".join(f"`{column}`" for column in ENVELOPE),
        ),
        _contents(kinds),
        *(_kind(kind) for kind in kinds),
        _older_names(catalogue),
    ]
    return "\n".join(parts)


def _contents(kinds: list[Kind]) -> str:
    families = dict.fromkeys(kind.family for kind in kinds)
    lines = ["| family | kinds |", "|---|---|"]
    for family in families:
        links = (f"[{kind.name}](#{kind.name})" for kind in kinds if kind.family == family)
        lines.append(f"| {family} | {', '.join(links)} |")
    return "\n".join(lines) + "\n"


def _kind(kind: Kind) -> str:
    strict = " Strict: other fields are refused." if kind.strict else ""
    lines = [f"## {kind.name}", "", f"{kind.doc[0].upper()}{kind.doc[1:]}. Table `{kind.plural}`, {kind.tier}.{strict}"]
    lines += ["", "| field | type | meaning |", "|---|---|---|"]
    for field in kind.fields:
        lines += _field_rows(field, "")
    lines += ["", "| classification | meaning | adds |", "|---|---|---|"]
    lines += [_class_row(kind, each) for each in kind.classifications]
    lines += ["", f"`ureg get {kind.plural}` prints: name, {', '.join(kind.columns)}.", "", "```yaml"]
    lines += [_yaml(kind.example).rstrip(), "```", ""]
    return "\n".join(lines)


def _field_rows(field: Field, prefix: str) -> list[str]:
    path = f"{prefix}{field.name}"
    rows = [f"| `{path}` | {_type(field)} | {_meaning(field)} |"]
    inner, prefix = (field.items.fields, f"{path}[].") if field.items is not None else (field.fields, f"{path}.")
    for each in inner:
        rows += _field_rows(each, prefix)
    return rows


def _type(field: Field) -> str:
    if field.secret:
        return "secret string"
    inner = field.items
    if inner is None:
        text = field.type.value
    else:
        text = f"array of {inner.type.value}s" if inner.type.value != "any" else "array"
    refs = inner.refs if inner is not None else field.refs
    return text + (f", naming {' or '.join(map(_a, refs))}" if refs else "")


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _meaning(field: Field) -> str:
    notes = [field.doc]
    if field.required:
        notes.append("**required**")
    if field.enum:
        notes.append("one of " + ", ".join(f"`{word}`" for word in field.enum))
    if field.pattern is not None:
        notes.append(f"matches `{field.pattern}`")
    if field.names is not None:
        notes.append(f"names match `{field.names}`")
    if field.minimum is not None or field.maximum is not None:
        notes.append(_range(field.minimum, field.maximum))
    if field.default is not None:
        notes.append(f"default `{str(field.default).lower() if isinstance(field.default, bool) else field.default}`")
    if field.index:
        notes.append("indexed")
    if field.merge:
        notes.append("peers merge its items")
    return _cell("; ".join(note for note in notes if note))


def _range(low: int | None, high: int | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def _class_row(kind: Kind, each: Classification) -> str:
    parent = kind.classes_by_name[each.parent] if each.parent else None
    below = f"; below {parent.name}" if parent else ""
    inherited = parent.by_name if parent else {}
    added = [f"`{f.name}` ({_type(f)}): {_meaning(f)}" for f in each.fields if f.name not in inherited]
    return f"| {each.name} | {_cell(each.doc)}{below} | {'<br>'.join(added)} |"


def _older_names(catalogue: Catalogue) -> str:
    lines = ["## Older names", "", "Words of older registries that lead to a classification; case, spaces, hyphens and"]
    lines += ["underscores do not matter.", "", "| word | classification |", "|---|---|"]
    lines += [f"| {word} | {name} |" for word, name in catalogue.aliases.items()]
    lines += ["", "Tables of older databases, and what their rows become.", "", "| table | becomes |", "|---|---|"]
    for table in catalogue.legacy_tables.values():
        home = f"{table.kind} {table.classification or ''}".rstrip() if table.kind else ""
        what = home if table.becomes == "records" else table.becomes + (f", as {home}" if home else "")
        lines.append(f"| {table.name} | {what} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _yaml(document: dict[str, Any]) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.width = 110
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def main(arguments: list[str]) -> int:
    """Writes the page, or with `--check` says whether it is up to date. Returns the exit code."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m universal_registry.registry.reference [--check]", file=sys.stderr)
        return 2
    page = render(load_catalogue())
    if not arguments:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        print(f"{PAGE.name} is out of date: run make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
