"""Requests decided one after the other, each seeing what those before it made. Pure: no clock, no chance, no I/O."""

from __future__ import annotations

from msgspec.structs import force_setattr

from universal_registry.kernel.errors import RegistryError
from universal_registry.kernel.ids import Key
from universal_registry.log.chain import leaf, link
from universal_registry.log.change import Change
from universal_registry.log.cursor import Head
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.decide import decide
from universal_registry.registry.once import Kept, check_same, is_current
from universal_registry.registry.operation import Asked, Committed, Request
from universal_registry.registry.record import Record

Name = tuple[str, str]
"""Whose idempotency key, and the key."""


class Folding:
    """What the requests that were added come to: an answer for each, the lines in order, the final state of each record
    that changed and its first, the answers to keep, and the head before and after them. Refusals change nothing.

    `heads` must hold the record (or None) of every key that an added request touches, `known` what was answered before
    to those that bear an idempotency key: such a request is not decided again. Only what was done is kept, no refusal.
    Both are the folding's own from now on.
    """

    __slots__ = ("_catalogue", "answers", "changes", "firsts", "head", "heads", "kept", "known", "records", "start")

    def __init__(
        self, head: Head, catalogue: Catalogue, heads: dict[Key, Record | None], known: dict[Name, Kept]
    ) -> None:
        self._catalogue = catalogue
        self.start = self.head = head
        self.heads = heads
        self.known = known
        self.answers: list[Committed | RegistryError] = []
        self.changes: list[Change] = []
        self.records: dict[Key, Record | None] = {}
        self.firsts: dict[Key, Record | None] = {}
        self.kept: dict[Name, Kept] = {}

    def add(self, request: Request) -> None:
        """Decide one more."""
        try:
            self.answers.append(self._again(request) or self._decided(request))
        except RegistryError as error:
            error.data.setdefault("head", self.head.revision)
            self.answers.append(error)

    def _decided(self, request: Request) -> Committed:
        head = self.head
        decision = decide(self.heads, request, head.revision + 1, self._catalogue)
        if decision.changes:
            chained = link(head.hash, map(leaf, decision.changes))
            for change in decision.changes:
                force_setattr(change, "hash", chained)  # nobody else has them yet; a copy would cost more than the hash
            self.head = head = Head(head.incarnation, head.revision + 1, chained)
            self.changes.extend(decision.changes)
            for key in decision.records:
                self.firsts.setdefault(key, self.heads.get(key))
            self.heads.update(decision.records)
            self.records.update(decision.records)
        committed = Committed(revision=head.revision, cursor=head.cursor, results=decision.results)
        if request.once is not None:
            name = (request.once.actor, request.once.key)
            self.known[name] = self.kept[name] = _to_keep(request.once, committed, request.at)
        return committed

    def _again(self, request: Request) -> Committed | None:
        """The answer to a request that was done before. Raises Invalid when its key was used for another one."""
        once = request.once
        found = None if once is None else self.known.get((once.actor, once.key))
        if once is None or found is None or not is_current(found, request.at):
            return None
        check_same(found, once.fingerprint)
        return Committed(revision=found.revision, cursor=self.head.cursor, results=(), kept=found)


def _to_keep(once: Asked, committed: Committed, at: str) -> Kept:
    return Kept(
        key=once.key,
        actor=once.actor,
        fingerprint=once.fingerprint,
        revision=committed.revision,
        at=at,
        answer=once.answer(committed),
    )
