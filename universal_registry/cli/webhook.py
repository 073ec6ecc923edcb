"""`ureg webhook`: the targets that are webhooks, and for receivers a look at a captured request and the public keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from universal_registry.cli.command import Command, Example, Group, answer_option, result_option
from universal_registry.cli.output import json_text, tell, told_in_words, write, write_value
from universal_registry.cli.session import session
from universal_registry.cli.targets import short_target, target_path
from universal_registry.cli.webhook_targets import add, list_, rotate_secret
from universal_registry.kernel.errors import NotFound, RegistryError, UsageError

if TYPE_CHECKING:
    from universal_registry.client.captured import Keys

_VERIFY = (
    Example("ureg webhook verify request.http --target mine", "with the keys of that target"),
    Example("ureg webhook verify request.http --secret @secret.txt"),
    Example("ureg webhook verify headers.txt body.json --secret @secret.txt", "headers and body apart"),
)


@click.group("webhook", cls=Group, examples=(_VERIFY[0], Example("ureg webhook keys")))
def webhook() -> None:
    """Webhooks from both ends: the targets that are one; verify what a receiver got."""


webhook.add_command(list_)
webhook.add_command(add)
webhook.add_command(rotate_secret)


@webhook.command("verify", cls=Command, examples=_VERIFY)
@click.argument("file")
@click.argument("body", required=False)
@click.option(
    "--secret",
    "secrets",
    metavar="SECRET",
    multiple=True,
    help="A signing secret (whsec_...) or a sender's public key (whpk_...), as @FILE or -; repeatable.",
)
@click.option("--key", "keys", metavar="KEY", multiple=True, help="A sealing key (sealkey_...), as @FILE; repeatable.")
@click.option("--target", metavar="NAME", help="Take the secrets and keys of this target.")
@result_option()
def verify(
    file: str, body: str | None, secrets: tuple[str, ...], keys: tuple[str, ...], target: str | None, output: str
) -> int:
    """Check a captured request, and say what is wrong with it; exit 4 when it is not authentic.

    The file holds header lines, an empty line, and the body as it came.
    """
    from universal_registry.cli.reading import read_file, read_input, secret_text
    from universal_registry.client.captured import examine, read_captured
    from universal_registry.kernel.world import SystemWorld

    words = [secret_text(word, "secret") for word in secrets]
    seals = [secret_text(word, "key") for word in keys]
    if target is not None:
        words, seals = _of_target(target, words, seals)
    if not words:
        raise UsageError("there is nothing to check with", hint="give --secret @FILE, or --target NAME")
    captured = read_captured(
        read_input() if file == "-" else read_file(file), None if body is None else read_file(body)
    )
    findings, message = examine(captured, _parsed(words, seals), SystemWorld().now())
    if output == "json":
        shown = [{"ok": each.ok, "text": each.text} for each in findings]
        write(json_text({"authentic": message is not None, "findings": shown}, indent=2))
    else:
        for each in findings:
            tell(f"{'note' if each.ok is None else 'ok' if each.ok else 'WRONG':<6}{each.text}")
    return 0 if message is not None else 4


@webhook.command(
    "test",
    cls=Command,
    examples=(Example("ureg webhook test", "every target that has an address"), Example("ureg webhook test mine chat")),
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@result_option()
def test(names: tuple[str, ...], output: str) -> int:
    """Send a test event to each target, and say who took it; exit 8 when some did not, 1 when none did."""
    with session(drive=False) as asked:
        known = [asked.read(target_path(name)) for name in names] or asked.read("/v1/-/targets")["items"]
        found = [each for each in known if names or each["url"]]
        if not found:
            raise NotFound("there is no target with an address", hint="ureg target add NAME URL")
        answers = []
        for each in found:
            path = target_path(each["target"])
            try:
                answer = asked.request("POST", f"{path}/test").json()
            except RegistryError as error:
                answer = {"target": each["target"], "delivered": False, "status": None, "reason": error.message}
            answers.append({**answer, "validated_at": each["validated_at"]})
    if output == "json":
        write(json_text(answers, indent=2))
    else:
        for answer in answers:
            trust = "validated" if answer["validated_at"] else "not validated"
            said = f"ok     {answer['status']}" if answer["delivered"] else f"FAILED {answer['reason']}"
            tell(f"{short_target(answer['target'])}  {said}  ({trust})")
    good = sum(answer["delivered"] for answer in answers)
    return 0 if good == len(answers) else 8 if good else 1


@webhook.command("keys", cls=Command, examples=(Example("ureg webhook keys"), Example("ureg webhook keys -o json")))
@answer_option()
def keys(output: str) -> None:
    """Print the public key that checks v1a signatures of this registry (whpk_...); as JSON, the key set (JWKS)."""
    import base64

    with session(drive=False) as asked:
        answer: dict[str, Any] = asked.read("/.well-known/webhook-keys")
    if not told_in_words(output):
        write_value(answer, output)
        return
    for key in answer["keys"]:
        write("whpk_" + base64.b64encode(base64.urlsafe_b64decode(key["x"] + "=")).decode())


def _of_target(target: str, words: list[str], seals: list[str]) -> tuple[list[str], list[str]]:
    """What the receiver of this target may hold, added to what was given."""
    path = target_path(target)
    with session(drive=False) as asked:
        try:
            answer = asked.read(f"{path}/secret")
        except NotFound:
            asked.read(path)  # the target itself is there; else this says what was meant
            answer = {}
        try:
            sealing = asked.read(f"{path}/key")
        except NotFound:
            sealing = {}
    words += [answer[name] for name in ("secret", "previous_secret", "public_key") if answer.get(name)]
    seals += [sealing[name] for name in ("seal_key", "previous_seal_key") if sealing.get(name)]
    return words, seals


def _parsed(words: list[str], seals: list[str]) -> Keys:
    from universal_registry.client.captured import Keys
    from universal_registry.security.ed25519 import PUBLIC_PREFIX, parse_public_key
    from universal_registry.security.signing import parse_secret
    from universal_registry.security.wire import parse_wire_key

    return Keys(
        secrets=[parse_secret(word) for word in words if not word.startswith(PUBLIC_PREFIX)],
        public_keys=[parse_public_key(word) for word in words if word.startswith(PUBLIC_PREFIX)],
        seal_keys=[parse_wire_key(word) for word in seals],
    )
