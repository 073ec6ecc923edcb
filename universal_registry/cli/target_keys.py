"""`ureg target secret` and `ureg target key`: what a target signs and seals with."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Command, Example, Group, answer_option, result_option
from universal_registry.cli.output import json_text, told_in_words, write, write_value
from universal_registry.cli.session import note, session, warn
from universal_registry.cli.targets import short_target, target_path

_OVERLAP = click.option(
    "--overlap", metavar="TIME", default="24h", show_default=True, help="How long the old one counts: 90m, 24h, 7d, 0s."
)


@click.group("secret", cls=Group, examples=(Example("ureg target secret rotate mine"),))
def secret() -> None:
    """The secret that requests to a target are signed with."""


@secret.command("show", cls=Command, examples=(Example("ureg target secret show mine > secret.txt"),))
@click.argument("name")
@answer_option()
def show_secret(name: str, output: str) -> None:
    """Print the signing secret, for its receiver."""
    _show(name, "secret", output)


@secret.command(
    "rotate",
    cls=Command,
    examples=(
        Example("ureg target secret rotate mine", "both secrets sign for a day"),
        Example("ureg target secret rotate mine --overlap 0s", "the old one counts no more"),
    ),
)
@click.argument("name")
@_OVERLAP
@result_option()
def rotate_secret(name: str, overlap: str, output: str) -> None:
    """Replace the signing secret. Both sign until the overlap ends; then the old one is removed."""
    _rotate(name, "secret", overlap, output, "both secrets sign until")


@click.group("key", cls=Group, examples=(Example("ureg target key show mine"),))
def key() -> None:
    """The key that bodies for a target are sealed with; of this target alone."""


@key.command(
    "show",
    cls=Command,
    examples=(Example("ureg target key show mine > key.txt"), Example("ureg target key show mine -o json", "as a JWK")),
)
@click.argument("name")
@answer_option()
def show_key(name: str, output: str) -> None:
    """Print the sealing key, for its receiver."""
    _show(name, "key", output)


@key.command(
    "rotate",
    cls=Command,
    examples=(
        Example("ureg target key rotate mine", "make one, or replace it in a day"),
        Example("ureg target key rotate mine --overlap 0s", "seal with the new one at once"),
    ),
)
@click.argument("name")
@_OVERLAP
@result_option()
def rotate_key(name: str, overlap: str, output: str) -> None:
    """Replace the sealing key. The old one seals until the overlap ends: give the receiver the new one before."""
    _rotate(name, "key", overlap, output, "the old key seals until")


_FIELDS = {"secret": "secret", "key": "seal_key"}


def _show(name: str, what: str, output: str) -> None:
    with session(drive=False) as asked:
        answer = asked.read(f"{target_path(name)}/{what}")
    if not told_in_words(output):
        write_value(answer, output)
        return
    field = _FIELDS[what]
    write(answer[field])
    if f"previous_{field}_until" in answer:
        write(answer[f"previous_{field}"])
        note(f"the second is the one before; it counts until {answer[f'previous_{field}_until']}")


def _rotate(name: str, what: str, overlap: str, output: str, meaning: str) -> None:
    with session() as asked:
        answer: dict[str, Any] = asked.write(f"{target_path(name)}/{what}/rotate", {"overlap": overlap})
    warn(answer["warnings"])
    if output == "json":
        write(json_text(answer, indent=2))
        return
    field = _FIELDS[what]
    write(f"{what} {answer[field]}")
    until = answer[f"previous_{field}_until"]
    place = short_target(answer["target"])
    note(f"{place}: {meaning} {until}" if until else f"{place}: the new one counts at once")
