"""Tables: aligned by what a terminal shows, fitted to its width, nothing in them that steers it."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from universal_registry.cli.deliveries import _SHAPE as DELIVERIES
from universal_registry.cli.output import Column, Shape, emit
from universal_registry.kernel.grid import GAP, cell, cut, table, width
from universal_registry.kernel.visible import escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202eevil", r"\u202eevil"),
        ("\x9b31m", r"\x9b31m"),
        ("\u2028", r"\u2028"),
        ("\udcff", r"\udcff"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("日本", "日本"),
    ],
)
def test_what_steers_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert escaped(text) == shown


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("日本", 4), ("🦊", 2), ("e\u0301", 1), ("", 0)])
def test_width_is_what_a_terminal_shows(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        ({}, "-"),
        (0, "0"),
        (False, "false"),
        (True, "true"),
        (1.5, "1.5"),
        (["a", "b"], "a,b"),
        ([{"a": 1}], '[{"a":1}]'),
        ({"$secret": "kept"}, '{"$secret":"kept"}'),
    ],
)
def test_cells(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_columns_are_aligned_also_behind_wide_characters() -> None:
    lines = table(["NAME", "X"], [["日本", "1"], ["abcdef", "2"]], None)
    assert lines == ["NAME    X", "日本    1", "abcdef  2"]


def test_a_narrow_terminal_cuts_the_widest_and_then_drops_the_last() -> None:
    rows = [["name", "w" * 50, "last"]]
    fitted = table(["NAME", "WIDE", "LAST"], rows, 30)
    assert fitted[1] == "name  " + "w" * 17 + "…  last"
    assert table(["NAME", "WIDE", "LAST"], rows, 12) == ["NAME  WIDE", "name  wwwww…"]
    assert table(["NAME", "WIDE"], [["n" * 80, "x"]], 5) == ["NAME", "nnnn…"]


@given(
    st.integers(1, 5).flatmap(
        lambda columns: st.lists(st.lists(st.text(max_size=60), min_size=columns, max_size=columns), min_size=1)
    ),
    st.integers(1, 80),
)
def test_no_line_is_wider_than_the_terminal(rows: list[list[str]], limit: int) -> None:
    cells = [[cell(text) for text in row] for row in rows]
    for line in table(["T"] * len(cells[0]), cells, limit):
        assert width(line) <= max(limit, 1)
        assert not any(unicodedata.category(char) == "Cc" for char in line)


@given(st.text(), st.integers(1, 20))
def test_cut_never_exceeds(text: str, columns: int) -> None:
    assert width(cut(text, columns)) <= columns


DELIVERY = ["alias/default/gs", "12", "mine", "waiting", "3", "2026-01-01T00:00:00.000Z", "w" * 60, "dlv_" + "0a" * 16]


def test_ids_and_names_are_whole_at_80_columns() -> None:
    titles = [column.title for column in DELIVERIES.columns]
    whole = {number for number, column in enumerate(DELIVERIES.columns) if column.whole}
    head, line = table(titles, [DELIVERY], 80, whole)
    assert width(line) <= 80
    assert {DELIVERY[0], DELIVERY[2], DELIVERY[7]} <= set(line.split())
    assert head.split()[0] == "RECORD"
    assert head.split()[-1] == "DELIVERY"


def test_a_name_longer_than_its_column_makes_only_its_own_line_longer() -> None:
    rows = [["n" * 90, "x"], ["short", "y"]]
    _, long, short = table(["NAME", "X"], rows, 40, {0})
    assert long == "n" * 90 + "  x"
    assert (short.split(), width(short) <= 40) == (["short", "y"], True)


@given(
    st.integers(1, 5).flatmap(
        lambda columns: st.lists(st.lists(st.text(max_size=60), min_size=columns, max_size=columns), min_size=1)
    ),
    st.integers(1, 80),
    st.sets(st.integers(0, 4)),
)
def test_what_is_to_be_whole_is_in_every_line(rows: list[list[str]], limit: int, chosen: set[int]) -> None:
    cells = [[cell(text) for text in row] for row in rows]
    whole = {each for each in chosen if each < len(cells[0])}
    for row, line in zip(cells, table(["T"] * len(cells[0]), cells, limit, whole)[1:], strict=True):
        assert all(row[each].rstrip() in line for each in whole)


def test_words_of_others_do_not_break_a_table_and_stay_whole_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    shape = Shape("tries", (Column("WHY", "why", long=True), Column("ID", "id", whole=True)), lambda item: item["id"])
    item = {"why": "<html>\n" * 200, "id": "d" * 150}
    emit([item], "table", shape)
    _, line = capsys.readouterr().out.splitlines()
    assert width(line) <= 100 + GAP + 150
    assert line.endswith("…  " + item["id"])
    emit([item], "json", shape)
    assert json.loads(capsys.readouterr().out) == [item]
    emit([item], "tsv", shape)
    assert len(capsys.readouterr().out) > 200 * len("<html>")
