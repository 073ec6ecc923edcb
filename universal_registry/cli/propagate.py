"""`ureg unidirectional`, and the modes that are not built yet."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Example, command, result_option
from universal_registry.cli.output import json_text, write
from universal_registry.cli.session import Session, note, session, warn
from universal_registry.cli.targets import short_target
from universal_registry.cli.waiting import await_session, seconds, verdict
from universal_registry.client.http import quote
from universal_registry.kernel.errors import NotFound, Refused, Unreachable, UsageError

BUILT = "built: unidirectional"
_DEFAULT_WAIT = "30s"
_NO_DAEMON = "no daemon runs: nothing more is delivered until you run: ureg up"


@command(
    "unidirectional",
    Example("ureg unidirectional --source myservice --target remote.service", "now, and after each change"),
    Example("ureg unidirectional --source alias/gs --target http://127.0.0.1:9000 --wait"),
    Example("ureg unidirectional --source kind=alias --target mine --once", "the state now, once"),
    Example('ureg unidirectional --source deploy --target mine --data \'{"version": "1.2"}\'', "one event"),
    Example("ureg unidirectional myservice mine @event.json", "the same without flags"),
    valued={"--wait": _DEFAULT_WAIT},
)
@click.argument("words", nargs=-1, metavar="[SOURCE TARGET [DATA]]")
@click.option("--source", metavar="SOURCE", help="[KIND/]NAME, or a selector such as kind=alias.")
@click.option("--target", metavar="TARGET", help="The name of a target, or a URL.")
@click.option("--data", metavar="DATA", help="An event to send once: JSON, text, @FILE or -.")
@click.option("--once", is_flag=True, help="Send the state as it is now, and nothing later.")
@click.option("--strict", is_flag=True, help="Fail when the source does not exist or the target has no address.")
@click.option("--wait", "wait", metavar="[=TIME]", help="Wait until it has arrived, for 30s or TIME.")
@click.option("--no-wait", is_flag=True, help="Without a daemon: store it, try nothing, exit 7.")
@click.option("--dry-run", is_flag=True, help="Say what it would do.")
@result_option()
def unidirectional(
    words: tuple[str, ...],
    source: str | None,
    target: str | None,
    data: str | None,
    once: bool,
    strict: bool,
    wait: str | None,
    no_wait: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Send a source to one target.

    Without data: the state of the source now, and each later change of it, for good; the same again changes nothing.
    With data: that, once. A target without an address, or a source that does not exist yet, is waited for.
    """
    source, target, data = _named(words, source, target, data)
    limit = seconds(wait) if wait is not None else None
    if limit is not None and no_wait:
        raise UsageError("--wait and --no-wait are both given")
    payload = _payload(data)
    body = {"source": source, "target": target, "data": payload, "once": once, "strict": strict}
    with session(drive=not no_wait) as asked:
        if dry_run:
            _foretell(asked, source, target, payload, once=once)
            return
        answer = asked.write("/v1/-/propagate", body)
        for text in answer["notes"]:
            note(text)
        warn(answer["warnings"])
        found = _follow(asked, answer, limit)
    _tell(answer, found, output)
    _conclude(found, limit, offline=asked.daemon is None, no_wait=no_wait)


def _named(
    words: tuple[str, ...], source: str | None, target: str | None, data: str | None
) -> tuple[str, str, str | None]:
    """Flags, or words in their order, which fill what no flag gives."""
    left = list(words)
    source = source if source is not None else left.pop(0) if left else None
    target = target if target is not None else left.pop(0) if left else None
    data = data if data is not None else left.pop(0) if left else None
    if left:
        raise UsageError(f"{left[0]!r:.60} is one word too many", hint="SOURCE TARGET [DATA]")
    if source is None or target is None:
        raise UsageError(f"no {'source' if source is None else 'target'} is given", hint="--source NAME --target NAME")
    return source, target, data


