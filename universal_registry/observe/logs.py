"""One event a line, each a JSON object: `ts`, `level`, `event`, `part`, then the fields of the event.

Lines are written whole, with one system call and no buffer, so that neither a rotation nor a kill loses or mixes them.
Nothing in a line can steer a terminal. Secrets are cut out by the name of their field, by their shape, and by value.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import stat
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from universal_registry.kernel.errors import ReadOnlyStore, RegistryError

ROOT = "universal_registry"
REDACTED = "[redacted]"
_MOST_TEXT = 8192
_SECRET_NAME = re.compile(r"secret|token|passw|authorization|credential|cookie|(^|[_-])key$", re.IGNORECASE)
_SECRET_SHAPE = re.compile(
    r"\bur_[A-Za-z0-9_-]{20,}|\bwhsec_[A-Za-z0-9+/=_-]{8,}|(?<=Bearer )[^\s\"]+|(?<=://)[^/\s\"@]+(?=@)"
)
_SECRET_MARKS = ("ur_", "whsec_", "Bearer ", "://")
# What moves a cursor, reorders a line or ends it early: DEL, C1 controls, bidi marks, line and paragraph separators.
_STEERING = {
    code: f"\\u{code:04x}"
    for code in (
        *range(0x7F, 0xA0),
        0x61C,
        *range(0x200B, 0x2010),
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
        0xFEFF,
    )
}
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Log:
    """Where one part of the program writes its events: `Log("runner").info("ready", revision=12)`."""

    def __init__(self, part: str) -> None:
        self._logger = logging.getLogger(f"{ROOT}.{part}")

    def debug(self, event: str, **fields: object) -> None:
        """What only someone who looks for a fault wants to see."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """What happened."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """What someone should look at."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, error: BaseException | None = None, **fields: object) -> None:
        """What failed. The traceback of `error` goes along unless it is one of ours, which say it all themselves."""
        self._write(logging.ERROR, event, fields, error)

    def _write(self, level: int, event: str, fields: dict[str, object], error: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", event, extra={"fields": fields, "failure": error})


class Redactor:
    """Knows the secrets that must appear in no line."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, *values: str | bytes) -> None:
        """Cut these values out from now on. Very short ones are left: they would cut words apart."""
        texts = {value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values}
        # As they stand in a line, too: JSON escapes some characters.
        self._values |= {form for text in texts if len(text) >= 6 for form in (text, orjson.dumps(text).decode()[1:-1])}
        ordered = sorted(self._values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def clean(self, line: str) -> str:
        """The line without them."""
        if any(mark in line for mark in _SECRET_MARKS):
            line = _SECRET_SHAPE.sub(REDACTED, line)
        return self._pattern.sub(REDACTED, line) if self._pattern else line


class JsonFormatter(logging.Formatter):
    """A log record as one JSON object on one line."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor
        self.seal: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {
            "ts": at,
            "level": record.levelname.lower(),
            "event": _shown(record.getMessage()),
            "part": record.name.removeprefix(ROOT + "."),
        }
        fields = getattr(record, "fields", None) or {}
        # An event's own field never hides what every line has.
        line |= {name if name not in line else name + "_": _hidden(name, value) for name, value in fields.items()}
        failure = getattr(record, "failure", None) or (record.exc_info[1] if record.exc_info else None)
        if failure is not None:
            line |= _failure(failure)
        text = _dumped(line)
        text = self._redactor.clean(text if text.isascii() and "\x7f" not in text else text.translate(_STEERING))
        return text if self.seal is None else _dumped(self.seal(orjson.loads(text)))


class LineFile(logging.Handler):
    """Appends lines to a file, and finds it again when it was moved away.

    A full disk costs lines, never the daemon; how many is said in the first line that can be written again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.lost = 0
        self._descriptor = -1
        self.reopen()

    def reopen(self) -> None:
        """Go on in the file that now has the name. Raises ReadOnlyStore, and then keeps the one it has."""
        try:
            fresh = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o640)
        except OSError as error:
            raise ReadOnlyStore(f"{self.path} cannot be written: {error.strerror}") from None
        self.acquire()
        try:
            old, self._descriptor = self._descriptor, fresh
        finally:
            self.release()
        if old >= 0:
            os.close(old)

    def emit(self, record: logging.LogRecord) -> None:
        data = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        try:
            if self._moved():
                self.reopen()
            if self.lost:
                note = {"level": "warning", "event": "log lines lost", "part": "logs", "count": self.lost}
                data = orjson.dumps(note, option=orjson.OPT_APPEND_NEWLINE) + data
            _write_all(self._descriptor, data)
            self.lost = 0
        except (OSError, RegistryError):
            self.lost += 1

    def _moved(self) -> bool:
        return not _is_at(self.path, self._descriptor)

    def close(self) -> None:
        self.acquire()
        try:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1
        finally:
            self.release()
        super().close()


class StandardError(logging.Handler):
    """Writes lines to file descriptor 2, until whoever reads them has gone."""

    def __init__(self) -> None:
        super().__init__()
        self._open = True
        self._path = _path_of(2)

    def reopen(self) -> None:
        """Where it is a file (launchd makes one, or `2>>FILE`) that was moved away, go on in the one that now has its
        name, and standard output with it. A file that is not ours to make is left as it is."""
        if self._path is None or _is_at(self._path, 2):
            return
        try:
            fresh = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o640)
        except OSError:
            return
        for descriptor in (1, 2) if _same_file(1, 2) else (2,):
            os.dup2(fresh, descriptor)
        os.close(fresh)

    def emit(self, record: logging.LogRecord) -> None:
        if self._open:
            try:
                _write_all(2, (self.format(record) + "\n").encode("utf-8", "backslashreplace"))
            except OSError:
                self._open = False


class Logging:
    """The logging of one process: where lines go, how much, and what is cut out of them."""

    def __init__(self, level: str, *, path: Path | None, stderr: bool = True) -> None:
        """Take over the process's logging. Raises ReadOnlyStore when the file cannot be made."""
        self.redactor = Redactor()
        self.file: LineFile | None = None
        handlers: list[logging.Handler] = []
        if path is not None:
            self.file = LineFile(path)
            handlers.append(self.file)
        if stderr:
            handlers.append(StandardError())
        self._handlers = handlers
        self._formatters = [JsonFormatter(self.redactor) for _ in handlers]
        root = logging.getLogger()
        for handler, formatter in zip(handlers, self._formatters, strict=True):
            handler.setFormatter(formatter)
            root.addHandler(handler)
        root.setLevel(logging.WARNING)
        self.level(level)

    def level(self, level: str) -> None:
        """From now on, lines of this level and above."""
        logging.getLogger(ROOT).setLevel(_LEVELS[level])

    def seal_with(self, seal: Callable[[dict[str, Any]], dict[str, Any]] | None) -> None:
        """From now on, lines as `seal` makes them; None: in clear."""
        for formatter in self._formatters:
            formatter.seal = seal

    def reopen(self) -> None:
        """After a rotation. Raises ReadOnlyStore, and then goes on in the old file."""
        for handler in self._handlers:
            if isinstance(handler, StandardError):
                handler.reopen()
        if self.file is not None:
            self.file.reopen()

    def write_to_file(self, event: str, error: BaseException) -> None:
        """An error that the caller says on stderr in words."""
        if self.file is not None:
            record = logging.LogRecord(f"{ROOT}.runner", logging.ERROR, "", 0, event, (), None)
            record.failure = error
            self.file.handle(record)

    def close(self) -> None:
        """Give the process's logging back."""
        for handler in self._handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()


def _failure(error: BaseException) -> dict[str, object]:
    said = _shown(f"{type(error).__name__}: {error}")
    if isinstance(error, RegistryError):
        return {"error": said, "code": error.code}
    return {"error": said, "trace": _shown("".join(traceback.format_exception(error)))}


def _hidden(name: str, value: object) -> object:
    """The value, or what stands for it when its name says that it is a secret; the same for all inside it."""
    if _is_secret_name(name):
        return REDACTED
    if isinstance(value, Mapping):
        return {str(key): _hidden(str(key), item) for key, item in value.items()}
    if isinstance(value, str):
        return _shown(value)
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray):
        return [_hidden("", item) for item in value]
    return value


@lru_cache(maxsize=512)
def _is_secret_name(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _shown(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}... ({len(text)} characters)"


def _dumped(line: dict[str, Any]) -> str:
    try:
        return orjson.dumps(line, default=str).decode()
    except TypeError:  # lone surrogates, integers beyond 64 bits
        import json

        return json.dumps(line, default=str)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one that has this name now."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _same_file(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False


def _path_of(descriptor: int) -> Path | None:
    """The name of the regular file that is open there; None: it is none, or its name cannot be had."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        if sys.platform == "darwin":
            return Path(os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0")))
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    except OSError:
        return None
    return path if _is_at(path, descriptor) else None


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
