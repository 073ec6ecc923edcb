"""What the propagation commands share: their words, storing, saying what came of it, and waiting."""

from __future__ import annotations

from typing import Any

from universal_registry.cli.board import board
from universal_registry.cli.output import json_text, write
from universal_registry.cli.session import Session, note, session, warn
from universal_registry.cli.targets import short_target
from universal_registry.cli.waiting import Wait, await_session, seconds, stragglers, verdict, wait_for
from universal_registry.client.http import quote
from universal_registry.kernel.errors import Refused, Unreachable, UsageError

_PATH = "/v1/-/propagate"
_TWO_WAY = ("bidirectional", "mesh")
_NO_DAEMON = "no daemon runs: nothing more is delivered until you run: ureg up"
_LONGEST_KEY = 255
_PROTOCOLS = ("http", "webhook", "websocket", "stream", "nats", "peer", "file")
_BUILT = ("http", "webhook", "websocket", "nats")


# --- words ----------------------------------------------------------------------------------------------------------


def next_word(flag: str | None, left: list[str], what: str, hint: str) -> str:
    """What the flag says, else the next word."""
    if flag is not None:
        return flag
    if not left:
        raise UsageError(f"no {what} is given", hint=hint)
    return left.pop(0)


def names_in(lists: tuple[str, ...]) -> list[str]:
    """The names in comma lists."""
    return [word.strip() for text in lists for word in text.split(",") if word.strip()]


def data_word(left: list[str], more: dict[str, Any]) -> str | None:
    """The data: what the flag says, else the next word; the one after it names a protocol."""
    data = more.get("data")
    if data is None and left:
        data = left.pop(0)
    if left:
        _check_protocol(left.pop(0))
    if left:
        raise UsageError(f"{left[0]!r:.60} is one word too many", hint="SOURCE TARGET [DATA [PROTOCOL]]")
    return None if data is None else str(data)


def _check_protocol(word: str) -> None:
    if word in _BUILT:
        return
    if word in _PROTOCOLS:
        raise Refused(f"protocol {word} is not built yet", hint="built: " + ", ".join(_BUILT))
    raise UsageError(f"{word!r:.40} is no protocol", hint="one of " + ", ".join(_PROTOCOLS))


def last_is_data(left: list[str]) -> str:
    """The last of `SOURCE TARGET... DATA`. A word that may as well be a target is refused instead of guessed at."""
    from universal_registry.kernel.errors import Malformed
    from universal_registry.kernel.loader import load_json

    word = left.pop()
    if word == "-" or word.startswith("@") or not word.strip():
        return word
    try:
        load_json(word)
    except Malformed:
        hint = 'targets without data: --targets "a,b"; text as data: --data TEXT'
        raise UsageError(f"the last word {word!r:.60} is no data: JSON, @FILE or -", hint=hint) from None
    return word


def only_targets(left: list[str]) -> list[str]:
    """Words that are all targets; what looks like data is refused, not taken for a target of that name."""
    for word in left:
        if word[:1] in ("{", "[", "@") or word == "-":
            raise UsageError(f"{word!r:.60} looks like data, and all words here are targets", hint="--data DATA")
    return left


def _payload(word: str | None) -> Any:
    """JSON as the value it is, other text as a string; empty and unset mean that there is no data."""
    if word is None:
        return None
    from universal_registry.cli.reading import value_text
    from universal_registry.kernel.errors import Malformed
    from universal_registry.kernel.loader import load_json

    text = value_text(word)
    if not text.strip():
        note("warning: the data is empty, so this is no event: the state is sent, and each later change of it")
        return None
    try:
        return load_json(text)
    except Malformed as error:
        if text.lstrip()[:1] in ("{", "["):
            note(f"warning: the data is sent as a text: {error.message}")
        return text


# --- running --------------------------------------------------------------------------------------------------------


def run_mode(mode: str, source: str | None, targets: list[str], data: str | None, more: dict[str, Any]) -> None:
    """Store it, say what came of it, and wait if that was asked for."""
    wait, no_wait = wait_for(more.get("wait")), bool(more.get("no_wait"))
    if wait is not None and no_wait:
        raise UsageError("--wait and --no-wait are both given")
    deadline = more.get("deadline")
    body: dict[str, Any] = {"mode": mode, "source": source, "targets": targets, "data": _payload(data)}
    for name in ("once", "strict", "exclude", "follow", "on_failure"):
        if more.get(name):
            body[name] = more[name]
    if deadline is not None:
        body["deadline"] = seconds(deadline, "--deadline")
    with session(drive=not no_wait) as asked:
        if more["dry_run"]:
            _foretell(asked, body, more["output"])
            return
        answer = _stored(asked, body, more.get("idempotency_key"))
        for text in answer["notes"]:
            note(text)
        warn(answer["warnings"])
        found = _follow(asked, answer, wait)
    _tell(answer, found, more["output"])
    _conclude(found, wait, offline=asked.daemon is None, no_wait=no_wait)


