"""`ureg apply`: records from files, all or nothing."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import click

from universal_registry.cli.command import Example, command
from universal_registry.cli.documents import Placed, gather, operations
from universal_registry.cli.foretelling import dry_run_option, foretell
from universal_registry.cli.output import json_text, tell, write
from universal_registry.cli.records import key_text
from universal_registry.cli.session import Session, note, session, warn
from universal_registry.kernel.errors import Invalid, RegistryError

_MOST_LISTED = 20
_NUMBERED = re.compile(r"^operation \d+: ")


@command(
    "apply",
    Example("ureg apply -f records.yaml"),
    Example("ureg apply -f ./records", "every .yaml, .json and .ndjson below a folder"),
    Example("ureg get alias gs -o yaml | ureg apply -f -", "changes nothing"),
)
@click.option("-f", "--file", "files", multiple=True, required=True, metavar="FILE", help="A file, a folder, or -.")
@click.option("--merge", is_flag=True, help="Keep what the documents do not mention.")
@click.option("--strict", is_flag=True, help="Refuse fields that a kind does not declare.")
@click.option("-m", "--message", metavar="TEXT", help="Why, for the log.")
@dry_run_option()
@click.option("-v", "--verbose", is_flag=True, help="Name each record, also above 20.")
@click.option("-o", "--output", type=click.Choice(("text", "json", "ndjson")), default="text", help="The form.")
def apply(
    files: tuple[str, ...], merge: bool, strict: bool, message: str | None, dry_run: bool, verbose: bool, output: str
) -> None:
    """Create or replace records from files: all of them, as one revision, or none.

    YAML, JSON and NDJSON, with any number of documents, up to 10,000 in all. `meta.revision` in a document makes it
    apply to that revision only. Above 20 records only their numbers are told.
    """
    placed = gather(files)
    if not placed:
        note("no documents, nothing to do")
        return
    with session() as asked:
        if dry_run:
            rehearse(asked, placed, "merge" if merge else "put", output, strict=strict)
            return
        answer = _send(asked.write, placed, {"mode": "merge" if merge else None, "strict": strict or None}, message)
    warn(answer["warnings"])
    if output == "json":
        write(json_text(answer, indent=2))
    else:
        _show(answer, output, verbose=verbose)
    counts = Counter(result["effect"] for result in answer["results"])
    said = ", ".join(f"{counts[word]} {word}" for word in ("created", "updated", "unchanged") if counts[word])
    note(f"{said}, revision {answer['revision']}")


def rehearse(asked: Session, placed: list[Placed], op: str, output: str, *, strict: bool) -> bool:
    """Show what applying would change; whether that is anything. Raises Invalid naming the document."""
    try:
        return foretell(asked, operations(placed, op), output, strict=strict)
    except Invalid as error:
        raise located(error, placed) from None


def _show(answer: dict[str, Any], output: str, *, verbose: bool) -> None:
    """What became of each record: all of them as NDJSON, those that changed in words, unless they are too many."""
    if output == "ndjson":
        for result in answer["results"]:
            write(json_text(result))
        return
    changed = [result for result in answer["results"] if result["effect"] != "unchanged"]
    if verbose or len(answer["results"]) <= _MOST_LISTED:
        for result in changed:
            tell(f"{key_text(result)} {result['effect']}, revision {answer['revision']}")


def _send(post: Any, placed: list[Placed], query: dict[str, Any], message: str | None) -> Any:
    try:
        return post("/v1/-/apply", [each.value for each in placed], message=message, **query)
    except Invalid as error:
        raise located(error, placed) from None


def located(error: Invalid, placed: list[Placed]) -> RegistryError:
    """The error with the place of the document that it is about."""
    index = error.data.get("index")
    if not isinstance(index, int) or not 0 <= index < len(placed):
        return error
    return Invalid(f"{placed[index].place}: {_NUMBERED.sub('', error.message)}", hint=error.hint)
