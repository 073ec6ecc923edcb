"""`ureg set`: create a record, or change fields of it."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.registry.assignment import build, parse_assignment
from universal_registry.cli.command import Example, command, namespace_option, result_option
from universal_registry.cli.output import json_text, tell, write
from universal_registry.cli.records import key_text, kind_of
from universal_registry.cli.session import note, session, warn
from universal_registry.client.http import record_path
from universal_registry.kernel.errors import Invalid, UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE


@command(
    "set",
    Example("ureg set alias gs command='git status -sb'", "one field"),
    Example("ureg set service pay port=8443 class=AppService labels.tier=backend"),
    Example("ureg set function mkcd body=@mkcd.sh", "the text of a file"),
    Example("pass show pay | ureg set env_var PAY_KEY secret_value=-", "a secret, from standard input"),
    Example("ureg set service pay depends_on:='[\"db\"]' host:=null", "JSON; null removes"),
)
@click.argument("kind")
@click.argument("name")
@click.argument("fields", nargs=-1, metavar="[FIELD=VALUE]...")
@namespace_option("Where; `default` if absent.")
@click.option("--json", "spec", metavar="JSON", help="The spec, or @FILE, or - for standard input.")
@click.option(
    "-f", "--file", "file", metavar="FILE", help="A document (YAML or JSON) without kind and name; - is stdin."
)
@click.option("--class", "classification", metavar="CLASS", help="The classification.")
@click.option("--replace", is_flag=True, help="Make the record exactly this, instead of merging into it.")
@click.option("--strict", is_flag=True, help="Refuse fields that the kind does not declare.")
@click.option(
    "--if-revision", type=click.IntRange(0), metavar="N", help="Only if it is at this revision; 0: only create."
)
@click.option("-m", "--message", metavar="TEXT", help="Why, for the log.")
@result_option()
def set_(
    kind: str,
    name: str,
    fields: tuple[str, ...],
    namespace: str | None,
    spec: str | None,
    file: str | None,
    classification: str | None,
    replace: bool,
    strict: bool,
    if_revision: int | None,
    message: str | None,
    output: str,
) -> None:
    """Create a record, or change fields of it.

    A value is text, a number or true/false as the kind declares the field; items of a list stand between commas.
    `field=@FILE` takes a file's text, `field=-` standard input, `field:=JSON` a JSON value. `labels.KEY`,
    `annotations.KEY`, class, title, description, lifecycle and expires_at belong to every record.
    """
    with session() as asked:
        document = _base(spec, file)
        if fields:
            from universal_registry.cli.reading import value_text

            built = build(map(parse_assignment, fields), kind_of(asked, kind), value_text)
            for path in built.exposed:
                note(
                    f"warning: the value of {path} stood in the command line, which `ps` shows: use {path}=- or =@FILE"
                )
            _merge(document, built.document)
        if classification is not None:
            _merge(document, {"classification": classification})
        answer = asked.request(
            "PUT" if replace else "PATCH",
            record_path(namespace or DEFAULT_NAMESPACE, kind, name),
            query={"message": message, "strict": True if strict else None},
            json=document,
            headers=_guard(if_revision),
        ).json()
    warn(answer["warnings"])
    if output == "json":
        write(json_text(answer, indent=2))
    else:
        tell(f"{key_text(answer['record'])} {answer['effect']}, revision {answer['revision']}")


def _guard(revision: int | None) -> dict[str, str]:
    if revision is None:
        return {}
    return {"if-none-match": "*"} if revision == 0 else {"if-match": f'"{revision}"'}


def _base(spec: str | None, file: str | None) -> dict[str, Any]:
    if spec is not None and file is not None:
        raise UsageError("--json and --file are both given", hint="a file can hold the spec too")
    if file is not None:
        from universal_registry.cli.documents import read_documents

        found = read_documents(file)
        if len(found) != 1 or not isinstance(found[0], dict):
            raise Invalid(f"{file} holds {len(found)} documents, not one record", hint="ureg apply -f takes several")
        # What an earlier answer said of the record is not what is to be set.
        return {name: value for name, value in found[0].items() if name not in ("kind", "namespace", "name", "meta")}
    if spec is not None:
        from universal_registry.cli.reading import json_of

        value = json_of(spec, "--json")
        if not isinstance(value, dict):
            raise Invalid("--json is not an object", hint='such as {"port": 8443}')
        return {"spec": value}
    return {}


def _merge(document: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(document.get(name), dict):
            _merge(document[name], value)
        else:
            document[name] = value
