"""The frames between two registries: JSON, at most 1 MiB, read strictly. Sans I/O.

One side's feed goes `since -> batch -> ack -> batch ...`; both sides do both. `digest`, `items` and `state` find and
mend what a feed cannot (purged tombstones, a peer that was away for long).
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from universal_registry.kernel.errors import Malformed, TooLarge
from universal_registry.kernel.ids import Key
from universal_registry.sync.digest import BUCKETS, GROUPS, PER_GROUP
from universal_registry.sync.version import Known, State, Vector, Version

PROTOCOL = 2
FRAME_BYTES = 1 << 20
BATCH_BYTES = 128 << 10
"""How much a batch holds by itself, unless one record is larger: a peer may ask for less."""
_MOST_NUMBER = (1 << 62) - 1
_DIGITS = frozenset("0123456789abcdef")


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One record on the wire: its key, and its state, whole."""

    kind: str
    namespace: str
    name: str
    fields: dict[str, tuple[Version, ...]]
    context: Vector = {}

    @property
    def known(self) -> Known:
        return Known(Key(self.kind, self.namespace, self.name), State(self.fields, self.context))


class _Frame(msgspec.Struct, kw_only=True, tag_field="t", forbid_unknown_fields=True, omit_defaults=True):
    """What all frames are."""


class Hello(_Frame, tag="hello"):
    """Who I am, and what I have. `scope`: of the link; `tracked`: all that I keep versions of. `root`: of the scope.
    `audiences`: a mark of who may have what."""

    proto: int
    cluster: str
    node: str
    store: str
    epoch: str
    boot: str
    vv: Vector
    root: str
    feed: int
    floor: int
    scope: str = ""
    tracked: tuple[str, ...] = ()
    policies: dict[str, str] = {}
    audiences: str = ""
    schema: str = ""
    clock_ms: int = 0


class Since(_Frame, tag="since"):
    """Send me your feed behind `cursor` (of your `store`). `vv`: what I have seen. Some batches are on their way
    at once; each ack makes room for the next."""

    store: str
    cursor: int
    vv: Vector
    max_bytes: int = BATCH_BYTES


class Batch(_Frame, tag="batch"):
    """A part of the feed, (start, end]. `vv`: what the sender had seen when it read this; only with `more` false may
    the receiver take it as his own, and not if tombstones below `floor` were purged before he came that far."""

    start: int
    end: int
    more: bool
    vv: Vector
    floor: int = 0
    recs: tuple[Record, ...] = ()


class Ack(_Frame, tag="ack"):
    """Stored, durably, up to `cursor`. `vv`: what I have seen now."""

    cursor: int
    applied: int
    vv: Vector


class Digest(_Frame, tag="digest"):
    """Sums of digests: the root alone; or all groups; or the buckets of some groups. `ask`: tell me yours."""

    root: str
    ask: bool = False
    groups: tuple[str, ...] = ()
    buckets: dict[str, tuple[str, ...]] = {}


class Items(_Frame, tag="items"):
    """The records of some buckets: for each bucket a list of (kind, namespace, name, digest)."""

    buckets: dict[str, tuple[tuple[str, str, str, str], ...]]

    @property
    def digests(self) -> list[tuple[Key, str]]:
        return [(Key(*key), digest) for items in self.buckets.values() for *key, digest in items]


class StateOf(_Frame, tag="state"):
    """Some records as I have them; one that I have not comes with no fields. `answer`: send me yours of the same."""

    recs: tuple[Record, ...]
    vv: Vector
    answer: bool


class Nack(_Frame, tag="nack"):
    """I cannot take this. `code`: a word; `message`: for people. The session goes on only if it is `retry`."""

    code: str
    message: str


class Bye(_Frame, tag="bye"):
    """The end of the session."""

    reason: str = ""


Frame = Hello | Since | Batch | Ack | Digest | Items | StateOf | Nack | Bye

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Frame, strict=True)


