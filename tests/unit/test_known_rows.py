from __future__ import annotations

from universal_registry.kernel.ids import Key
from universal_registry.registry.words import ENVELOPE
from universal_registry.storage.known_rows import MOST_ROWS, MOST_TEXT, KnownRows, Row

SPEC = ENVELOPE.index("spec")


def key(name: str) -> Key:
    return Key("alias", "default", name)


def row(mark: str, spec: str = "{}") -> Row:
    return tuple(spec if at == SPEC else mark for at in range(len(ENVELOPE)))


def test_what_was_kept_is_known_and_what_was_removed_is_not() -> None:
    known = KnownRows()
    known.keep({key("a"): row("1"), key("b"): row("1")})
    known.keep({key("a"): row("2"), key("b"): None})
    assert known.get(key("a")) == row("2")
    assert known.get(key("b")) is None
    assert known.get(key("never")) is None


def test_another_version_of_the_file_makes_all_of_it_forgotten() -> None:
    known = KnownRows()
    known.of_version(1)
    known.keep({key("a"): row("1")})
    known.of_version(1)
    assert known.get(key("a")) == row("1")
    known.of_version(2)
    assert known.get(key("a")) is None


def test_it_stays_small_and_the_newest_stay() -> None:
    known = KnownRows()
    known.keep({key(str(number)): row("1") for number in range(MOST_ROWS)})
    known.keep({key("0"): row("2")})
    known.keep({key("more"): row("1")})
    assert known.get(key("1")) is None, "the oldest makes room"
    assert known.get(key("0")) == row("2")
    assert known.get(key("more")) is not None


def test_a_large_record_is_not_kept_nor_is_what_it_was_before() -> None:
    known = KnownRows()
    known.keep({key("a"): row("1")})
    known.keep({key("a"): row("2", "x" * (MOST_TEXT + 1))})
    assert known.get(key("a")) is None
