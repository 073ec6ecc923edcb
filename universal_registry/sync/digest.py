"""Whether two registries hold the same, and where they do not: sums of keyed digests in 4,096 buckets, in three levels.

Additive: a record that changes moves its sums by a difference, and the order of records does not matter. Tombstones are
left out, since one side may have purged them; what was deleted on one side only still shows, as a live record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b

from universal_registry.kernel.ids import Key
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.sync.version import State

DIGEST_BYTES = 16
GROUPS = 64
PER_GROUP = 64
BUCKETS = GROUPS * PER_GROUP
_MODULUS = 1 << (8 * DIGEST_BYTES)


def digest_of(key: Key, state: State, secret: bytes) -> int:
    """Of one record: its live fields, with the dots and the values of their versions. 0 when there are none."""
    live = [
        (path, [[*version.dot, version.gone, version.value] for version in versions])
        for path, versions in sorted(state.fields.items())
        if not all(version.gone for version in versions)
    ]
    if not live:
        return 0
    return int.from_bytes(blake2b(canonical([*key, live]), digest_size=DIGEST_BYTES, key=secret).digest(), "big")


def bucket_of(key: Key) -> int:
    """Where a record is summed: the same on every node."""
    return int.from_bytes(blake2b(canonical(list(key)), digest_size=2).digest(), "big") % BUCKETS


class Tree:
    """The digests of all records in the scope of a link, and their sums."""

    __slots__ = ("_buckets", "_digests", "_groups", "root_sum")

    def __init__(self) -> None:
        self._digests: dict[int, dict[Key, int]] = {}
        """Of the buckets that ever held a record."""
        self._buckets = [0] * BUCKETS
        self._groups = [0] * GROUPS
        self.root_sum = 0

    def put(self, key: Key, digest: int) -> None:
        """The record's digest is this now; 0: it is not there."""
        bucket = bucket_of(key)
        held = self._digests.setdefault(bucket, {})
        change = digest - held.get(key, 0)
        if digest:
            held[key] = digest
        else:
            held.pop(key, None)
        self._buckets[bucket] = (self._buckets[bucket] + change) % _MODULUS
        group = bucket // PER_GROUP
        self._groups[group] = (self._groups[group] + change) % _MODULUS
        self.root_sum = (self.root_sum + change) % _MODULUS

    @property
    def root(self) -> str:
        """The sum of everything, in hex: equal iff both hold the same."""
        return text_of(self.root_sum)

    def groups(self) -> list[str]:
        """The sums of the 64 groups."""
        return [text_of(number) for number in self._groups]

    def buckets(self, groups: Iterable[int]) -> dict[int, list[str]]:
        """The sums of the 64 buckets of each of these groups."""
        return {
            group: [text_of(number) for number in self._buckets[group * PER_GROUP : (group + 1) * PER_GROUP]]
            for group in groups
        }

    def items(self, bucket: int) -> dict[Key, str]:
        """The records of a bucket, each with its digest."""
        return {key: text_of(digest) for key, digest in self._digests.get(bucket, {}).items()}

    def different_groups(self, theirs: list[str]) -> list[int]:
        """Where the other side's sums are not ours."""
        return [number for number, (one, other) in enumerate(zip(self.groups(), theirs, strict=True)) if one != other]

    def different_buckets(self, theirs: Mapping[int, list[str]]) -> list[int]:
        """The buckets whose sums are not ours, in the groups that the other side has told of."""
        ours = self.buckets(theirs)
        return [
            group * PER_GROUP + number
            for group, sums in sorted(theirs.items())
            for number, (one, other) in enumerate(zip(ours[group], sums, strict=True))
            if one != other
        ]


def different_keys(ours: Mapping[Key, str], theirs: Mapping[Key, str]) -> list[Key]:
    """The records that one side lacks, or that differ."""
    return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))


def text_of(digest: int) -> str:
    """As it is stored and sent: 32 hex digits."""
    return f"{digest:032x}"
