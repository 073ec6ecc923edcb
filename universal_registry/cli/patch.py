"""`ureg patch`: change a record by a patch document."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Example, command, namespace_option, result_option
from universal_registry.cli.foretelling import dry_run_option, foretell, operation
from universal_registry.cli.output import json_text, tell, write
from universal_registry.cli.reading import json_of
from universal_registry.cli.session import session, warn
from universal_registry.cli.set import guard
from universal_registry.client.http import record_path
from universal_registry.kernel.ids import DEFAULT_NAMESPACE

_STEPS, _MERGE = "application/json-patch+json", "application/merge-patch+json"


@command(
    "patch",
    Example("""ureg patch service pay '[{"op": "replace", "path": "/spec/port", "value": 8443}]'"""),
    Example("""ureg patch service pay '{"spec": {"port": null}}'""", "merge; null removes"),
    Example("ureg patch service pay @change.json --if-revision 936"),
)
@click.argument("kind")
@click.argument("name")
@click.argument("patch", metavar="PATCH")
@namespace_option("Where; `default` if absent.")
@click.option("--if-revision", type=click.IntRange(0), metavar="N", help="Only if the record is at this revision.")
@click.option("--strict", is_flag=True, help="Refuse fields that the kind does not declare.")
@click.option("-m", "--message", metavar="TEXT", help="Why, for the log.")
@dry_run_option()
@result_option()
def patch(
    kind: str,
    name: str,
    patch: str,
    namespace: str | None,
    if_revision: int | None,
    strict: bool,
    message: str | None,
    dry_run: bool,
    output: str,
) -> None:
    """Change a record by a JSON patch (an array of steps, RFC 6902) or a merge patch (an object, RFC 7386).

    PATCH is the text, `@FILE` or `-`. The steps of a JSON patch are done all or none, of a record that is there.
    """
    value = json_of(patch, "PATCH")
    headers = {"content-type": _MERGE if isinstance(value, dict) else _STEPS, **guard(if_revision)}
    with session() as asked:
        if dry_run:
            op, more = ("merge", value) if isinstance(value, dict) else ("patch", {"patch": value})
            made = operation(op, kind, name, namespace or DEFAULT_NAMESPACE, more, if_revision)
            foretell(asked, [made], output, strict=strict)
            return
        answer: dict[str, Any] = asked.request(
            "PATCH",
            record_path(namespace or DEFAULT_NAMESPACE, kind, name),
            query={"strict": True if strict else None, "message": message},
            json=value,
            headers=headers,
        ).json()
    warn(answer["warnings"])
    if output == "json":
        write(json_text(answer, indent=2))
        return
    record = answer["record"]
    tell(f"{record['kind']}/{record['namespace']}/{record['name']} {answer['effect']}, revision {answer['revision']}")
