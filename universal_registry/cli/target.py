"""`ureg target`: where changes are sent."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Command, Example, Group, output_option, result_option
from universal_registry.cli.output import Shape, emit, json_text, tell, write
from universal_registry.cli.session import note, session, warn
from universal_registry.cli.targets import TARGET_COLUMNS, short_target, target_name
from universal_registry.client.http import quote
from universal_registry.kernel.errors import UsageError
from universal_registry.kernel.ids import SYSTEM_NAMESPACE

_SHAPE = Shape("targets", TARGET_COLUMNS, target_name)
_ADD = (
    Example("ureg target add mine http://127.0.0.1:9000 --select kind=alias", "and send it all aliases"),
    Example("ureg target add partner https://hooks.example.com/in --secret @secret.txt"),
)


@click.group(
    "target",
    cls=Group,
    examples=(_ADD[0], Example("ureg target ls"), Example("ureg target test mine", "send it a test event now")),
)
def target() -> None:
    """Where changes are sent."""


@target.command("add", cls=Command, examples=_ADD)
@click.argument("name")
@click.argument("url")
@click.option("--select", metavar="SELECTOR", help="Also make a route of the same name: send it what this selects.")
@click.option("--network", type=click.Choice(("public", "private", "loopback")), help="Where its address may lie.")
@click.option("--secret", metavar="SECRET", help="Its signing secret (whsec_...), as @FILE or -; made if absent.")
@click.option("--insecure-http", is_flag=True, help="Allow http:// beyond this machine.")
@result_option()
def add(
    name: str, url: str, select: str | None, network: str | None, secret: str | None, insecure_http: bool, output: str
) -> None:
    """Add a target, give a declared one its address, or move one. The same again changes nothing."""
    body: dict[str, Any] = {"name": name, "url": url, "insecure_http": insecure_http}
    body |= {key: value for key, value in (("select", select), ("network", network)) if value is not None}
    if secret is not None:
        body["secret"] = _secret(secret)
    with session() as asked:
        answer = asked.write("/v1/-/targets", body)
    for text in answer["notes"]:
        note(text)
    warn(answer["warnings"])
    if output == "json":
        write(json_text(answer, indent=2))
        return
    tell(f"target {short_target(answer['target'])} {answer['result']}, revision {answer['revision']}")
    if answer["route"]:
        tell(f"route {answer['route']['route']} {answer['route']['result']}: {answer['route']['selector']}")
    if "secret" in answer:
        write(f"secret {answer['secret']}")
        note("the receiver checks signatures with this secret; it is not shown again")


def _secret(word: str) -> str:
    from universal_registry.cli.reading import value_text

    text = value_text(word).strip()
    if not text:
        raise UsageError("the secret is empty", hint="leave --secret out to have one made")
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
        emit([asked.read(_path(name))], output, _SHAPE, single=True)


@target.command(
    "test",
    cls=Command,
    examples=(Example("ureg target test mine"), Example("ureg target test mine --show", "with the exact request")),
)
@click.argument("name")
@click.option("--show", is_flag=True, help="Print the exact request too.")
@result_option()
def test(name: str, show: bool, output: str) -> int:
    """Send one test event now; exit 1 when it is not taken. Nothing of it is stored."""
    with session(drive=False) as asked:
        answer = asked.request("POST", f"{_path(name)}/test", query={"show": True if show else None}).json()
    if output == "json":
        write(json_text(answer, indent=2))
    else:
        _tell(answer)
    return 0 if answer["delivered"] else 1


def _tell(answer: dict[str, Any]) -> None:
    from universal_registry.cli.grid import escaped

    status = f" with {answer['status']}" if answer["status"] else ""
    name = short_target(answer["target"])
    if answer["delivered"]:
        write(f"{name} took it{status} in {answer['milliseconds']} ms")
    else:
        write(f"{name} did not take it{status}: {escaped(answer['reason'])}")
    if "request" in answer:
        request = answer["request"]
        write(f"\n{request['method']} {escaped(request['url'])}")
        for header, value in request["headers"]:
            write(f"{header}: {escaped(value)}")
        write(f"\n{escaped(request['body'])}")


def _path(name: str) -> str:
    return f"/v1/-/targets/{SYSTEM_NAMESPACE}/{quote(short_target(name))}"
