"""`ureg session`: propagations, and how far they are."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Command, Example, Group, output_option, result_option
from universal_registry.cli.output import Column, Shape, emit, json_text, tell, write
from universal_registry.cli.session import note, session
from universal_registry.cli.session_watch import retry, watch
from universal_registry.cli.session_waterfall import waterfall
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


session_group.add_command(watch)
session_group.add_command(retry)
session_group.add_command(waterfall)


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


def _word(name: str, help_text: str, *examples: Example) -> click.Command:
    @session_group.command(name, cls=Command, examples=examples, help=help_text)
    @click.argument("session_id", metavar="ID")
    @result_option()
    def tell_it(session_id: str, output: str) -> None:
        with session() as asked:
            told = asked.write(f"/v1/-/sessions/{quote(session_id)}/{name}", {})
            offline = asked.daemon is None
        if output == "json":
            write(json_text(told, indent=2))
            return
        _tell(told)
        if offline:
            note("no daemon runs: nothing more is delivered until you run: ureg up")

    return tell_it


def _tell(told: dict[str, Any]) -> None:
    """What became of it, who has it already and who has not."""
    done = {"pause": "paused", "resume": "goes on", "cancel": "cancelled"}[told["verb"]]
    tell(f"session {told['session']} {done}{'' if told['changed'] else ' already'}")
    if told["delivered"]:
        tell(f"delivered already: {', '.join(map(short_target, told['delivered']))}")
    if told["undone"]:
        tell(f"not delivered: {', '.join(f'{short_target(name)} ({count})' for name, count in told['undone'].items())}")


pause = _word(
    "pause",
    "Hold what a session has not delivered, and what comes to it, until it is resumed. What is under way still ends.",
    Example("ureg session pause ID"),
)
resume = _word("resume", "Let a paused session go on, in order.", Example("ureg session resume ID"))
cancel = _word(
    "cancel",
    "End a session. What it has delivered stays, and is named; the rest is cancelled. A standing one loses its route.",
    Example("ureg session cancel ID"),
)


@session_group.command(
    "replay",
    cls=Command,
    examples=(
        Example("ureg session replay ID --dry-run", "how many deliveries that would be"),
        Example("ureg session replay ID --since 2026-03-01T00:00:00Z --target mine"),
    ),
)
@click.argument("session_id", metavar="ID")
@click.option("--since", metavar="PLACE", help="Only what came after: a revision, a cursor, or a time with its zone.")
@click.option("--until", metavar="PLACE", help="Only what came up to there.")
@click.option("--target", "targets", multiple=True, metavar="NAME", help="Only to this target; may be repeated.")
@click.option("--select", metavar="SELECTOR", help="Only of records that this selects.")
@click.option("--dry-run", is_flag=True, help="Count, and store nothing.")
@result_option()
def replay(
    session_id: str,
    since: str | None,
    until: str | None,
    targets: tuple[str, ...],
    select: str | None,
    dry_run: bool,
    output: str,
) -> None:
    """Send again what a session sent, as a session of its own: of records their current state, of events each.

    The deliveries have new ids, and say in the header replay-of which one they repeat.
    """
    path = f"/v1/-/sessions/{quote(session_id)}/replay"
    asked_for = {"since": since or "", "until": until or "", "select": select or ""}
    with session() as asked:
        if dry_run:
            found = asked.read(path, **asked_for, target=list(targets))
        else:
            found = asked.write(path, {**asked_for, "targets": list(targets)})
    if output == "json":
        write(json_text(found, indent=2))
    elif dry_run:
        count = "1 delivery" if found["total"] == 1 else f"{found['total']} deliveries"
        tell(f"would send {count} of revisions {found['since'] + 1} to {found['until']}")
        for address, count in found["deliveries"].items():
            tell(f"  to {short_target(address)}: {count}")
    else:
        names = ", ".join(map(short_target, found["targets"]))
        tell(f"session {found['session']} sends revisions {found['since'] + 1} to {found['until']} again to {names}")
