"""`ureg get -w`: what is there, then each change of it, until Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import select
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from universal_registry.cli.grid import escaped
from universal_registry.cli.output import json_text
from universal_registry.cli.session import note, reach, spoken
from universal_registry.client.watch import WatchClient
from universal_registry.kernel.errors import RegistryError, UsageError

Keep = Callable[[str], None]
_KEPT_EVERY_SECONDS = 1.0
FORMS = ("table", "json", "ndjson")
_SIGNS = {"put": "~", "delete": "-", "left": "<", "event": "!"}


def follow(query: Mapping[str, Any], output: str, *, keep: Keep | None = None) -> None:
    """Write frames until a signal ends it. Raises Unreachable when no daemon runs: nobody could tell of changes."""
    if output not in FORMS:
        raise UsageError(f"-o {output} is no form of a watch", hint="table (a line for people), json or ndjson")
    found = reach("a watch")
    run(WatchClient(found.addresses, token=found.token, ca_file=found.ca_file), query, output, keep=keep)


def run(client: WatchClient, query: Mapping[str, Any], output: str, *, keep: Keep | None = None) -> None:
    """Write the frames that the client gives, until a signal ends it. `keep` is told how far it is: once a second while
    there is more, when it is quiet, and at the end. Whoever is killed before that is told again: at least once."""
    kept = _Kept(keep) if keep is not None else None
    try:
        asyncio.run(_told(client, query, output, kept))
    except RegistryError as error:
        raise spoken(error) from None
    finally:
        sys.stdout.flush()
        if kept is not None:
            kept.finish()


class _Kept:
    """How far was written out, and that it is told in time."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._cursor = self._told = ""
        self._at = time.monotonic()

    def written(self, frame: Mapping[str, Any]) -> None:
        """The frame is out."""
        self._cursor = frame.get("cursor") or self._cursor
        if frame["type"] == "bookmark" or time.monotonic() - self._at >= _KEPT_EVERY_SECONDS:
            try:
                self.finish()
            except RegistryError as error:
                if not error.retryable:  # a daemon that is away comes back: it is told later
                    raise

    def finish(self) -> None:
        """Tell it now."""
        if self._cursor != self._told:
            self._keep(self._cursor)
            self._told, self._at = self._cursor, time.monotonic()


async def _told(client: WatchClient, query: Mapping[str, Any], output: str, kept: _Kept | None) -> None:
    async def told() -> None:
        async with aclosing(client.frames(query)) as frames:
            async for frame in frames:
                for line in _lines(frame, output):
                    sys.stdout.write(line + "\n")
                sys.stdout.flush()
                if _is_left():  # a bookmark writes nothing that would tell
                    raise BrokenPipeError(errno.EPIPE, "nobody reads any more")
                if kept is not None:
                    kept.written(frame)

    await until_signal(told())


def _is_left() -> bool:
    """Whether standard output is a pipe that nobody reads any more, as after `| head -1`."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Do it until it ends by itself, or by Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    asked_to_end = False

    def end() -> None:
        nonlocal asked_to_end
        asked_to_end = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        await work
    except asyncio.CancelledError:
        if not asked_to_end:
            raise


def _lines(frame: dict[str, Any], output: str) -> Sequence[str]:
    if output != "table":
        # A revision is one line: its cursor is behind all of it.
        return [] if frame["type"] == "bookmark" else [json_text(frame)]
    match frame["type"]:
        case "records":
            return [_line("=", record["meta"], record, record["classification"]) for record in frame["records"]]
        case "changes":
            return [_line(_sign(event), event, event, _what(event)) for event in frame["events"]]
        case "restart":
            note("the connection broke within the list; it begins again")
        case "gap":
            note(f"revisions {frame['first']} to {frame['last']} cannot be told any more")
    return []


def _sign(event: dict[str, Any]) -> str:
    return "+" if event["op"] == "put" and event["generation"] == 1 else _SIGNS[event["op"]]


def _what(event: dict[str, Any]) -> str:
    if event["op"] == "left":
        return f"no longer selected; {', '.join(event['changed'])}"
    return ", ".join(event["changed"]) or event["op"]


def _line(sign: str, place: dict[str, Any], key: dict[str, Any], what: str) -> str:
    name = f"{key['kind']}/{key['name']} ({key['namespace']})"
    who = place.get("actor") or place.get("updated_by", "")
    return escaped(f"{sign} {place['revision']:>7}  {name}  {what}  {who}")
