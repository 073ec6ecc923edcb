"""`ureg route`: what is sent where."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Command, Example, Group, namespace_option, output_option, result_option
from universal_registry.cli.output import TABLES, Column, Shape, emit, json_text, write
from universal_registry.cli.session import session, warn
from universal_registry.cli.targets import short_target

_ADD = (
    Example("ureg route add shells --select kind=alias --target mine --target backup"),
    Example("ureg route add gone --select kind=service --filter verb=deleted --target mine", "only deletions"),
    Example("ureg route add prod --select 'kind=service,labels.env=prod' --target mine --secrets include"),
)
_SHAPE = Shape(
    "routes",
    (
        Column("ROUTE", "route"),
        Column("MODE", "mode"),
        Column("SENDS", lambda item: item.get("source") or item.get("selector")),
        Column("TO", lambda item: [short_target(address) for address in item.get("targets", ())]),
        Column("SECRETS", "secrets"),
        Column("FAULT", "fault"),
    ),
    lambda item: str(item["route"]),
)


@click.group("route", cls=Group, examples=(_ADD[0], Example("ureg route ls")))
def route() -> None:
    """What is sent where: a selector and targets."""


@route.command("add", cls=Command, examples=_ADD)
@click.argument("name")
@click.option("--select", required=True, metavar="SELECTOR", help="What is sent, as in `kind=alias,name=g*`.")
@click.option("--filter", "filter_", metavar="TERMS", default="", help="Only these changes, as `spec.port>=8000`.")
@click.option("--target", "targets", multiple=True, required=True, metavar="NAME", help="Where to; may be repeated.")
@click.option("--secrets", type=click.Choice(("redact", "include")), default="redact", help="Whether secrets travel.")
@result_option()
def add(name: str, select: str, filter_: str, targets: tuple[str, ...], secrets: str, output: str) -> None:
    """Make a route, or change it. What it selects is sent now, and again with each later change."""
    body: dict[str, Any] = {"name": name, "select": select, "targets": list(targets), "secrets": secrets}
    if filter_:
        body["filter"] = filter_
    with session() as asked:
        answer = asked.write("/v1/-/routes", body)
    warn(answer["warnings"])
    if output == "json":
        write(json_text(answer, indent=2))
    else:
        write(f"route {answer['route']} {answer['result']}, revision {answer['revision']}")


@route.command("ls", cls=Command, examples=(Example("ureg route ls"),))
@output_option()
def list_(output: str) -> None:
    """List the routes; one that cannot be followed stands there with its fault."""
    with session() as asked:
        emit(asked.read("/v1/-/routes")["items"], output, _SHAPE)


_EXPLAINED = Shape(
    "targets: ureg target add NAME URL --select SELECTOR",
    (
        Column("RECORD", lambda item: f"{item['kind']}/{item['namespace']}/{item['name']}"),
        Column("TARGET", lambda item: short_target(item["target"]), whole=True),
        Column("GETS IT", lambda item: "yes" if item["gets"] else "no"),
        Column("ROUTE", "route"),
        Column("HELD", "held"),
        Column("WHY", "why"),
    ),
    lambda item: short_target(str(item["target"])),
)


@route.command(
    "explain",
    cls=Command,
    examples=(Example("ureg route explain alias gs", "who gets it, and why the others do not"),),
)
@click.argument("kind")
@click.argument("name")
@namespace_option("Only the record there.")
@output_option()
def explain(kind: str, name: str, namespace: str | None, output: str) -> None:
    """Who would get a record now and by which route, and who would not and why."""
    with session() as asked:
        found = asked.read("/v1/-/explain", name=f"{kind}/{name}", namespace=namespace)["items"]
    rows = [
        {key: record[key] for key in ("kind", "namespace", "name")} | target
        for record in found
        for target in record["targets"]
    ]
    emit(rows if output in (*TABLES, "tsv", "name") else found, output, _EXPLAINED)
