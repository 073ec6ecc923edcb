"""`ureg session watch|retry`: until a session is where it can get, and what it could not do tried again."""

from __future__ import annotations

import math
from typing import Any

import click

from universal_registry.cli.board import board
from universal_registry.cli.command import Command, Example, result_option
from universal_registry.cli.dead_letters import counted, dead_of_session, redriven
from universal_registry.cli.output import json_text, tell, write
from universal_registry.cli.session import Session, note, session
from universal_registry.cli.waiting import Wait, await_session, is_final, stragglers, verdict
from universal_registry.client.http import quote
from universal_registry.kernel.errors import Unreachable

_FOR_EVER = Wait(math.inf)


@click.command(
    "watch",
    cls=Command,
    examples=(Example("ureg session watch ID"), Example("ureg session watch ID -o json", "and all of it at the end")),
)
@click.argument("session_id", metavar="ID")
@result_option()
def watch(session_id: str, output: str) -> None:
    """Show how far each target of a session is, until all have it or somebody has to do something first.

    The rows are those of --wait, on standard error, and so are the exit codes: 0 when all have it, 8 when some have, 9
    when what is left is held, 1 when it was given up. Ctrl-C ends the watch, and not the session.
    """
    with session(drive=False) as asked:
        try:
            found = _watched(asked, session_id)
        except KeyboardInterrupt:
            note(f"it goes on; ureg session get {session_id}")
            raise
    if output == "json":
        write(json_text(found, indent=2))
    else:
        tell(f"session {found['session']} {found['state']}: {stragglers(found)}")
    failed = verdict(found, _FOR_EVER)
    if failed is not None:
        raise failed


def _watched(asked: Session, session_id: str) -> dict[str, Any]:
    rows = board(note)
    if asked.daemon is None:
        found: dict[str, Any] = asked.read(f"/v1/-/sessions/{quote(session_id)}")
        rows.show(found)
        if not all(map(is_final, found["targets"])):
            raise Unreachable(f"no daemon runs here, so session {session_id} goes nowhere", hint="ureg up")
        return found
    return await_session(asked, session_id, _FOR_EVER, rows)


@click.command("retry", cls=Command, examples=(Example("ureg session retry ID"),))
@click.argument("session_id", metavar="ID")
@click.option("--reason", metavar="TEXT", default="", help="Why, for those who look later.")
@click.option("--dry-run", is_flag=True, help="Count, and do nothing.")
@result_option()
def retry(session_id: str, reason: str, dry_run: bool, output: str) -> None:
    """Redrive all that was given up of a session. What waits for its next try is left to that."""
    with session(drive=False) as asked:
        found = asked.read(f"/v1/-/sessions/{quote(session_id)}")
        dead = dead_of_session(asked, session_id)
        told = dead if dry_run else redriven(asked, dead, reason)
        offline = asked.daemon is None
    if output == "json":
        write(json_text(told, indent=2))
    elif told:
        tell(f"session {found['session']}: {counted(told)} {'would' if dry_run else 'will'} be sent again")
    else:
        note(f"nothing was given up of session {found['session']}")
    if told and offline and not dry_run:
        note("no daemon runs: it is done when one does; start one with: ureg up")
    if waiting := sum(each["queued"] for each in found["targets"]):
        note(f"{waiting} more {'waits' if waiting == 1 else 'wait'}: ureg target resume NAME tries what failed at once")
