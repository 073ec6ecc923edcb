"""The hash chain over the change log. A leaf covers the header of a line and a commitment to its body; a revision's
hash covers the hash before it and its leaves in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from universal_registry.kernel.errors import Corrupt
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.log.change import Change

GENESIS = bytes(32)


def leaf(change: Change) -> bytes:
    """32 bytes over everything of the line but its body's bytes and the chain hash itself."""
    header = [
        change.revision,
        change.seq,
        change.op,
        change.kind,
        change.namespace,
        change.name,
        change.uid,
        change.generation,
        change.commitment,
        change.prev_commitment,
        change.changed_fields,
        change.actor,
        change.txn_id,
        change.message,
        change.at,
    ]
    return sha256(canonical(header)).digest()


def link(previous: bytes, leaves: Iterable[bytes]) -> bytes:
    """The hash of a revision from the one before it and its leaves in order of `seq`."""
    return sha256(b"".join((previous, *leaves))).digest()


def verify(previous: bytes, lines: Sequence[Change], expected_first: int) -> bytes:
    """Check consecutive whole revisions against the hash before them; returns the hash after them.

    Raises Corrupt naming the first line that does not fit: a gap, a line out of order, an altered header.
    """
    revision, at = expected_first, 0
    while at < len(lines):
        end = at
        while end < len(lines) and lines[end].revision == lines[at].revision:
            end += 1
        group = lines[at:end]
        if group[0].revision != revision or [line.seq for line in group] != list(range(len(group))):
            raise Corrupt(
                f"revision {revision} is missing or incomplete (found {group[0].revision})", revision=revision
            )
        previous = link(previous, map(leaf, group))
        if any(line.hash != previous for line in group):
            raise Corrupt(f"revision {revision} was altered: its chain hash does not fit", revision=revision)
        revision, at = revision + 1, end
    return previous
