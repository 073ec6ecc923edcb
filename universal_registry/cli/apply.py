"""`ureg apply`: records from files, all or nothing."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import click

from universal_registry.cli.command import Example, command
from universal_registry.cli.documents import Placed, gather, operations
from universal_registry.cli.foretelling import EFFECTS, dry_run_option, foretell, show
from universal_registry.cli.output import json_text, tell, write
from universal_registry.cli.records import key_text
from universal_registry.cli.session import Session, note, session, warn
from universal_registry.client.http import quote
from universal_registry.kernel.errors import Invalid, RegistryError, UsageError

_MOST_LISTED = 20
_NUMBERED = re.compile(r"^operation \d+: ")


@command(
    "apply",
    Example("ureg apply -f records.yaml"),
    Example("ureg apply -f ./records", "every .yaml, .json and .ndjson below a folder"),
    Example("ureg get alias gs -o yaml | ureg apply -f -", "changes nothing"),
    Example("ureg apply -f ./records --set team --prune", "and delete what has left the files since"),
)
@click.option("-f", "--file", "files", multiple=True, required=True, metavar="FILE", help="A file, a folder, or -.")
@click.option("--merge", is_flag=True, help="Keep what the documents do not mention.")
@click.option("--set", "set_name", metavar="NAME", help="Remember them as the records that the set NAME has made.")
@click.option("--prune", is_flag=True, help="Delete what the set has made before and the files do not hold.")
@click.option("--strict", is_flag=True, help="Refuse fields that a kind does not declare.")
@click.option("-m", "--message", metavar="TEXT", help="Why, for the log.")
@dry_run_option()
@click.option("-v", "--verbose", is_flag=True, help="Name each record, also above 20.")
@click.option("-o", "--output", type=click.Choice(("text", "json", "ndjson")), default="text", help="The form.")
def apply(
    files: tuple[str, ...],
    merge: bool,
    set_name: str | None,
    prune: bool,
    strict: bool,
    message: str | None,
    dry_run: bool,
    verbose: bool,
    output: str,
) -> None:
    """Create or replace records from files: all of them, as one revision, or none.

    YAML, JSON and NDJSON, with any number of documents, up to 10,000 in all. `meta.revision` in a document makes it
    apply to that revision only. Above 20 records only their numbers are told. A set counts as one of the 10,000, and
    so does each record that --prune deletes; nothing is deleted that another set has made too.
    """
    path = _path(set_name, prune=prune)
    placed = gather(files)
    if not placed and prune:
        raise UsageError("no documents, so that all of the set would be deleted", hint="ureg delete KIND NAME...")
    if not placed:
        note("no documents, nothing to do")
        return
    query = {"mode": "merge" if merge else None, "strict": strict or None, "prune": prune or None}
    with session() as asked:
        if dry_run and set_name is None:
            rehearse(asked, placed, "merge" if merge else "put", output, strict=strict)
            return
        answer = _send(asked, path, placed, {**query, "dry_run": dry_run or None, "message": message})
    if dry_run:
        show(answer, output)
        return
    warn(answer["warnings"])
    if output == "json":
        write(json_text(answer, indent=2))
    else:
        _show(answer, output, verbose=verbose)
    counts = Counter(result["effect"] for result in answer["results"])
    said = ", ".join(f"{counts[word]} {word}" for word in EFFECTS if counts[word])
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


def _path(set_name: str | None, *, prune: bool) -> str:
    if set_name is None:
        if prune:
            raise UsageError("--prune is given without --set", hint="--set NAME says whose records may be deleted")
        return "/v1/-/apply"
    return f"/v1/-/apply-sets/{quote(set_name)}"


def _send(asked: Session, path: str, placed: list[Placed], query: dict[str, Any]) -> Any:
    try:
        return asked.write(path, [each.value for each in placed], **query)
    except Invalid as error:
        raise located(error, placed) from None


def located(error: Invalid, placed: list[Placed]) -> RegistryError:
    """The error with the place of the document that it is about."""
    index = error.data.get("index")
    if not isinstance(index, int) or not 0 <= index < len(placed):
        return error
    return Invalid(f"{placed[index].place}: {_NUMBERED.sub('', error.message)}", hint=error.hint)
