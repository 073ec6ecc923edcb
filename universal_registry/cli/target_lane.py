"""`ureg target pause|resume|disable|enable|breaker`: what people tell a target's lane."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Command, Example, answer_option, result_option
from universal_registry.cli.output import tell, told_in_words, write_value
from universal_registry.cli.session import note, session
from universal_registry.cli.targets import short_target, target_path
from universal_registry.cli.waiting import seconds
from universal_registry.kernel.errors import UsageError

TRAFFIC_OPTIONS = (
    click.option(
        "--order",
        type=click.Choice(("none", "per-key", "strict")),
        help="What waits for what: nothing, the changes of one record for each other, or everything.",
    ),
    click.option(
        "--delivery", type=click.Choice(("every", "latest")), help="Every revision of a record, or only the newest."
    ),
    click.option(
        "--rejected",
        type=click.Choice(("dead", "retry")),
        help="What becomes of a delivery that it does not take (400, 413, 422).",
    ),
    click.option("--rate", type=float, metavar="N", help="Deliveries a second, at most."),
    click.option("--weight", type=int, metavar="N", help="Its part of the slots beside other targets; 1 if absent."),
)
"""How deliveries flow to a target, for `target add` and `target set`."""
_WHY = click.option("--reason", metavar="TEXT", default="", help="Why, for those who look later.")


@click.command("pause", cls=Command, examples=(Example("ureg target pause mine --reason 'they move house'"),))
@click.argument("name")
@_WHY
@result_option()
def pause(name: str, reason: str, output: str) -> None:
    """Send nothing to a target for now. What is meant for it is held, and follows in order."""
    _tell(name, {"action": "pause", "reason": reason}, output)


@click.command("resume", cls=Command, examples=(Example("ureg target resume mine"),))
@click.argument("name")
@_WHY
@result_option()
def resume(name: str, reason: str, output: str) -> None:
    """End a pause, whoever asked for it, and try at once a target that refused us (401, 403, 404)."""
    _tell(name, {"action": "resume", "reason": reason}, output)


@click.command("disable", cls=Command, examples=(Example("ureg target disable mine --reason 'no longer in use'"),))
@click.argument("name")
@_WHY
@result_option()
def disable(name: str, reason: str, output: str) -> None:
    """Send nothing to a target until it is enabled. What is meant for it is held."""
    _tell(name, {"action": "disable", "reason": reason}, output)


@click.command("enable", cls=Command, examples=(Example("ureg target enable mine"),))
@click.argument("name")
@_WHY
@result_option()
def enable(name: str, reason: str, output: str) -> None:
    """Send to a target again that was disabled, or that had said that it is gone (410). What was held follows."""
    _tell(name, {"action": "enable", "reason": reason}, output)


@click.command(
    "breaker",
    cls=Command,
    examples=(
        Example("ureg target breaker mine", "how it stands"),
        Example("ureg target breaker mine --reset", "close it now"),
        Example("ureg target breaker mine --open --for 2h"),
    ),
)
@click.argument("name")
@click.option("--reset", is_flag=True, help="Close it now; then it starts slowly.")
@click.option("--open", "opened", is_flag=True, help="Open it now; then one attempt asks whether the target is back.")
@click.option("--for", "duration", metavar="TIME", help="How long it stays open, such as 10m or 2h; 15m if absent.")
@_WHY
@answer_option()
def breaker(name: str, reset: bool, opened: bool, duration: str | None, reason: str, output: str) -> None:
    """Show a target's circuit breaker, or move it."""
    if reset and opened:
        raise UsageError("--reset closes the breaker and --open opens it", hint="give one of the two")
    if duration is not None and not opened:
        raise UsageError("--for says how long a breaker stays open", hint="give it with --open")
    if reset:
        _tell(name, {"action": "reset", "reason": reason}, output)
    elif opened:
        more = {} if duration is None else {"seconds": seconds(duration, "--for")}
        _tell(name, {"action": "open", "reason": reason, **more}, output)
    else:
        with session() as asked:
            _show(asked.read(target_path(name)), output)


def _tell(name: str, body: dict[str, Any], output: str) -> None:
    with session(drive=False) as asked:
        answer = asked.write(f"{target_path(name)}/lane", body)
        if asked.daemon is None:
            note("no daemon runs: it is so from its next start on; start one with: ureg up")
    _show(answer, output)


def _show(answer: dict[str, Any], output: str) -> None:
    if not told_in_words(output):
        write_value(answer, output)
        return
    lane = answer["lane"] or {}
    why = f": {answer['reason']}" if answer["reason"] not in ("", answer["state"]) else ""
    tell(f"target {short_target(answer['target'])} {answer['state']}{why}")
    if lane:
        held = f", {lane['queued']} held" if answer["reason"] and lane["queued"] else ""
        failures = lane["failures"]
        tell(f"breaker {lane['breaker']}, {failures} failure{'' if failures == 1 else 's'} in a row{held}")
