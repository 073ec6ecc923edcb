"""`ureg undo`, `ureg rollback`, `ureg undelete`: going back, by a new revision."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Example, command, namespace_option, result_option
from universal_registry.cli.foretelling import dry_run_option, show
from universal_registry.cli.output import json_text, tell, write
from universal_registry.cli.records import key_text, split_reference
from universal_registry.cli.session import session, warn
from universal_registry.kernel.errors import UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE

_MESSAGE = click.option("-m", "--message", default="", metavar="TEXT", help="Why, for the log.")


@command(
    "undo",
    Example("ureg undo 936", "all that revision 936 changed is again what it was"),
    Example("ureg undo 936 --dry-run"),
    Example("ureg undo 937", "an undo is a revision too"),
)
@click.argument("revision", type=click.IntRange(1), metavar="REVISION")
@_MESSAGE
@dry_run_option()
@result_option()
def undo(revision: int, message: str, dry_run: bool, output: str) -> None:
    """Put all records that a revision changed back to what they were, as one new revision. It travels like any change.

    Refused (5) when one of them was changed since: then nothing is done. `ureg rollback` goes back by single records.
    """
    _send("/v1/-/undo", {"revision": revision, "message": message, "dry_run": dry_run}, output)


@command(
    "rollback",
    Example("ureg rollback alias gs --to 936"),
    Example("ureg rollback alias/gs --to 936 --dry-run"),
    Example("ureg history alias gs", "which revisions there are"),
)
@click.argument("kind")
@click.argument("name", required=False)
@click.option("--to", type=click.IntRange(1), required=True, metavar="REVISION", help="As it was then.")
@namespace_option("Where; `default` if absent.")
@_MESSAGE
@dry_run_option()
@result_option()
def rollback(
    kind: str, name: str | None, to: int, namespace: str | None, message: str, dry_run: bool, output: str
) -> None:
    """Make a record what it was at a revision, secrets included, by a new revision: its history stays whole.

    Also of a record that was deleted since.
    """
    _send("/v1/-/rollback", {**_key(kind, name, namespace), "to": to, "message": message, "dry_run": dry_run}, output)


@command("undelete", Example("ureg undelete alias gs"), Example("ureg undelete service/pay --dry-run"))
@click.argument("kind")
@click.argument("name", required=False)
@namespace_option("Where; `default` if absent.")
@_MESSAGE
@dry_run_option()
@result_option()
def undelete(kind: str, name: str | None, namespace: str | None, message: str, dry_run: bool, output: str) -> None:
    """Bring a deleted record back as it last was, secrets included."""
    _send("/v1/-/rollback", {**_key(kind, name, namespace), "message": message, "dry_run": dry_run}, output)


def _key(kind: str, name: str | None, namespace: str | None) -> dict[str, Any]:
    kind, name = split_reference(kind, name)
    if name is None:
        raise UsageError("no NAME is given", hint="KIND NAME, or KIND/NAME")
    return {"kind": kind, "name": name, "namespace": namespace or DEFAULT_NAMESPACE}


def _send(path: str, body: dict[str, Any], output: str) -> None:
    with session() as asked:
        answer = asked.write(path, body)
    if body["dry_run"]:
        show(answer, output)
        return
    warn(answer["warnings"])
    if output == "json":
        write(json_text(answer, indent=2))
        return
    for result in answer["results"]:
        tell(f"{key_text(result)} {result['effect']}, revision {answer['revision']}")
