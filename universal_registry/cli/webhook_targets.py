"""`ureg webhook ls|add|rotate-secret`: the words of `ureg target` for targets that are webhooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from universal_registry.cli import target as targets
from universal_registry.cli import target_keys
from universal_registry.cli.command import Command, Example, output_option
from universal_registry.cli.output import Shape, emit
from universal_registry.cli.session import session
from universal_registry.cli.targets import TARGET_COLUMNS, target_name, target_path
from universal_registry.kernel.errors import Conflict, UsageError

_TRANSPORT, _SCHEMES = "webhook", ("http", "https")
_SHAPE = Shape("webhooks", TARGET_COLUMNS, target_name)


@click.command("ls", cls=Command, examples=(Example("ureg webhook ls"), Example("ureg webhook ls -o json")))
@output_option()
def list_(output: str) -> None:
    """List the targets that are webhooks, with their state."""
    with session() as asked:
        found = asked.read("/v1/-/targets")["items"]
    emit([each for each in found if each["transport"] == _TRANSPORT], output, _SHAPE)


def _like(
    command: click.Command, name: str, help_text: str, *examples: Example
) -> Callable[[Callable[..., None]], Command]:
    """A command with the words of another, for what is decorated. (`--home` and `--context` every command brings.)"""
    own = [each for each in command.params if not {"--home", "--context"} & set(each.opts)]

    def decorate(act: Callable[..., None]) -> Command:
        return Command(name, callback=act, params=own, help=help_text, examples=examples)

    return decorate


@_like(
    targets.add,
    "add",
    "Add a webhook, give a declared one its address, or move one: `ureg target add` for http:// and https://.",
    Example("ureg webhook add mine http://127.0.0.1:9000 --select kind=alias", "and send it all aliases"),
    Example("ureg webhook add partner https://hooks.example.com/in --secret @secret.txt"),
)
def add(name: str, url: str, **options: Any) -> None:
    """As `ureg target add`, for webhooks alone."""
    scheme, has_scheme, _ = url.partition("://")
    if has_scheme and scheme.lower() not in _SCHEMES:
        raise UsageError(f"{scheme[:40]}:// is no webhook", hint="ureg target add NAME URL")
    assert targets.add.callback is not None
    targets.add.callback(name=name, url=url, **options)


@_like(
    target_keys.rotate_secret,
    "rotate-secret",
    "Replace a webhook's signing secret: `ureg target secret rotate`. Both sign until the overlap ends.",
    Example("ureg webhook rotate-secret mine", "both secrets sign for a day"),
    Example("ureg webhook rotate-secret mine --overlap 0s", "the old one counts no more"),
)
def rotate_secret(name: str, **options: Any) -> None:
    """As `ureg target secret rotate`, for webhooks alone."""
    with session(drive=False) as asked:
        transport = asked.read(target_path(name))["transport"]
    if transport != _TRANSPORT:
        raise Conflict(f"target {name} is no webhook but goes by {transport}", hint=f"ureg target secret rotate {name}")
    assert target_keys.rotate_secret.callback is not None
    target_keys.rotate_secret.callback(name=name, **options)
