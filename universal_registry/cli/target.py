"""`ureg target`: where changes are sent, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from universal_registry.cli.command import Command, Example, Group, output_option, result_option
from universal_registry.cli.output import Shape, emit, json_text, tell, write
from universal_registry.cli.session import note, session, warn
from universal_registry.cli.target_keys import key, secret
from universal_registry.cli.target_lane import TRAFFIC_OPTIONS, breaker, disable, enable, pause, resume
from universal_registry.cli.target_remove import remove
from universal_registry.cli.targets import TARGET_COLUMNS, short_target, target_name, target_path

_SHAPE = Shape("targets", TARGET_COLUMNS, target_name)
_ADD = (
    Example("ureg target add mine http://127.0.0.1:9000 --select kind=alias", "and send it all aliases"),
    Example("ureg target add partner https://hooks.example.com/in --secret @secret.txt"),
    Example("ureg target add chat https://hooks.slack.com/services/T0/B0/x --format slack"),
)


@click.group(
    "target",
    cls=Group,
    examples=(_ADD[0], Example("ureg target ls"), Example("ureg target test mine", "send it a test event now")),
)
def target() -> None:
    """Where changes are sent."""


for each in (pause, resume, disable, enable, breaker, remove):
    target.add_command(each)
target.add_command(secret)
target.add_command(key)


def _delivery_options(call: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how a target is delivered to."""
    options = (
        click.option(
            "--network", type=click.Choice(("public", "private", "loopback")), help="Where its address may lie."
        ),
        click.option("--secret", metavar="SECRET", help="Its signing secret (whsec_...), as @FILE or -."),
        click.option(
            "--insecure-http/--no-insecure-http",
            default=None,
            help="Allow http:// beyond this machine; --no-insecure-http takes it back.",
        ),
        click.option(
            "--signing",
            type=click.Choice(("hmac", "ed25519", "both")),
            help="Sign with the shared secret (v1), with this registry's own key (v1a), or with both.",
        ),
        click.option(
            "--seal",
            type=click.Choice(("auto", "always", "never")),
            help="Seal bodies; auto: where they would travel in clear, or hold secrets.",
        ),
        click.option(
            "--format",
            type=click.Choice(("cloudevents", "raw", "slack", "discord", "template")),
            help="How an event is written.",
        ),
        click.option("--template", metavar="TEXT", help="The template of the body, as @FILE or -; for that format."),
        click.option("--content-type", metavar="TYPE", help="What the template makes; JSON if absent."),
        click.option("--in-flight", type=click.IntRange(1), metavar="N", help="Deliveries at the same time."),
        click.option("--timeout", type=float, metavar="SECONDS", help="For one attempt."),
        *TRAFFIC_OPTIONS,
    )
    for option in reversed(options):
        call = option(call)
    return call


