"""`ureg audit`: who did or was refused what, and proof that none of it was altered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from universal_registry.cli.command import Command, Example, Group, answer_option, output_option
from universal_registry.cli.compact import complete_since
from universal_registry.cli.output import Column, Shape, emit, json_text, told_in_words, write, write_value
from universal_registry.cli.session import current_settings, session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from universal_registry.kernel.settings import Settings
    from universal_registry.observe.audit import Anchor, Verified

_SHAPE = Shape(
    "such rows",
    (
        Column("AT", "at"),
        Column("ACTOR", "actor"),
        Column("ACTION", "action"),
        Column("SUBJECT", "subject"),
        Column("DETAILS", lambda item: _details(item["details"]), long=True),
    ),
    lambda item: f"{item['trail']}/{item['place']}",
)


def _details(details: dict[str, Any]) -> str:
    return " ".join(f"{name}={json_text(value)}" for name, value in details.items() if value is not None)


@click.group(
    "audit",
    cls=Group,
    examples=(
        Example("ureg audit ls --since 24h"),
        Example("ureg audit anchor >> anchors.txt", "keep that file where nobody can write the stores"),
        Example("ureg audit verify --anchor anchors.txt"),
    ),
)
def audit() -> None:
    """Who did or was refused what, and whether any of it was altered since."""


@audit.command(
    "ls",
    cls=Command,
    examples=(
        Example("ureg audit ls --since 24h --action denied"),
        Example("ureg audit ls --actor token:ci --limit 20 -o json"),
    ),
)
@click.option("--since", metavar="TIME", help="A time (RFC 3339), or how long ago, as 24h or 7d.")
@click.option("--actor", metavar="ACTOR", help="As token:ci or uid:1000, exact.")
@click.option("--action", metavar="ACTION", help="As record.put, or the part before its dot.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, metavar="N", help="The newest N; 100 if absent.")
@output_option()
def ls(since: str | None, actor: str | None, action: str | None, limit: int, output: str) -> None:
    """Who did or was refused what, newest first: lines of the change log, and rows of the audit trails."""
    with session() as asked:
        found = asked.read("/v1/-/audit", since=since, actor=actor, action=action, limit=limit)
    emit(found["items"], output, _SHAPE)


@audit.command("anchor", cls=Command, examples=(Example("ureg audit anchor >> anchors.txt"),))
def anchor() -> None:
    """Print the ends of all hash chains in one line. Kept out of reach of whoever can write the stores, it proves later
    that nothing before it was altered, reordered or cut off.

    A daemon writes the same to its log with each health check, if anything has changed.
    """
    with session() as asked:
        write(asked.read("/v1/-/audit/anchor")["anchor"])


@audit.command(
    "verify",
    cls=Command,
    examples=(
        Example("ureg audit verify"),
        Example("ureg audit verify --anchor anchors.txt --anchor logs/registry.log"),
        Example("journalctl -u universal-registry -o cat | ureg audit verify --anchor -"),
    ),
)
@click.option(
    "--anchor", "anchors", multiple=True, metavar="FILE|-|ANCHOR", help="Compare with every anchor in it; repeatable."
)
@answer_option()
def verify(anchors: tuple[str, ...], output: str) -> None:
    """Check the chains: the change log with bodies and records, both audit trails, and that they agree with anchors.

    Reads the stores itself, without the daemon. Names the first row that does not fit, and exits with 1. Without an
    anchor, rows cut off at the end cannot be missed.
    """
    import msgspec

    given = [each for word in anchors for each in _anchors(word)]
    found = asyncio.run(_verify(current_settings(), given))
    if not told_in_words(output):
        checked = msgspec.structs.asdict(found.checked)
        rows = {"registry": found.registry, "propagation": found.propagation}
        write_value({"ok": True, **checked, "rows": rows, "anchors": found.anchors}, output)
        return
    log = found.checked
    write(f"whole: {log.lines} lines of the change log up to revision {log.revision}{complete_since(log)}")
    write(f"whole: {found.registry} rows of the registry store's trail, {found.propagation} of the propagation store's")
    write(f"anchors that agree: {found.anchors}" if found.anchors else "no anchor: a cut at the end would not show")


def _anchors(word: str) -> list[Anchor]:
    """The anchors that a word of the command line is, or that its file holds. Raises UsageError when there are none."""
    from universal_registry.cli.reading import read_file, read_input
    from universal_registry.kernel.errors import UsageError
    from universal_registry.observe.audit import anchors_in

    if found := anchors_in(word):
        return found
    data = read_input() if word == "-" else read_file(word)
    if not (found := anchors_in(data.decode("utf-8", "replace"))):
        where = "standard input" if word == "-" else f"{word!r:.200}"
        raise UsageError(f"there is no anchor in {where}", hint="a line of `ureg audit anchor`, or a daemon's log")
    return found


async def _verify(settings: Settings, anchors: Sequence[Anchor]) -> Verified:
    from universal_registry.app import open_app
    from universal_registry.cli.db import progress
    from universal_registry.kernel.world import SystemWorld
    from universal_registry.observe.audit import PROPAGATION, REGISTRY, Verified
    from universal_registry.registry.check import check_registry

    app = await open_app(settings, world=SystemWorld(), read_only=True)
    try:
        service, told = app.service, progress()
        return Verified(
            registry=await app.audit.verify_trail(REGISTRY, told),
            propagation=await app.audit.verify_trail(PROPAGATION, told),
            checked=await check_registry(service.records, service.log, service.event_commitment, progress=told),
            anchors=await app.audit.agree(anchors),
        )
    finally:
        await app.close()
