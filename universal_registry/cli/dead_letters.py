"""`ureg delivery redrive|retry|skip`: what becomes of deliveries that were given up. All three give the same words to
deliveries; `retry` finds them by a filter."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import click

from universal_registry.cli.command import Command, Example, result_option
from universal_registry.cli.output import json_text, tell, write
from universal_registry.cli.session import Session, note, session
from universal_registry.cli.targets import short_target
from universal_registry.client.http import quote
from universal_registry.kernel.errors import Conflict, NotFound, UsageError

MOST = 1000
_FILTER_HINT = "as in 'status:failed since:1h target:NAME'; also session:ID, name:[KIND/]NAME, namespace:NAMESPACE"
_TERMS = ("since", "target", "session", "name", "namespace")
_GIVEN_UP = ("failed", "dead")
_REASON = click.option("--reason", metavar="TEXT", default="", help="Why, for those who look later.")


def _options(call: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        _REASON,
        click.option("--target", metavar="NAME", help="All that was given up for this target."),
        click.argument("ids", metavar="[DELIVERY]...", nargs=-1),
    ):
        call = option(call)
    return call


@click.command(
    "redrive",
    cls=Command,
    examples=(Example("ureg delivery redrive dlv_0a1b2c"), Example("ureg delivery redrive --target mine")),
)
@_options
@result_option()
def redrive(ids: tuple[str, ...], target: str | None, reason: str, output: str) -> None:
    """Send deliveries again that were given up. Of a record it is the current state that goes, if that is newer."""
    _each("redrive", ids, target, reason, output)


@click.command(
    "skip", cls=Command, examples=(Example("ureg delivery skip dlv_0a1b2c --reason 'they have it by mail'"),)
)
@_options
@result_option()
def skip(ids: tuple[str, ...], target: str | None, reason: str, output: str) -> None:
    """Go on without deliveries that were given up. A target in strict order then goes on with what follows."""
    _each("skip", ids, target, reason, output)


@click.command(
    "retry",
    cls=Command,
    examples=(
        Example("ureg delivery retry --filter 'status:failed since:1h target:mine'"),
        Example("ureg delivery retry --filter 'status:failed name:alias/gs' --dry-run", "how many those are"),
    ),
)
@click.option(
    "--filter", "filter_", required=True, metavar="TERMS", help="Which, as status:failed since:1h target:NAME."
)
@_REASON
@click.option("--dry-run", is_flag=True, help="Count them, and do nothing.")
@result_option()
def retry(filter_: str, reason: str, dry_run: bool, output: str) -> None:
    """Redrive all that a filter finds among the deliveries that were given up.

    A filter is terms WORD:VALUE with spaces between them, all of which must hold: `status:failed` (given up; needed,
    for nothing else can be retried: what waits is tried by itself), `since:` (given up since this time, or so long ago,
    as 1h or 7d), `target:`, `session:`, `name:` ([KIND/]NAME of the record), `namespace:` (of that record).
    """
    query = _asked(filter_)
    with session(drive=False) as asked:
        found = _dead(asked, **query)
        told = [] if dry_run else redriven(asked, found, reason)
        offline = asked.daemon is None
    if output == "json":
        write(json_text({"found": len(found), "deliveries": found} if dry_run else told, indent=2))
    else:
        _count(found if dry_run else told, "would be" if dry_run else "will be")
    if offline and told:
        _note_offline()


def _asked(text: str) -> dict[str, str]:
    """What the API is asked for by a filter. Raises UsageError."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--filter: {error}".lower(), hint=_FILTER_HINT) from None
    found: dict[str, str] = {}
    for word in words:
        name, colon, value = word.partition(":")
        if not colon or not value or name not in ("status", *_TERMS):
            raise UsageError(f"--filter: {word!r:.60} is no term", hint=_FILTER_HINT)
        if name in found:
            raise UsageError(f"--filter: {name} is given twice", hint=_FILTER_HINT)
        found[name] = value
    if "namespace" in found and "name" not in found:
        raise UsageError("--filter: namespace is that of a record, and there is no name", hint=_FILTER_HINT)
    status = found.pop("status", None)
    if status not in _GIVEN_UP:
        said = "has no status" if status is None else f"asks for status {status!r:.40}"
        hint = "only what was given up is retried, status:failed; `ureg target resume NAME` tries at once what waits"
        raise UsageError(f"--filter {said}", hint=hint)
    return found


def redriven(asked: Session, found: Iterable[dict[str, Any]], reason: str) -> list[dict[str, Any]]:
    """Tell each that it is to be sent again; those that were told. What came back to life meanwhile needs no word."""
    told = []
    for each in found:
        try:
            told.append(_tell(asked, "redrive", each["delivery"], reason))
        except (Conflict, NotFound) as error:
            note(f"left as it is: {error.message}")
    return told


def _each(verb: str, ids: tuple[str, ...], target: str | None, reason: str, output: str) -> None:
    if bool(ids) == (target is not None):
        raise UsageError("which deliveries?", hint="give their ids, or --target NAME for all of a target")
    with session(drive=False) as asked:
        wanted = ids or [str(each["delivery"]) for each in _dead(asked, target=target)]
        told = [_tell(asked, verb, each, reason) for each in wanted]
        offline = asked.daemon is None
    if offline and told:
        _note_offline()
    if output == "json":
        write(json_text(told, indent=2))
        return
    done = "will be sent again" if verb == "redrive" else "is skipped"
    for each in told:
        tell(f"{each['delivery']} to {short_target(each['target'] or '?')} {done}")
    if not told:
        note(f"nothing was given up for {short_target(target or '')}")


def _tell(asked: Session, verb: str, delivery: str, reason: str) -> dict[str, Any]:
    answer: dict[str, Any] = asked.write(f"/v1/-/deliveries/{quote(delivery)}/{verb}", {"reason": reason})
    return answer


def _note_offline() -> None:
    note("no daemon runs: it is done when one does; start one with: ureg up")


def _count(deliveries: list[dict[str, Any]], verb: str) -> None:
    if not deliveries:
        note("nothing that was given up is meant")
        return
    tell(f"{counted(deliveries)} {verb} sent again")


def counted(deliveries: list[dict[str, Any]]) -> str:
    """`3 deliveries (2 to mine, 1 to other)`."""
    counts = Counter(short_target(each["target"] or "?") for each in deliveries)
    total = len(deliveries)
    parts = ", ".join(f"{count} to {name}" for name, count in counts.items())
    return f"{total} {'delivery' if total == 1 else 'deliveries'} ({parts})"


def _dead(asked: Session, **query: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = asked.read("/v1/-/deliveries", state=["dead"], limit=MOST, **query)["items"]
    if len(found) == MOST:
        note(f"the first {MOST}; run it again for more")
    return found


def dead_of_session(asked: Session, session_id: str) -> list[dict[str, Any]]:
    """Those of a session that were given up."""
    return _dead(asked, session=session_id)
