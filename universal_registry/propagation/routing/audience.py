"""Who a broadcast is for: all targets but those excluded, as it was at each revision of the log. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from universal_registry.registry.record import Record
from universal_registry.registry.selector import glob_regex


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What exclusions go by: of a target's record."""

    namespace: str
    name: str
    environment: str = ""
    labels: tuple[tuple[str, str], ...] = ()


def facts_of(record: Record) -> Facts:
    """The facts of a target's record."""
    environment = record.spec.get("environment")
    return Facts(
        namespace=record.namespace,
        name=record.name,
        environment=environment if isinstance(environment, str) else "",
        labels=tuple(sorted(record.labels.items())),
    )


def excluding(words: Iterable[str], facts: Facts) -> str:
    """The first word that leaves the target out; empty when none does.

    A word is a name or a glob of names (`[namespace/]name`), a namespace, an environment, or a label: its key, its
    value or `key=value`.
    """
    return next((word for word in words if _matches(word, facts)), "")


def _matches(word: str, facts: Facts) -> bool:
    if word in (facts.namespace, facts.environment):
        return True
    if any(word in (key, value, f"{key}={value}") for key, value in facts.labels):
        return True
    glob = glob_regex(word)
    addressed = "/" in word and glob.fullmatch(f"{facts.namespace}/{facts.name}") is not None
    return addressed or glob.fullmatch(facts.name) is not None


def own_names(source: str) -> tuple[str, ...]:
    """The names of the target that a source itself would be: nothing is sent back to where it comes from."""
    if not source or "=" in source:
        return ()
    kind, slash, name = source.partition("/")
    return (source, name) if slash and kind else (source,)


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """Everyone but: the words of `--exclude`, and the source itself."""

    exclude: tuple[str, ...] = ()
    itself: tuple[str, ...] = ()

    def left_out(self, facts: Facts) -> str:
        """Why a target is not meant; empty when it is."""
        if facts.name in self.itself:
            return "the source itself"
        return excluding(self.exclude, facts)

    def parted(self, targets: Mapping[str, Facts]) -> tuple[tuple[str, ...], dict[str, str]]:
        """The addresses that are meant, in order, and those that are not, with the word that leaves each out."""
        out = {address: word for address in sorted(targets) if (word := self.left_out(targets[address]))}
        return tuple(address for address in sorted(targets) if address not in out), out

    def unmatched(self, targets: Collection[Facts]) -> list[str]:
        """The words that leave nobody out now."""
        return [word for word in self.exclude if not any(excluding((word,), facts) for facts in targets)]


class Members:
    """Who was a target at each revision, so that a line is planned for the targets that there were at its own."""

    def __init__(self) -> None:
        self._history: dict[str, tuple[list[int], list[Facts | None]]] = {}
        self._meant: dict[tuple[Audience, Facts], bool] = {}

    def set(self, address: str, revision: int, facts: Facts | None) -> bool:
        """From that revision on this is so (None: no target). True when that is news."""
        revisions, values = self._history.setdefault(address, ([], []))
        if (values[-1] if values else None) == facts:
            return False
        if revisions and revisions[-1] == revision:
            values[-1] = facts
        else:
            revisions.append(revision)
            values.append(facts)
        return True

    def at(self, address: str, revision: int) -> Facts | None:
        """What the target was at that revision; None when it was none."""
        revisions, values = self._history.get(address, ((), ()))
        place = bisect_right(revisions, revision)
        return values[place - 1] if place else None

    def includes(self, audience: Audience, address: str, revision: int) -> bool:
        """Whether the audience meant the target at that revision."""
        facts = self.at(address, revision)
        if facts is None:
            return False
        place = (audience, facts)
        if place not in self._meant:
            self._meant[place] = not audience.left_out(facts)
        return self._meant[place]

    def meant(self, audience: Audience, revision: int) -> Sequence[str]:
        """All that the audience meant at that revision, by address."""
        return [address for address in sorted(self._history) if self.includes(audience, address, revision)]