def encode(frame: Frame) -> bytes:
    """The frame's bytes. Raises TooLarge beyond FRAME_BYTES."""
    data = _encoder.encode(frame)
    if len(data) > FRAME_BYTES:
        raise TooLarge(f"a frame of {len(data)} bytes", hint=f"at most {FRAME_BYTES}", limit=FRAME_BYTES)
    return data


def decode(data: bytes) -> Frame:
    """A frame. Raises Malformed for anything that is not one, TooLarge."""
    if len(data) > FRAME_BYTES:
        raise TooLarge(f"a frame of {len(data)} bytes", hint=f"at most {FRAME_BYTES}", limit=FRAME_BYTES)
    try:
        frame: Frame = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"not a frame of the sync protocol: {error}") from None
    _check(frame)
    return frame


def _check(frame: Frame) -> None:
    """What the types do not say."""
    match frame:
        case Hello() | Since() | Ack():
            _check_vector(frame.vv)
        case Batch() | StateOf():
            _check_vector(frame.vv)
            for record in frame.recs:
                _check_record(record)
        case Digest():
            _check_sums(frame.root, *frame.groups)
            _check_length(frame.groups, (0, GROUPS))
            for number, sums in frame.buckets.items():
                _check_number_of(number, GROUPS)
                _check_length(sums, (PER_GROUP,))
                _check_sums(*sums)
        case Items():
            for number, items in frame.buckets.items():
                _check_number_of(number, BUCKETS)
                _check_sums(*(digest for *_, digest in items))
    if isinstance(frame, Batch) and not 0 <= frame.start <= frame.end <= _MOST_NUMBER:
        raise Malformed(f"a batch from {frame.start} to {frame.end}")


def _check_vector(vector: Vector) -> None:
    for origin, number in vector.items():
        _check_number(number)
        _check_origin(origin)


def _check_record(record: Record) -> None:
    _check_vector(record.context)
    for path, versions in record.fields.items():
        if not versions or not path:
            raise Malformed(f"no version of {path!r:.60} in {record.kind}/{record.name!r:.60}")
        if len(versions) > 1:
            _check_order(record, path, versions)
        for version in versions:
            _check_number(version.number)
            _check_origin(version.origin)
            _check_number(version.stamp)
            if version.gone and version.value is not None:
                raise Malformed(f"a removed version has a value at {path!r:.60}")


def _check_order(record: Record, path: str, versions: tuple[Version, ...]) -> None:
    if len({version.dot for version in versions}) < len(versions):
        raise Malformed(f"the same version twice at {path!r:.60} in {record.kind}/{record.name!r:.60}")
    if list(versions) != sorted(versions, key=lambda version: version.rank, reverse=True):
        raise Malformed(f"versions out of order at {path!r:.60} in {record.kind}/{record.name!r:.60}")


def _check_number(number: int) -> None:
    if not 0 < number <= _MOST_NUMBER:
        raise Malformed(f"{number} is no number of a version")


def _check_number_of(number: str, count: int) -> None:
    if not (number.isascii() and number.isdigit() and len(number) <= 4 and int(number) < count):
        raise Malformed(f"{number!r:.60} is no number below {count}")


def _check_length(sums: tuple[str, ...], lengths: tuple[int, ...]) -> None:
    if len(sums) not in lengths:
        raise Malformed(f"{len(sums)} sums instead of {lengths[-1]}")


def _check_sums(*sums: str) -> None:
    for each in sums:
        if len(each) != 32 or not _DIGITS.issuperset(each):
            raise Malformed(f"{each!r:.60} is no digest")


def _check_origin(origin: str) -> None:
    if not _is_origin(origin):
        raise Malformed(f"{origin!r:.60} is no origin")


@lru_cache(maxsize=1024)
def _is_origin(origin: str) -> bool:
    node, dash, epoch = origin.partition("-")
    return bool(dash) and all(len(part) == 8 and _DIGITS.issuperset(part) for part in (node, epoch))


def record_of(known: Known) -> Record:
    """The record as it is sent."""
    return Record(*known.key, known.state.fields, known.state.context)


def size_of(known: Known) -> int:
    """How many bytes the record takes in a frame."""
    return len(_encoder.encode(record_of(known)))