def _asked(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as the API takes them."""
    from universal_registry.cli.reading import value_text

    asked = {name: value for name, value in options.items() if value is not None}
    if "secret" in asked:
        asked["secret"] = _secret(asked["secret"])
    if "template" in asked:
        asked["template"] = value_text(asked["template"])
        asked.setdefault("format", "template")
    return asked


@target.command("add", cls=Command, examples=_ADD)
@click.argument("name")
@click.argument("url")
@click.option("--select", metavar="SELECTOR", help="Also make a route of the same name: send it what this selects.")
@_delivery_options
@result_option()
def add(name: str, url: str, select: str | None, output: str, **options: Any) -> None:
    """Add a target, give a declared one its address, or move one. The same again changes nothing."""
    body: dict[str, Any] = {"name": name, "url": url, **_asked(options)}
    if select is not None:
        body["select"] = select
    with session() as asked:
        answer = asked.write("/v1/-/targets", body)
    _changed(answer, output)


@target.command(
    "set",
    cls=Command,
    examples=(
        Example("ureg target set mine --signing both"),
        Example("ureg target set mine --seal always", "a sealing key is made and shown"),
        Example("ureg target set mine --template '{\"text\": {{ text|tojson }}}'"),
    ),
)
@click.argument("name")
@_delivery_options
@result_option()
def set_(name: str, output: str, **options: Any) -> None:
    """Change how a target is delivered to; what is not named stays as it is."""
    with session() as asked:
        answer = asked.request("PATCH", target_path(name), json=_asked(options)).json()
    _changed(answer, output)


def _changed(answer: dict[str, Any], output: str) -> None:
    for text in answer["notes"]:
        note(text)
    warn(answer["warnings"])
    if output == "json":
        write(json_text(answer, indent=2))
        return
    name = short_target(answer["target"])
    tell(f"target {name} {answer['result']}, revision {answer['revision']}")
    if answer["route"]:
        tell(f"route {answer['route']['route']} {answer['route']['result']}: {answer['route']['selector']}")
    if "secret" in answer:
        write(f"secret {answer['secret']}")
        note(f"the receiver checks signatures with this secret; again: ureg target secret show {name}")
    if "seal_key" in answer:
        write(f"key {answer['seal_key']}")
        note(f"the receiver opens sealed bodies with this key; again: ureg target key show {name}")


def _secret(word: str) -> str:
    from universal_registry.cli.reading import secret_text

    text = secret_text(word, "secret")
    if text == word:
        note("warning: the secret stood in the command line, which `ps` shows: use --secret - or --secret @FILE")
    return text


@target.command("ls", cls=Command, examples=(Example("ureg target ls"), Example("ureg target ls -o json")))
@output_option()
def list_(output: str) -> None:
    """List the targets with their state."""
    with session() as asked:
        emit(asked.read("/v1/-/targets")["items"], output, _SHAPE)


@target.command("get", cls=Command, examples=(Example("ureg target get mine -o yaml"),))
@click.argument("name")
@output_option()
def get(name: str, output: str) -> None:
    """Show one target with its state."""
    with session() as asked:
        emit([asked.read(target_path(name))], output, _SHAPE, single=True)


@target.command(
    "test",
    cls=Command,
    examples=(
        Example("ureg target test mine"),
        Example("ureg target test mine --show > request.http", "the exact request, which is not sent"),
    ),
)
@click.argument("name")
@click.option("--show", is_flag=True, help="Send nothing; print the exact request.")
@result_option()
def test(name: str, show: bool, output: str) -> int:
    """Send one test event now; exit 1 when it is not taken. Nothing of it is stored."""
    with session(drive=False) as asked:
        answer = asked.request("POST", f"{target_path(name)}/test", query={"show": True if show else None}).json()
    if output == "json":
        write(json_text(answer, indent=2))
    elif show:
        _show(answer["request"])
    else:
        _tell(answer)
    return 0 if show or answer["delivered"] else 1


@target.command("validate", cls=Command, examples=(Example("ureg target validate mine"),))
@click.argument("name")
@result_option()
def validate(name: str, output: str) -> int:
    """Send a signed challenge; exit 1 unless the receiver answers with it, which marks the target as validated."""
    with session(drive=False) as asked:
        answer = asked.request("POST", f"{target_path(name)}/validate").json()
    if output == "json":
        write(json_text(answer, indent=2))
    elif answer["validated"]:
        tell(f"{short_target(answer['target'])} answered the challenge: validated")
    elif answer["delivered"]:
        tell(f"{short_target(answer['target'])} is not validated: {answer['reason']}")
    else:
        _tell(answer)
    return 0 if answer["validated"] else 1


def _tell(answer: dict[str, Any]) -> None:
    status = f" with {answer['status']}" if answer["status"] else ""
    name = short_target(answer["target"])
    if answer["delivered"]:
        tell(f"{name} took it{status} in {answer['milliseconds']} ms")
    else:
        tell(f"{name} did not take it{status}: {answer['reason']}")


def _show(request: dict[str, Any]) -> None:
    """The request as `ureg webhook verify` reads it. To a file the body goes byte for byte, with nothing after it."""
    import sys

    from universal_registry.cli.grid import escaped

    lines = [f"{request['method']} {request['url']}", *(f"{name}: {value}" for name, value in request["headers"])]
    on_screen = sys.stdout.isatty()
    body = escaped(request["body"]) + "\n" if on_screen else request["body"]
    sys.stdout.write("\n".join([*map(escaped, lines), "", body]))
