"""`ureg listen --exec`: a process of its own for each event that is received."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

from universal_registry.cli.output import json_text
from universal_registry.client.listen import Heard
from universal_registry.kernel.errors import NotFound, UsageError

MOST_RUNNING, MOST_WAITING = 4, 100
SECONDS = 25.0
"""Less than the 30 s for which a sender waits for an answer, so that it hears why."""
_GRACE_SECONDS = 2.0
_SHELL = "/bin/sh"
_TRUST = {None: "unchecked", True: "yes", False: "no"}


def words_of(command: str, *, shell: bool) -> tuple[str, ...]:
    """The words that are run: those of the command, or a shell that reads it. Raises UsageError, NotFound."""
    if shell:
        return _SHELL, "-c", command
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise UsageError(f"--exec: {error}".lower(), hint="quote it, as in --exec 'notify-send \"a change\"'") from None
    if not words or not words[0]:
        raise UsageError("--exec names no command", hint="as in --exec ./on-event.sh")
    if shutil.which(words[0]) is None:
        raise NotFound(f"there is no command {words[0]!r:.80}", hint="--shell has a shell read it")
    return words


class Exec:
    """Runs a command for an event: the event's data as JSON on standard input, the rest in variables. What the command
    writes goes where ours goes. So many run at once, and so many more wait for their turn."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str], seconds: float = SECONDS) -> None:
        self._words = words
        self._environ = environ
        self._seconds = seconds
        self._slots = asyncio.Semaphore(MOST_RUNNING)
        self._waiting = 0
        self._running: set[asyncio.subprocess.Process] = set()

    async def __call__(self, heard: Heard) -> str:
        """Empty when the command exited with 0; else why the event is to come again."""
        if self._waiting >= MOST_WAITING:
            return f"{self._waiting} events wait for --exec already"
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._run(heard)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """End what still runs: asked first, then killed."""
        for process in self._running:
            _signal(process, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                for process in list(self._running):
                    await process.wait()
        for process in list(self._running):
            _signal(process, signal.SIGKILL)
            await process.wait()
        self._running.clear()

    async def _run(self, heard: Heard) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._words,
                stdin=asyncio.subprocess.PIPE,
                env={**self._environ, **_variables(heard)},
                start_new_session=True,  # Ctrl-C is for us: what runs may end first
            )
        except (OSError, ValueError) as error:
            return f"--exec cannot be run: {getattr(error, 'strerror', None) or error}"
        self._running.add(process)
        data = b"" if heard.data is None else (json_text(heard.data) + "\n").encode("utf-8", "replace")
        try:
            async with asyncio.timeout(self._seconds):
                await process.communicate(data)
        except TimeoutError:
            _signal(process, signal.SIGKILL)
            await process.wait()
            self._running.discard(process)
            return f"--exec has not ended within {self._seconds:g} s"
        self._running.discard(process)
        code = process.returncode or 0
        return "" if code == 0 else f"--exec {_ending(code)}"


def _variables(heard: Heard) -> dict[str, str]:
    said = {
        "ID": heard.id,
        "TYPE": heard.type,
        "SUBJECT": heard.subject,
        "SEQUENCE": heard.sequence,
        "VERIFIED": _TRUST[heard.verified],
        "LATE": "yes" if heard.late else "no",
    }
    # A sender may say anything; a variable can hold neither NUL nor what is no text.
    clean = {name: value.encode("utf-8", "replace").decode().replace("\0", "\ufffd") for name, value in said.items()}
    return {f"UREG_EVENT_{name}": value for name, value in clean.items()}


def _ending(code: int) -> str:
    if code > 0:
        return f"exited with {code}"
    named = {number.value: number.name for number in signal.Signals}  # real-time signals have no names
    return f"was ended by {named.get(-code, f'signal {-code}')}"


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To it and to what it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
