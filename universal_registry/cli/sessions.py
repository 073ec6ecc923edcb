"""`ureg session`: propagations, and how far they are."""

from __future__ import annotations

import click

from universal_registry.cli.command import Command, Example, Group, output_option
from universal_registry.cli.output import Column, Shape, emit
from universal_registry.cli.session import session
from universal_registry.cli.targets import short_target
from universal_registry.client.http import quote

_SHAPE = Shape(
    "sessions",
    (
        Column("SESSION", "session", whole=True),
        Column("STATE", "state"),
        Column("MODE", "mode"),
        Column("SOURCE", lambda item: item["source"] or item["route"]),
        Column("TARGETS", lambda item: [f"{short_target(each['target'])}:{each['state']}" for each in item["targets"]]),
        Column("STANDING", "standing"),
    ),
    lambda item: str(item["session"]),
)


@click.group("session", cls=Group, examples=(Example("ureg session ls"),))
def session_group() -> None:
    """Propagations: standing ones, which follow each change, and one-shot ones."""


@session_group.command("ls", cls=Command, examples=(Example("ureg session ls"), Example("ureg session ls -o name")))
@output_option()
def list_(output: str) -> None:
    """List the sessions."""
    with session() as asked:
        emit(asked.read("/v1/-/sessions")["items"], output, _SHAPE)


@session_group.command("get", cls=Command, examples=(Example("ureg session get ID -o yaml", "with its deliveries"),))
@click.argument("session_id", metavar="ID")
@output_option()
def get(session_id: str, output: str) -> None:
    """Show one session; all but the table with the deliveries that are not done."""
    with session() as asked:
        emit([asked.read(f"/v1/-/sessions/{quote(session_id)}")], output, _SHAPE, single=True)
