"""`ureg set` and `ureg create`: create a record, or change fields of it."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Example, command, namespace_option, options, result_option
from universal_registry.cli.foretelling import dry_run_option, foretell, operation
from universal_registry.cli.output import json_text, tell, write
from universal_registry.cli.records import key_text, kind_of
from universal_registry.cli.session import Session, note, session, warn
from universal_registry.client.http import record_path
from universal_registry.kernel.errors import Invalid, UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE
from universal_registry.registry.assignment import build, merge_into, parse_assignment

_FIELDS = click.argument("fields", nargs=-1, metavar="[FIELD=VALUE]...")
_CONTENT = (
    namespace_option("Where; `default` if absent."),
    click.option("--json", "spec", metavar="JSON", help="The spec, or @FILE, or - for standard input."),
    click.option(
        "-f", "--file", "file", metavar="FILE", help="A document (YAML or JSON) without kind and name; - is stdin."
    ),
    click.option("--class", "classification", metavar="CLASS", help="The classification."),
)
_WRITING = (
    click.option("--strict", is_flag=True, help="Refuse fields that the kind does not declare."),
    click.option("-m", "--message", metavar="TEXT", help="Why, for the log."),
    dry_run_option(),
    result_option(),
)


@command(
    "set",
    Example("ureg set alias gs command='git status -sb'", "one field"),
    Example("ureg set service pay port=8443 class=AppService labels.tier=backend"),
    Example("ureg set function mkcd body=@mkcd.sh", "the text of a file"),
    Example("pass show pay | ureg set env_var PAY_KEY secret_value=-", "a secret, from standard input"),
    Example("ureg set service pay depends_on:='[\"db\"]' host:=null", "JSON; null removes"),
    Example("ureg set alias gs command='git status' --dry-run", "only show what would change"),
)
@click.argument("kind")
@click.argument("name")
@_FIELDS
@options(*_CONTENT)
@click.option("--replace", is_flag=True, help="Make the record exactly this, instead of merging into it.")
@click.option(
    "--if-revision", type=click.IntRange(0), metavar="N", help="Only if it is at this revision; 0: only create."
)
@options(*_WRITING)
def set_(**given: Any) -> None:
    """Create a record, or change fields of it.

    A value is text, a number or true/false as the kind declares the field; items of a list stand between commas.
    `field=@FILE` takes a file's text, `field=-` standard input, `field:=JSON` a JSON value. `labels.KEY`,
    `annotations.KEY`, class, title, description, lifecycle and expires_at belong to every record.
    """
    _write(**given)


@command(
    "create",
    Example("ureg create alias gs command='git status -sb'"),
    Example("ureg create service pay -f pay.yaml || echo 'there is one'"),
)
@click.argument("kind")
@click.argument("name")
@_FIELDS
@options(*_CONTENT)
@options(*_WRITING)
def create(**given: Any) -> None:
    """Create a record that is not there. As `ureg set`, but one that is there is left alone, and the exit code is 5."""
    _write(**given, replace=True, if_revision=0)


def _write(
    *,
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
    dry_run: bool,
    output: str,
) -> None:
    place = namespace or DEFAULT_NAMESPACE
    with session() as asked:
        document = _document(asked, kind, fields, spec, file)
        if classification is not None:
            merge_into(document, {"classification": classification})
        if dry_run:
            made = operation("put" if replace else "merge", kind, name, place, document, if_revision)
            foretell(asked, [made], output, strict=strict)
            return
        answer = asked.request(
            "PUT" if replace else "PATCH",
            record_path(place, kind, name),
            query={"message": message, "strict": True if strict else None},
            json=document,
            headers=guard(if_revision),
        ).json()
    warn(answer["warnings"])
    if output == "json":
        write(json_text(answer, indent=2))
    else:
        tell(f"{key_text(answer['record'])} {answer['effect']}, revision {answer['revision']}")


def _document(asked: Session, kind: str, fields: tuple[str, ...], spec: str | None, file: str | None) -> dict[str, Any]:
    """What is to be written: a spec or a file, and the fields over it."""
    document = _base(spec, file)
    if fields:
        from universal_registry.cli.reading import value_text

        built = build(map(parse_assignment, fields), kind_of(asked, kind), value_text)
        for path in built.exposed:
            note(f"warning: the value of {path} stood in the command line, which `ps` shows: use {path}=- or =@FILE")
        merge_into(document, built.document)
    return document


def guard(revision: int | None) -> dict[str, str]:
    """The headers of a write that is done only if the record is at that revision (0: only if there is none)."""
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