def _stored(asked: Session, body: dict[str, Any], key: str | None) -> dict[str, Any]:
    if key is None:
        headers = {}
    elif key.isascii() and key.isprintable() and key.strip() == key and 0 < len(key) <= _LONGEST_KEY:
        headers = {"idempotency-key": key}
    else:
        raise UsageError("the idempotency key cannot be used", hint=f"1 to {_LONGEST_KEY} ASCII characters on one line")
    reply = asked.request("POST", _PATH, json=body, headers=headers)
    if reply.headers.get("idempotency-replayed"):
        note("this was done before: the answer is that of then")
    answer: dict[str, Any] = reply.json()
    return answer


def _follow(asked: Session, answer: dict[str, Any], wait: Wait | None) -> dict[str, Any]:
    """How far the session is: after waiting, or at once."""
    if wait is not None:
        try:
            return await_session(asked, str(answer["session"]), wait, board(note))
        except KeyboardInterrupt:
            note(f"it goes on; ureg session get {answer['session']}")
            raise
    found: dict[str, Any] = asked.read(f"/v1/-/sessions/{quote(answer['session'])}")
    return found


def _tell(answer: dict[str, Any], found: dict[str, Any], output: str) -> None:
    if output == "json":
        write(json_text({**answer, "state": found["state"], "progress": found["targets"]}, indent=2))
        return
    from universal_registry.cli.grid import escaped

    names = ", ".join(short_target(address) for address in answer["targets"]) or "nobody yet"
    if answer["mode"] in _TWO_WAY and answer["standing"]:
        state = found["state"]
        write(f"session {answer['session']} {state}: {escaped(answer['source'])} here and at {escaped(names)}")
        return
    lasting = " and each later change" if answer["standing"] else " once"
    gets = "get" if len(answer["targets"]) > 1 else "gets"
    write(f"session {answer['session']} {found['state']}: {escaped(names)} {gets} {escaped(answer['source'])}{lasting}")
    for address, secret in _secrets(answer).items():
        write(f"secret {secret}" if "secret" in answer else f"secret {short_target(address)} {secret}")
        note("the receiver checks signatures with this secret; again: ureg target secret show NAME")


def _secrets(answer: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {"": answer["secret"]} if "secret" in answer else answer.get("secrets", {})
    return found


def _conclude(found: dict[str, Any], wait: Wait | None, *, offline: bool, no_wait: bool) -> None:
    """Raise what the exit code is to tell."""
    if wait is not None:
        if len(found["targets"]) > 1:
            note(stragglers(found))
        failed = verdict(found, wait)
        if failed is not None:
            raise failed
        return
    if offline and found["state"] not in ("in_sync", "succeeded", "planned"):
        if no_wait:
            raise Unreachable("it is stored, but no daemon runs to deliver it", hint="ureg up")
        note(_NO_DAEMON)


def _foretell(asked: Session, body: dict[str, Any], output: str) -> None:
    """`--dry-run`: what both ends mean now, who is left out and why, and what would be stored."""
    names = {"mode", "source", "exclude", "follow", "on_failure", "once", "strict"}
    query = {name: _text(value) for name, value in body.items() if name in names and value is not None}
    query |= {"target": body["targets"], "event": _text(body["data"] is not None)}
    found = asked.read(_PATH, **query)
    for text in found["notes"]:
        note(text)
    warn(found["warnings"])
    if output == "json":
        write(json_text(found, indent=2))
        return
    from universal_registry.cli.grid import escaped

    what = "one event of" if not found["standing"] and body["data"] is not None else "the state of"
    lasting = " and each later change" if found["standing"] else ""
    count = "" if found["matches"] == 1 else f" ({'many' if found['matches'] is None else found['matches']} records)"
    write(f"would send {what} {escaped(found['source'])}{count}{lasting} ({found['mode']}, {found['would']})")
    for each in found["states"]:
        write(f"  to {escaped(short_target(each['target']))}: {escaped(each['url'] or 'no address')}, {each['state']}")
    for each in found["excluded"]:
        write(f"  not to {escaped(short_target(each['target']))}: {escaped(each['by'])}")


def _text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
