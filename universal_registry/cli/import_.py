"""`ureg import`: what an export holds, put back, all or nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from universal_registry.cli.apply import located, rehearse
from universal_registry.cli.command import Example, command, result_option
from universal_registry.cli.documents import MOST, Placed, read_documents
from universal_registry.cli.foretelling import dry_run_option
from universal_registry.cli.output import json_text, write
from universal_registry.cli.session import Session, note, session, warn
from universal_registry.kernel.errors import Invalid, TooLarge

_WORTH_TELLING = 1000  # documents; fewer are done before anybody wonders


@command(
    "import",
    Example("ureg export > records.ndjson"),
    Example("ureg import records.ndjson"),
    Example("ureg export -n system | ureg import --home ./other -", "fails if a secret was sealed by another registry"),
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--strict", is_flag=True, help="Refuse fields that a kind does not declare.")
@click.option("-m", "--message", metavar="TEXT", help="Why, for the log.")
@dry_run_option()
@result_option()
def import_(files: tuple[str, ...], strict: bool, message: str | None, dry_run: bool, output: str) -> None:
    """Put back records that were exported: all of them, as one revision, or none.

    JSON, YAML or NDJSON, up to 10,000 records and 16 MiB. Unlike `apply`, it takes no heed of `meta`: the records
    become what they were, whatever they are now. Sealed secrets go back into the registry that they came from, and no
    other.
    """
    placed = _read(files)
    if not placed:
        note("no records, nothing to do")
        return
    with session() as asked:
        if dry_run:
            rehearse(asked, placed, "put", output, strict=strict)
            return
        answer = _send(asked, placed, {"strict": strict or None, "message": message})
    warn(answer["warnings"])
    if output == "json":
        write(json_text(answer, indent=2))
    counts = Counter(result["effect"] for result in answer["results"])
    said = ", ".join(f"{counts[word]} {word}" for word in ("created", "updated", "unchanged") if counts[word])
    note(f"{said}, revision {answer['revision']}")


def _read(files: tuple[str, ...]) -> list[Placed]:
    found: list[Placed] = []
    for file in files:
        where = "standard input" if file == "-" else file
        for number, value in enumerate(read_documents(file), 1):
            if isinstance(value, dict):
                value = {name: item for name, item in value.items() if name != "meta"}
            found.append(Placed(value, f"{where}, document {number}"))
        if len(found) >= _WORTH_TELLING:
            note(f"{len(found)} records read")
    if len(found) > MOST:
        raise TooLarge(
            f"{len(found)} records; one import takes {MOST}",
            hint=f"it is one revision, all or nothing: split the file, as with `split -l {MOST}`",
        )
    return found


def _send(asked: Session, placed: list[Placed], query: dict[str, Any]) -> Any:
    if len(placed) >= _WORTH_TELLING:
        note(f"importing {len(placed)} records")
    try:
        return asked.write("/v1/-/apply", [each.value for each in placed], **query)
    except Invalid as error:
        told = located(error, placed)
        if _is_of_another_registry(error, placed):
            told.hint = (
                "that secret was sealed by another registry, or for another record: import it where it was exported, "
                "or write the secret itself in its place"
            )
        raise told from None


def _is_of_another_registry(error: Invalid, placed: list[Placed]) -> bool:
    """Whether what was refused is the place of a sealed value."""
    index, path = error.data.get("index"), error.data.get("path")
    if not isinstance(index, int) or not isinstance(path, str) or not 0 <= index < len(placed):
        return False
    value = placed[index].value.get("spec")
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return isinstance(value, dict) and "$sealed" in value
