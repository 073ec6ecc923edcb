"""Writing a record again that was deleted, while the same deletion, or another one, is on its way."""

from __future__ import annotations

from universal_registry.sync.conflict import Sort, conflicts_of
from universal_registry.sync.merge import Writer, deleted, merged, written
from universal_registry.sync.paths import is_alive, is_plain, shown_leaves
from universal_registry.sync.version import LIFE, NOTHING, State, Version

A, B = "0000000a-00000001", "0000000b-00000001"
LEAVES = {"/classification": "ApiService", "/spec/state": "running"}


def test_a_record_that_is_made_again_is_whole_whoever_deletes_what_it_was() -> None:
    first = written(NOTHING, LEAVES, Writer(A, 1, 1))
    orphaned = merged(
        deleted(NOTHING, Writer(B, 1, 2)), {B: 1}, State({LIFE: first.fields[LIFE], **first.fields}), {A: 1}
    )
    again = written(orphaned, LEAVES, Writer(B, 2, 4))
    elsewhere = deleted(first, Writer(A, 2, 3))
    both = merged(again, {A: 1, B: 2}, elsewhere, {A: 2})
    assert is_alive(both)
    assert {path: version.value for path, version in shown_leaves(both).items()} == LEAVES


def test_what_has_nothing_to_choose_is_told_from_what_has() -> None:
    def version(number: int, value: object = 1, *, gone: bool = False) -> Version:
        return Version(A, number, number, value, gone)

    life = {LIFE: (version(1, True),)}
    assert is_plain(State({**life, "/title": (version(1),), "/titles": (version(1),)}))
    inside = State({**life, "/spec/deep": (version(2, 5),), "/spec/deep/a/b": (version(1),)})
    assert not is_plain(inside)
    assert [(each.path, each.sort) for each in conflicts_of(inside)] == [("/spec/deep/a/b", Sort.SHAPE)]
    assert list(shown_leaves(inside)) == ["/spec/deep"]
    assert not is_plain(State({**life, "/title": (version(2), version(1))}))
    assert not is_plain(State({**life, "/title": (version(2, None, gone=True),)}))
    assert not is_plain(State({"/title": (version(2),)}))
    assert not is_plain(State({LIFE: (version(1, None, gone=True),), "/title": (version(2),)}))
