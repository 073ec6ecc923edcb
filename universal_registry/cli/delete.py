"""`ureg delete`: remove records."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Example, command, namespace_option, result_option
from universal_registry.cli.foretelling import dry_run_option, foretell, operation
from universal_registry.cli.output import json_text, tell, write
from universal_registry.cli.records import find_elsewhere, key_text, kind_of, split_reference
from universal_registry.cli.session import Session, note, session
from universal_registry.client.http import record_path
from universal_registry.kernel.errors import NotFound, UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE


@command(
    "delete",
    Example("ureg delete alias gs"),
    Example("ureg delete package g++ -n build-host"),
    Example("ureg delete alias old older oldest", "all or none of them"),
    Example("ureg delete path -- -rf", "a name that looks like an option"),
)
@click.argument("kind")
@click.argument("names", nargs=-1, metavar="NAME...")
@namespace_option("Where; `default` if absent.")
@click.option("--missing-ok", is_flag=True, help="No error when there is none.")
@click.option("-m", "--message", default="", metavar="TEXT", help="Why, for the log.")
@dry_run_option()
@result_option()
def delete(
    kind: str,
    names: tuple[str, ...],
    namespace: str | None,
    missing_ok: bool,
    message: str,
    dry_run: bool,
    output: str,
) -> None:
    """Remove records. Their history stays in the log."""
    if not names:
        kind, name = split_reference(kind, None)
        names = (name,) if name else ()
    if not names:
        raise UsageError("no NAME is given", hint="ureg delete KIND NAME...")
    if missing_ok and len(names) > 1:
        raise UsageError("--missing-ok is for one NAME", hint="several are removed all or none")
    with session() as asked:
        try:
            if dry_run:
                place, kind = namespace or DEFAULT_NAMESPACE, kind_of(asked, kind)["name"]
                foretell(asked, [operation("delete", kind, name, place, {}) for name in names], output)
                return
            answer = _delete(asked, kind, names, namespace or DEFAULT_NAMESPACE, missing_ok, message)
        except NotFound as error:
            if dry_run and missing_ok:
                note("nothing would change: there is none")
                return
            if namespace is None and len(names) == 1:
                raise _elsewhere(asked, kind, names[0], error) from None
            raise
    if output == "json":
        write(json_text(answer, indent=2))
        return
    for key, effect in answer["removed"]:
        tell(f"{key} {effect}, revision {answer['revision']}")


def _delete(
    asked: Session, kind: str, names: tuple[str, ...], namespace: str, missing_ok: bool, message: str
) -> dict[str, Any]:
    if len(names) > 1:
        operations = [{"op": "delete", "kind": kind, "namespace": namespace, "name": name} for name in names]
        answer = asked.write("/v1/batch", {"operations": operations, "message": message})
        return {
            "revision": answer["revision"],
            "removed": [(key_text(each), each["effect"]) for each in answer["results"]],
        }
    answer = asked.request(
        "DELETE",
        record_path(namespace, kind, names[0]),
        query={"missing_ok": True if missing_ok else None, "message": message or None},
    ).json()
    return {"revision": answer["revision"], "removed": [(f"{kind}/{namespace}/{names[0]}", answer["effect"])]}


def _elsewhere(asked: Session, kind: str, name: str, error: NotFound) -> NotFound:
    """Removing is exact; but who meant a record of another namespace is told so."""
    found = find_elsewhere(asked, kind, name)
    if not found:
        return error
    places = ", ".join(item["namespace"] for item in found[:5])
    return NotFound(error.message, hint=f"there is one in {places}: -n {found[0]['namespace']}")
