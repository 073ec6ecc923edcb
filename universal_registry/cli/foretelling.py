"""`--dry-run` and `ureg diff`: what a write would change, as the registry itself says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import click

from universal_registry.cli.command import Decorator
from universal_registry.cli.grid import escaped
from universal_registry.cli.output import Item, json_text, write
from universal_registry.cli.records import key_text
from universal_registry.cli.session import Session, note, warn

EFFECTS = ("created", "updated", "deleted", "unchanged")


def dry_run_option() -> Decorator:
    """`--dry-run` of commands that write records."""
    return click.option("--dry-run", is_flag=True, help="Show what would change, and store nothing.")


def operation(op: str, kind: str, name: str, namespace: str, more: Item, revision: int | None = None) -> Item:
    """An operation of a batch. `revision`: only if the record is at it (0: only if there is none)."""
    guard = {} if revision is None else {"meta": {"revision": revision}}
    return {"op": op, **more, "kind": kind, "namespace": namespace, "name": name, **guard}


def foretell(asked: Session, operations: Sequence[Item], output: str, *, strict: bool = False) -> bool:
    """Ask what a batch would change, and show it. Whether it would change anything."""
    return show(asked.write("/v1/-/rehearse", {"operations": list(operations), "strict": strict}), output)


def show(answer: Item, output: str) -> bool:
    """Write what a rehearsal answered: the differences as people read them, or all of it as JSON."""
    results = answer["results"]
    if output == "json":
        write(json_text(answer, indent=2))
    for result in results if output != "json" else ():
        for line in _lines(result):
            write(escaped(line))
    warn(answer["warnings"])
    counts = Counter(result["effect"] for result in results)
    told = ", ".join(f"{counts[word]} {word}" for word in EFFECTS if counts[word])
    note(f"nothing is stored; it would be: {told}, at revision {answer['revision']}")
    return any(result["effect"] != "unchanged" for result in results)


def _lines(result: Item) -> Iterator[str]:
    """A unified diff of the record's document."""
    from difflib import unified_diff

    if result["effect"] == "unchanged":
        return
    name = key_text(result)
    before, after = _text(result["before"]), _text(result["after"])
    yield f"{name} {result['effect']}"
    found = [line.rstrip("\n") for line in unified_diff(before, after, n=2)][2:]
    yield from found
    if not found:  # secrets look the same from outside
        yield f"  a secret differs: {', '.join(result['changed'])}"


def _text(document: Item | None) -> list[str]:
    from universal_registry.cli.yamltext import yaml_text

    return [] if document is None else yaml_text(document).splitlines(keepends=True)
