"""`ureg logs`: what the daemon wrote to its log."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import click

from universal_registry.cli.command import Example, command
from universal_registry.cli.grid import escaped
from universal_registry.cli.output import json_text
from universal_registry.cli.reading import unreadable
from universal_registry.cli.session import forgiving_settings
from universal_registry.kernel.errors import NotFound
from universal_registry.kernel.settings import Places

_PIECE = 1 << 16
_LOOK_SECONDS = 0.2
_SAID_APART = ("ts", "level", "event")


@command(
    "logs",
    Example("ureg logs"),
    Example("ureg logs -f", "and each new line, until Ctrl-C"),
    Example('ureg logs -n 1000 -o ndjson | grep \'"level":"error"\''),
)
@click.option("-f", "--follow", is_flag=True, help="Go on with each new line, also after a rotation, until Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), metavar="N", default=100, show_default=True, help="The newest so many."
)
@click.option(
    "-o", "--output", type=click.Choice(("text", "ndjson")), default="text", show_default=True, help="The form."
)
def logs(follow: bool, lines: int, output: str) -> None:
    """Print the end of the daemon's log, logs/registry.log of the home, oldest line first.

    As `ndjson` a line is what the daemon wrote: `ureg key open` opens what is sealed in it. Files that were rotated
    away before are not looked into.
    """
    loaded, _ = forgiving_settings()  # a broken config.py is a reason to look at the log
    path = Places(loaded.settings.home).log
    with suppress(KeyboardInterrupt), _opened(path) as file:
        newest, begun = _last(file, lines)
        _put(newest, output)
        if not follow:
            _put([begun] if begun else [], output)
            return
        for more in _coming(file, path, begun):
            _put(more, output)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise NotFound(f"there is no log {str(path)!r:.200}", hint="a daemon writes one: ureg up") from None
    except OSError as error:
        raise unreadable(str(path), error) from None


def _last(file: BinaryIO, lines: int) -> tuple[list[bytes], bytes]:
    """The newest lines, and what stands after the last line end: a line that is being written. The file is then read to
    its end as it was."""
    at = end = file.seek(0, os.SEEK_END)
    pieces: list[bytes] = []
    ends = 0
    while at > 0 and ends <= lines:
        length = min(at, _PIECE)
        at -= length
        file.seek(at)
        pieces.append(file.read(length))
        ends += pieces[-1].count(b"\n")
    file.seek(end)  # what was written meanwhile is still to come
    *whole, begun = b"".join(reversed(pieces)).split(b"\n")
    return whole[len(whole) - min(lines, len(whole)) :], begun


def _coming(file: BinaryIO, path: Path, begun: bytes) -> Iterator[list[bytes]]:
    """Lines as they are written, of the file and of those that take its place."""
    was_moved = False
    while True:
        piece = file.read(_PIECE)
        if piece:
            *whole, begun = (begun + piece).split(b"\n")
            yield whole
        elif was_moved:  # and it is read to its end
            file.close()
            file, begun, was_moved = path.open("rb", buffering=0), b"", False
        elif os.fstat(file.fileno()).st_size < file.tell():
            file.seek(0)
            begun = b""
        elif not (was_moved := _is_other(file, path)):
            time.sleep(_LOOK_SECONDS)


def _is_other(file: BinaryIO, path: Path) -> bool:
    """Whether the name belongs to another file now; not while it belongs to none."""
    try:
        return not os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _put(lines: list[bytes], output: str) -> None:
    for line in lines:
        text = line.decode("utf-8", "replace")
        sys.stdout.write((escaped(_words(text)) if output == "text" else text) + "\n")
    sys.stdout.flush()


def _words(text: str) -> str:
    """A line for people: when, how grave, what, and the rest as name=value."""
    try:
        said = json.loads(text)
    except ValueError:
        return text
    if not isinstance(said, dict) or not all(isinstance(said.get(name), str) for name in _SAID_APART):
        return text
    more = (f"{name}={_value(value)}" for name, value in said.items() if name not in _SAID_APART)
    return "  ".join([said["ts"], f"{said['level']:<7}", said["event"], " ".join(more)]).rstrip()


def _value(value: object) -> str:
    return value if isinstance(value, str) and value and " " not in value else json_text(value)
