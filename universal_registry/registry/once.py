"""Idempotency: a request that bears a key is done once, and its first answer is given again for a day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from universal_registry.kernel.errors import Invalid, UsageError
from universal_registry.registry.words import shown

KEPT_FOR = timedelta(hours=24)
MOST_KEY = 255


class Once(msgspec.Struct, frozen=True, kw_only=True):
    """The key of one request. `fingerprint`: a digest of all that was asked. `render`: the whole answer from what the
    verb returns; it runs inside the writer, so it is pure and quick."""

    key: str
    fingerprint: str
    render: Callable[[Any], bytes]

    def of(self, make: Callable[[Any], Any]) -> Once:
        """The same, for a verb whose own answer is `make(what a verb below it returned)`."""
        return msgspec.structs.replace(self, render=lambda value: self.render(make(value)))


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What the store keeps of a request that bore a key. `answer`: sealed. `at`: when it was asked (RFC 3339, UTC)."""

    key: str
    actor: str
    fingerprint: str
    revision: int
    at: str
    answer: str


class Replayed(Exception):
    """The way out of a verb that was done before, no failure: `answer` is what it was answered then."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("this request was answered before")
        self.answer = answer


def check_key(text: str) -> str:
    """An Idempotency-Key as it came. Raises UsageError."""
    if not 1 <= len(text) <= MOST_KEY or not text.isascii() or not text.isprintable():
        raise UsageError(
            f"the Idempotency-Key {shown(text)} cannot be used", hint="1 to 255 printable ASCII characters"
        )
    return text


def check_same(kept: Kept, fingerprint: str) -> None:
    """Raises Invalid when the key was used for another request."""
    if kept.fingerprint != fingerprint:
        raise Invalid(
            f"the Idempotency-Key {shown(kept.key)} was used for another request",
            hint="a new request takes a new key",
        )


def is_current(kept: Kept, at: str) -> bool:
    """Whether the answer is still to be given again at that time."""
    return kept.at >= forgotten_before(at)


def forgotten_before(at: str) -> str:
    """The time before which answers are forgotten, as seen from `at`."""
    moment = datetime.fromisoformat(at) - KEPT_FOR
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