def _payload(word: str | None) -> Any:
    """JSON as the value it is, other text as a string; empty and unset mean that there is no data."""
    from universal_registry.kernel.errors import Malformed
    from universal_registry.kernel.loader import load_json

    if word is None:
        return None
    from universal_registry.cli.reading import value_text

    text = value_text(word)
    if not text.strip():
        return None
    try:
        return load_json(text)
    except Malformed as error:
        if text.lstrip()[:1] in ("{", "["):
            note(f"warning: the data is sent as a text: {error.message}")
        return text


def _follow(asked: Session, answer: dict[str, Any], limit: float | None) -> dict[str, Any]:
    """How far the session is: after waiting, or at once."""
    if limit is not None:
        return await_session(asked, str(answer["session"]), limit, note)
    found: dict[str, Any] = asked.read(f"/v1/-/sessions/{quote(answer['session'])}")
    return found


def _tell(answer: dict[str, Any], found: dict[str, Any], output: str) -> None:
    if output == "json":
        write(json_text({**answer, "state": found["state"], "progress": found["targets"]}, indent=2))
        return
    from universal_registry.cli.grid import escaped

    names = ", ".join(short_target(address) for address in answer["targets"])
    lasting = " and each later change" if answer["standing"] else " once"
    write(f"session {answer['session']} {found['state']}: {escaped(names)} gets {escaped(answer['source'])}{lasting}")
    if "secret" in answer:
        write(f"secret {answer['secret']}")
        note("the receiver checks signatures with this secret; it is not shown again")


def _conclude(found: dict[str, Any], limit: float | None, *, offline: bool, no_wait: bool) -> None:
    """Raise what the exit code is to tell."""
    if limit is not None:
        failed = verdict(found, limit)
        if failed is not None:
            raise failed
        return
    if offline and found["state"] not in ("in_sync", "succeeded"):
        if no_wait:
            raise Unreachable("it is stored, but no daemon runs to deliver it", hint="ureg up")
        note(_NO_DAEMON)


def _foretell(asked: Session, source: str, target: str, payload: Any, *, once: bool) -> None:
    """`--dry-run`: what both words mean now. Raises UsageError for a name that may mean several records."""
    what = _source_text(asked, source)
    sent = "one event of" if payload is not None else "the state of" if once else "the state and each later change of"
    write(f"would send {sent} {what} to {_target_text(asked, target)}")


def _source_text(asked: Session, source: str) -> str:
    from universal_registry.cli.grid import escaped
    from universal_registry.cli.records import key_text

    if "=" in source:
        count = sum(1 for _ in asked.items("/v1/-/records", {"select": source}))
        return f"{count} records ({escaped(source)})"
    found = asked.read("/v1/-/find", name=source)["items"]
    if len(found) > 1:
        keys = ", ".join(key_text(item) for item in found[:10])
        raise UsageError(f"{source!r:.80} may mean {len(found)} records: {keys}", hint="say which: kind/name")
    return escaped(key_text(found[0])) if found else f"{escaped(source)} (does not exist yet)"


def _target_text(asked: Session, target: str) -> str:
    from universal_registry.cli.grid import escaped

    if target.lower().startswith(("http://", "https://")):
        return escaped(target)
    name = short_target(target)
    try:
        known = asked.read(f"/v1/-/targets/system/{quote(name)}")
    except NotFound:
        return f"{escaped(name)} (unknown: it would be held until: ureg target add NAME URL)"
    return f"{escaped(name)} ({known['url'] or 'no address'}, {known['state']})"


def _unbuilt(name: str) -> Any:
    @command(
        name,
        Example("ureg unidirectional --source myservice --target remote.service", "what is built"),
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        help=f"{name} is not built yet; {BUILT}.",
    )
    def refuse() -> None:
        raise Refused(f"{name} is not built yet", hint=BUILT)

    return refuse


bidirectional = _unbuilt("bidirectional")
multicast = _unbuilt("multicast")
broadcast = _unbuilt("broadcast")
enable_stream = _unbuilt("enable-stream")
