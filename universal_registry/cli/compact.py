"""`ureg db compact`: make the change log shorter, and say what that came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from universal_registry.cli.command import Command, Example, answer_option
from universal_registry.cli.output import told_in_words, write, write_value
from universal_registry.cli.session import session

if TYPE_CHECKING:
    from universal_registry.cli.session import Session
    from universal_registry.registry.check import Checked

_PATH = "/v1/-/compaction"
_SECONDS = 10
_UNITS = ("B", "kB", "MB", "GB", "TB")


@click.command(
    "compact",
    cls=Command,
    examples=(
        Example("ureg db compact --dry-run", "what would go, and who keeps it from more"),
        Example("ureg db compact"),
    ),
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and do nothing.")
@answer_option()
def compact(dry_run: bool, output: str) -> None:
    """Drop of the change log what is past its time (`REGISTRY_HISTORY_...`) and needed by no reader: values that later
    changes replaced, then whole lines. What is there now stays, and the log can still be verified.

    A daemon does so by itself, once an hour, and uses the space again. Without a daemon the file is made smaller too.
    """
    with session(drive=False) as asked:
        before = asked.read(_PATH)
        found = before if dry_run else {**_compacted(asked), "before": before["size"]}
    if told_in_words(output):
        _show(found)
    else:
        write_value(found, output)


def _compacted(asked: Session) -> dict[str, Any]:
    """What came of it, when all is done."""
    gone = {"values": 0, "lines": 0}
    while True:
        found: dict[str, Any] = asked.write(_PATH, None, seconds=_SECONDS)
        gone = {name: count + found["gone"][name] for name, count in gone.items()}
        if found["done"]:
            return {**found, "gone": gone}


def _show(found: dict[str, Any]) -> None:
    would = found.get("would")
    gone, size, before = (would or found)["gone"], found["size"], found.get("before")
    what = f"{gone['values']} values" + (f" ({_size(gone['bytes'])})" if would else "") + f" and {gone['lines']} lines"
    write(f"{'would go' if would else 'gone':<12}{what}")
    place = would or found["horizon"]
    write(f"{'kept':<12}values from revision {place['values']} on, lines from {place['lines']} on, of {found['head']}")
    for name, part in (("before", before), ("now", size)):
        if part is not None:
            free = "" if part["free"] is None else f", {_size(part['free'])} of them free"
            write(f"{name:<12}{part['lines']} lines, {_size(part['bytes'])}{free}")
    for each in found["kept_back"]:
        write(f"{'waits for':<12}{each['name']}, which is at revision {each['revision']}")


def complete_since(checked: Checked) -> str:
    """Where the chain over the log begins, if not with the first line: the audit trail says what it was there."""
    return f", complete since {checked.since}" if checked.since else ""


def _size(count: float) -> str:
    """In the unit that people would use."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 or count >= 100 else f"{count:.1f} {_UNITS[unit]}"
