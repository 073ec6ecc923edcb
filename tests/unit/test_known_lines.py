"""What is known of the end of the log answers as the log would, or not at all."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from universal_registry.log.change import Change, Op
from universal_registry.storage.known_lines import MOST_BYTES, MOST_LINES, KnownLines

Place = tuple[int, int]


def revision(number: int, lines: int = 1, size: int = 10) -> list[Change]:
    """The lines of one revision."""
    return [
        Change(
            revision=number, seq=seq, op=Op.PUT, kind="alias", namespace="default", name="gs", uid="u", generation=1,
            body=b"x" * size, commitment="c", actor="uid:0", txn_id="t", at="2026-01-01T00:00:00.000Z",
            hash=b"%032d" % number,
        )
        for seq in range(lines)
    ]  # fmt: skip


def places(lines: Iterable[Change] | None) -> list[Place] | None:
    return None if lines is None else [(line.revision, line.seq) for line in lines]


@pytest.fixture
def known() -> KnownLines:
    """Revisions 5 (one line), 6 (three) and 7 (one)."""
    lines = KnownLines()
    lines.keep([*revision(5), *revision(6, 3)])
    lines.keep(revision(7))
    return lines


def test_all_that_comes_after_a_revision(known: KnownLines) -> None:
    assert places(known.after(4, 100, None)) == [(5, 0), (6, 0), (6, 1), (6, 2), (7, 0)]
    assert places(known.after(6, 100, None)) == [(7, 0)]
    assert places(known.after(7, 100, None)) == []
    assert places(known.after(9, 100, None)) == []
    assert known.hold(7, b"%032d" % 7)


def test_what_comes_after_an_older_revision_is_not_known(known: KnownLines) -> None:
    assert known.after(3, 100, None) is None
    assert KnownLines().after(0, 100, None) is None


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1, [(5, 0)]),
        (2, [(5, 0)]),
        (3, [(5, 0)]),
        (4, [(5, 0), (6, 0), (6, 1), (6, 2)]),
        (5, [(5, 0), (6, 0), (6, 1), (6, 2), (7, 0)]),
    ],
)
def test_a_limit_cuts_between_revisions(known: KnownLines, limit: int, expected: list[Place]) -> None:
    assert places(known.after(4, limit, None)) == expected


def test_the_first_revision_comes_whole_whatever_the_limit(known: KnownLines) -> None:
    assert places(known.after(5, 1, None)) == [(6, 0), (6, 1), (6, 2)]


def test_nothing_beyond_upto(known: KnownLines) -> None:
    assert places(known.after(4, 100, 6)) == [(5, 0), (6, 0), (6, 1), (6, 2)]
    assert places(known.after(6, 100, 6)) == []


def test_a_gap_makes_what_was_before_it_forgotten(known: KnownLines) -> None:
    known.keep(revision(9))
    assert known.after(7, 100, None) is None
    assert places(known.after(8, 100, None)) == [(9, 0)]


def test_it_stays_small_and_begins_with_a_whole_revision() -> None:
    known = KnownLines()
    for number in range(1, MOST_LINES):
        known.keep(revision(number, 3))
    newest = known.after(MOST_LINES - 4, MOST_LINES, None)
    assert places(newest) == [(MOST_LINES - at, seq) for at in (3, 2, 1) for seq in range(3)]
    first = next(number for number in range(MOST_LINES) if known.after(number, MOST_LINES, None) is not None)
    lines = known.after(first, MOST_LINES * 2, None)
    assert lines is not None
    assert (lines[0].revision, lines[0].seq) == (first + 1, 0)
    assert len(lines) <= MOST_LINES


@pytest.mark.parametrize("large", [revision(8, MOST_LINES + 1), revision(8, 2, MOST_BYTES)])
def test_what_is_too_much_is_not_kept_nor_is_what_was_before_it(known: KnownLines, large: list[Change]) -> None:
    known.keep(large)
    assert not known.hold(8, b"%032d" % 8)
    known.keep(revision(9))
    assert places(known.after(8, 100, None)) == [(9, 0)]
