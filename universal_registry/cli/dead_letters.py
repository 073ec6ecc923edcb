"""`ureg delivery redrive|skip`: what becomes of deliveries that were given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from universal_registry.cli.command import Command, Example, result_option
from universal_registry.cli.output import json_text, tell, write
from universal_registry.cli.session import Session, note, session
from universal_registry.cli.targets import short_target
from universal_registry.client.http import quote
from universal_registry.kernel.errors import UsageError

_MOST = 1000


def _options(call: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--reason", metavar="TEXT", default="", help="Why, for those who look later."),
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


def _each(verb: str, ids: tuple[str, ...], target: str | None, reason: str, output: str) -> None:
    if bool(ids) == (target is not None):
        raise UsageError("which deliveries?", hint="give their ids, or --target NAME for all of a target")
    with session(drive=False) as asked:
        wanted = ids or _dead(asked, target)
        told = [asked.write(f"/v1/-/deliveries/{quote(each)}/{verb}", {"reason": reason}) for each in wanted]
        offline = asked.daemon is None
    if offline and told:
        note("no daemon runs: it is done when one does; start one with: ureg up")
    if output == "json":
        write(json_text(told, indent=2))
        return
    done = "will be sent again" if verb == "redrive" else "is skipped"
    for each in told:
        tell(f"{each['delivery']} to {short_target(each['target'] or '?')} {done}")
    if not told:
        note(f"nothing was given up for {short_target(target or '')}")


def _dead(asked: Session, target: str | None) -> list[str]:
    found = asked.read("/v1/-/deliveries", target=target, state=["dead"], limit=_MOST)["items"]
    if len(found) == _MOST:
        note(f"the first {_MOST}; run it again for more")
    return [str(each["delivery"]) for each in found]
