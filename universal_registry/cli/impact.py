"""`ureg impact`: what a change of a record would reach."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Example, answer_option, command, namespace_option
from universal_registry.cli.output import tell, told_in_words, write_value
from universal_registry.cli.records import fetch, split_reference
from universal_registry.cli.references import all_references, key_of
from universal_registry.cli.session import session
from universal_registry.cli.targets import short_target
from universal_registry.kernel.errors import UsageError


@command(
    "impact",
    Example("ureg impact host h5", "before it is changed or deleted"),
    Example("ureg impact service/pay -o json"),
)
@click.argument("kind")
@click.argument("name", required=False)
@namespace_option("Where the record is; without it `default` first, then wherever it is.")
@answer_option()
def impact(kind: str, name: str | None, namespace: str | None, output: str) -> None:
    """What a change of a record would reach: the targets that would get it, and the records that refer to it.

    Both as the record is now; nothing is changed. `ureg route explain` says also why other targets do not get it.
    """
    kind, name = split_reference(kind, name)
    if name is None:
        raise UsageError("a KIND without a NAME", hint="ureg impact KIND NAME")
    with session() as asked:
        key = key_of(fetch(asked, kind, name, namespace))
        explained = asked.read("/v1/-/explain", name=f"{key.kind}/{key.name}", namespace=key.namespace)["items"]
        referring = [each for each in all_references(asked) if each.target == key]
    targets = [
        {"target": each["target"], "route": each["route"], "held": each["held"]}
        for record in explained
        for each in record["targets"]
        if each["gets"]
    ]
    found = {
        "record": key._asdict(),
        "targets": targets,
        "referring": [{**each.source._asdict(), "field": each.field} for each in referring],
    }
    if told_in_words(output):
        _tell(str(key), found)
    else:
        write_value(found, output)


def _tell(record: str, found: dict[str, Any]) -> None:
    targets, referring = found["targets"], found["referring"]
    tell(f"{record}: a change goes to {_many(len(targets), 'target')}; {_many(len(referring), 'reference')} to it")
    for each in targets:
        held = f", held: {each['held']}" if each["held"] else ""
        tell(f"  -> {short_target(each['target'])} by route {each['route']}{held}")
    for each in referring:
        tell(f"  <- {each['kind']}/{each['namespace']}/{each['name']} by {each['field']}")


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
