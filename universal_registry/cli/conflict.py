"""`ureg conflict`: fields that were changed in two places at once, and what holds of them."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Command, Example, Group, answer_option, output_option, result_option
from universal_registry.cli.grid import escaped
from universal_registry.cli.output import Column, Shape, emit, json_text, tell, told_in_words, write, write_value
from universal_registry.cli.session import Session, note, session
from universal_registry.kernel.errors import NotFound, UsageError

_PATH = "/v1/-/conflicts"
_MOST = 1000


def _record(item: dict[str, Any]) -> str:
    return f"{item['kind']}/{item['name']}"


def _paths(item: dict[str, Any]) -> str:
    return ", ".join(f"{each['path']} ({each['sort']})" for each in item["conflicts"])


_SHAPE = Shape(
    "conflicts",
    (
        Column("RECORD", _record, whole=True),
        Column("NAMESPACE", "namespace"),
        Column("CONFLICTS", _paths),
        Column("HELD", "held"),
    ),
    _record,
)


@click.group(
    "conflict",
    cls=Group,
    examples=(
        Example("ureg conflict ls"),
        Example("ureg conflict show alias/gs", "all values, and where each comes from"),
        Example("ureg conflict resolve alias/gs --take /spec/command=1"),
    ),
)
def conflict() -> None:
    """Fields that two registries changed without knowing of one another. Nothing of either is lost."""


@conflict.command("ls", cls=Command, examples=(Example("ureg conflict ls"), Example("ureg conflict ls -o json")))
@output_option()
def ls(output: str) -> None:
    """Records that somebody should look at."""
    with session() as asked:
        found = asked.read(_PATH, limit=_MOST)["items"]
    emit(found, output, _SHAPE)
    if len(found) == _MOST:
        note(f"the first {_MOST} are shown")


@conflict.command(
    "show", cls=Command, examples=(Example("ureg conflict show alias/gs"), Example("ureg conflict show gs -o json"))
)
@click.argument("record")
@click.option("-n", "--namespace", metavar="NAMESPACE", help="Of the record.")
@answer_option()
def show(record: str, namespace: str | None, output: str) -> None:
    """The values of each field in conflict: number 0 is what is shown, or that there is none."""
    with session() as asked:
        found = _find(asked, record, namespace)
    if not told_in_words(output):
        write_value(found, output)
        return
    if found["held"]:
        tell(f"held: {found['held']}")
    for each in found["conflicts"]:
        tell(f"{each['path']} ({each['sort']})")
        for value in each["values"]:
            write(f"  {value['choice']}  {escaped(_value(value))}{_whence(value)}")


def _value(value: dict[str, Any]) -> str:
    return "(none)" if value["removed"] else json_text(value["value"])


def _whence(value: dict[str, Any]) -> str:
    if value["node"] is None:
        return ""
    mark = ", shown now" if value["shown"] else ""
    return f"  from node {value['node']}, {value['at']} by its clock{mark}"


@conflict.command(
    "resolve",
    cls=Command,
    examples=(
        Example("ureg conflict resolve alias/gs --take /spec/command=1", "value 1 of `conflict show` holds"),
        Example("ureg conflict resolve alias/gs --shown", "what is shown holds, in all fields"),
    ),
)
@click.argument("record")
@click.option("-n", "--namespace", metavar="NAMESPACE", help="Of the record.")
@click.option("--take", "takes", multiple=True, metavar="PATH=NUMBER", help="Which value holds; may be repeated.")
@click.option("--shown", is_flag=True, help="What is shown now holds, in all fields.")
@result_option()
def resolve(record: str, namespace: str | None, takes: tuple[str, ...], shown: bool, output: str) -> None:
    """Say which values hold. It is an ordinary write: the conflict is gone here, and then everywhere."""
    if bool(takes) == shown:
        raise UsageError("which values hold?", hint="--take PATH=NUMBER, or --shown")
    choices = dict(_taken(each) for each in takes)
    with session() as asked:
        found = _find(asked, record, namespace)
        key = {name: found[name] for name in ("kind", "namespace", "name")}
        told = asked.write(f"{_PATH}/resolve", {**key, "choices": choices, "all": shown})
    if output == "json":
        write(json_text(told, indent=2))
        return
    left = f"; {told['left']} left" if told["left"] else ""
    tell(f"{_record(told)}: {', '.join(told['resolved'])} resolved{left}")


def _taken(text: str) -> tuple[str, int]:
    path, equals, number = text.rpartition("=")
    if not equals or not path or not (number.isascii() and number.isdigit() and len(number) < 6):
        raise UsageError(f"--take {text!r:.60} is not PATH=NUMBER", hint="such as --take /spec/command=1")
    return path, int(number)


def _find(asked: Session, record: str, namespace: str | None) -> dict[str, Any]:
    """The conflicts of the record that `[kind/]name` means. Raises NotFound, UsageError when it may mean several."""
    items = asked.read(_PATH, limit=_MOST)["items"]
    found = [
        each for each in items if record in (each["name"], _record(each)) and namespace in (None, each["namespace"])
    ]
    if not found:
        raise NotFound(f"{record!r:.80} has no conflict", hint="`ureg conflict ls` lists those that have")
    if len(found) > 1:
        names = ", ".join(f"{_record(each)} ({each['namespace']})" for each in found[:10])
        raise UsageError(f"{record!r:.80} may mean {len(found)} records: {names}", hint="kind/name, and --namespace")
    return dict(found[0])


@conflict.command(
    "policy",
    cls=Command,
    examples=(
        Example("ureg conflict policy alias=newest", "the newest value of an alias holds, and none is listed"),
        Example("ureg conflict policy '*=manual'"),
    ),
)
@click.argument("policies", nargs=-1, required=True, metavar="KIND=POLICY...")
def policy(policies: tuple[str, ...]) -> None:
    """How conflicts are settled, by kind (`*`: all others): manual, newest or prefer-node:NODE. Replaces what was set.

    Set the same on all nodes: those with other policies are not talked to.
    """
    wanted = {}
    for each in policies:
        kind, equals, word = each.partition("=")
        if not equals:
            raise UsageError(f"{each!r:.60} is not KIND=POLICY", hint="such as alias=newest")
        wanted[kind] = word
    with session() as asked:
        told = asked.request("PUT", f"{_PATH}/policies", json={"policies": wanted}).json()
    for kind, word in told["policies"].items():
        tell(f"{kind}: {word}")
