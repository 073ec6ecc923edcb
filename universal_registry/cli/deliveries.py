"""`ureg delivery`: what is not delivered yet, and what was tried."""

from __future__ import annotations

import click

from universal_registry.cli.command import Command, Example, Group, answer_option, namespace_option, output_option
from universal_registry.cli.dead_letters import redrive, retry, skip
from universal_registry.cli.output import Column, Shape, emit, tell, told_in_words, write_value
from universal_registry.cli.session import note, session
from universal_registry.cli.targets import short_target
from universal_registry.client.http import quote

_MOST = 1000
_SHAPE = Shape(
    "deliveries that wait or were given up",
    (
        Column("RECORD", "key", whole=True),
        Column("REVISION", "revision"),
        Column("TARGET", lambda item: short_target(item["target"] or ""), whole=True),
        Column("STATE", "state"),
        Column("ATTEMPTS", "attempts"),
        Column("NEXT TRY", "next_at"),
        Column("WHY", "reason", long=True),
        Column("DELIVERY", "delivery", whole=True),
    ),
    lambda item: str(item["delivery"]),
)
_ATTEMPTS = Shape(
    "failed attempts",
    (
        Column("ATTEMPT", "number"),
        Column("AT", "at"),
        Column("OUTCOME", "outcome"),
        Column("STATUS", "status"),
        Column("MS", "milliseconds"),
        Column("WHY", "reason", long=True),
    ),
    lambda item: str(item["number"]),
)


@click.group("delivery", cls=Group, examples=(Example("ureg delivery ls --target mine"),))
def delivery() -> None:
    """Deliveries that are not done yet."""


delivery.add_command(redrive)
delivery.add_command(retry)
delivery.add_command(skip)


@delivery.command(
    "ls", cls=Command, examples=(Example("ureg delivery ls"), Example("ureg delivery ls --state dead --target mine"))
)
@click.option("--target", metavar="NAME", help="To this target.")
@click.option("--name", metavar="[KIND/]NAME", help="Of this record.")
@namespace_option("Of the record.")
@click.option("--session", "session_id", metavar="ID", help="Of this session.")
@click.option("--state", "states", multiple=True, metavar="STATE", help="pending, sending, waiting, dead, cancelled.")
@click.option("--since", metavar="TIME", help="So since this time (RFC 3339), or since so long ago, as 1h or 7d.")
@click.option("--limit", type=click.IntRange(1, _MOST), default=100, show_default=True, help="At most so many.")
@output_option()
def list_(
    target: str | None,
    name: str | None,
    namespace: str | None,
    session_id: str | None,
    states: tuple[str, ...],
    since: str | None,
    limit: int,
    output: str,
) -> None:
    """List deliveries that wait, are held, or were given up. Those that arrived are not kept: see `ureg where`."""
    query = {"target": target, "name": name, "namespace": namespace, "session": session_id, "since": since}
    with session() as asked:
        # One more than is shown tells whether there are more.
        found = asked.read("/v1/-/deliveries", limit=min(limit + 1, _MOST), state=list(states), **query)["items"]
    emit(found[:limit], output, _SHAPE)
    if len(found) > limit:
        note(f"the first {limit} only; --limit N shows more, up to {_MOST}")
    elif limit == _MOST == len(found):
        note(f"the first {limit} only, which is the most that is shown: --target, --name and --state narrow it")


@delivery.command(
    "get", cls=Command, examples=(Example("ureg delivery get dlv_0a1b2c -o yaml", "with the attempts that failed"),)
)
@click.argument("delivery_id", metavar="DELIVERY")
@output_option()
def get(delivery_id: str, output: str) -> None:
    """Show one delivery that has not arrived; all but the table with the attempts at it that failed."""
    with session() as asked:
        emit([asked.read(f"/v1/-/deliveries/{quote(delivery_id)}")], output, _SHAPE, single=True)


@delivery.command("attempts", cls=Command, examples=(Example("ureg delivery attempts dlv_0a1b2c"),))
@click.argument("delivery_id", metavar="DELIVERY")
@output_option()
def attempts(delivery_id: str, output: str) -> None:
    """What was tried for one delivery, and how it failed."""
    with session() as asked:
        emit(asked.read(f"/v1/-/deliveries/{quote(delivery_id)}/attempts")["items"], output, _ATTEMPTS)


@delivery.command("why", cls=Command, examples=(Example("ureg delivery why dlv_0a1b2c"),))
@click.argument("delivery_id", metavar="DELIVERY")
@answer_option()
def why(delivery_id: str, output: str) -> None:
    """Why a delivery is where it is: what scheduled it, what it waits for, the breaker, the last answer."""
    with session() as asked:
        found = asked.read(f"/v1/-/deliveries/{quote(delivery_id)}/why")
    if not told_in_words(output):
        write_value(found, output)
        return
    tell(f"{found['delivery']} to {short_target(found['target'] or '?')}: {found['state']}")
    tell(f"scheduled  {found['scheduled']}")
    for number, reason in enumerate(found["why"]):
        tell(f"{'why' if number == 0 else '':<10} {reason}")
    if found["breaker"]:
        says = f": {found['breaker']['says']}" if found["breaker"]["says"] else ""
        tell(f"breaker    {found['breaker']['state']}, {found['breaker']['failures']} failures in a row{says}")
    tell(f"attempts   {found['attempts']}" + (f", next at {found['next_at']}" if found["next_at"] else ""))
    if last := found["last"]:
        status = f" {last['status']}" if last["status"] else ""
        tell(f"last       {last['at']}: {last['outcome']}{status}, {last['reason']}")
