from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from universal_registry.kernel.errors import NotFound, ReadOnlyStore
from universal_registry.observe.logs import Log, Logging

BIDI = "\u202e\u2066\u200f\ufeff\u2028\u0085\u009b"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.log"


@pytest.fixture
def logs(path: Path) -> Iterator[Logging]:
    made = Logging("debug", path=path, stderr=False)
    yield made
    made.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_is_one_json_event(logs: Logging, path: Path) -> None:
    Log("runner").info("ready", revision=12, addresses=["/a", "b:1"])
    (line,) = lines(path)
    assert line.pop("ts").endswith("Z")
    assert line == {"level": "info", "event": "ready", "part": "runner", "revision": 12, "addresses": ["/a", "b:1"]}


def test_nothing_in_a_line_can_steer_a_terminal_or_end_it_early(logs: Logging, path: Path) -> None:
    text = "a\nb\r\x1b[31m\x07\x7f" + BIDI
    Log("x").warning(text, name=text, nested={text: [text]})
    raw = path.read_text(encoding="utf-8")
    assert raw.count("\n") == 1
    assert all(char.isprintable() for char in raw.rstrip("\n"))
    (line,) = lines(path)
    assert (line["event"], line["name"], line["nested"]) == (text, text, {text: [text]})


def test_a_field_never_hides_what_every_line_has(logs: Logging, path: Path) -> None:
    Log("x").info("seen", level="fake", ts="fake", part="fake")
    (line,) = lines(path)
    assert (line["level"], line["part"], line["level_"]) == ("info", "x", "fake")


@pytest.mark.parametrize(
    "fields",
    [
        {"password": "canary-value"},
        {"signing_secret": "canary-value"},
        {"X-Token": "canary-value"},
        {"api_key": "canary-value"},
        {"key": b"canary-value"},
        {"Authorization": "Basic canary-value"},
        {"headers": {"authorization": "canary-value", "cookie": "canary-value"}},
        {"list": [{"db_password": "canary-value"}]},
    ],
)
def test_secrets_are_cut_out_by_the_name_of_their_field(logs: Logging, path: Path, fields: dict[str, Any]) -> None:
    Log("x").info("seen", **fields)
    assert "canary" not in path.read_text(encoding="utf-8")
    assert "[redacted]" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "ur_" + "canaryvalue" * 4,
        "whsec_canaryvalue1234",
        "Authorization: Bearer canaryvalue",
        "https://user:canaryvalue@example.org/path",
    ],
)
def test_secrets_are_cut_out_by_their_shape(logs: Logging, path: Path, text: str) -> None:
    Log("x").info("said " + text, url=text)
    Log("x").error("failed", ValueError(text))
    assert "canary" not in path.read_text(encoding="utf-8")
    assert len(lines(path)) == 2


def test_secrets_are_cut_out_by_value_even_where_json_escapes_them(logs: Logging, path: Path) -> None:
    logs.redactor.add('canary"\\value', b"canary-bytes", "short")
    Log("x").info('it was canary"\\value', note="canary-bytes!", list=['canary"\\value'])
    logging.getLogger("aiohttp.server").error("canary-bytes")
    text = path.read_text(encoding="utf-8")
    assert "canary" not in text
    assert len(lines(path)) == 2


def test_names_that_only_look_like_keys_are_kept(logs: Logging, path: Path) -> None:
    Log("x").info("seen", keyboard="qwerty", monkey="george", record="alias/default/gs")
    (line,) = lines(path)
    assert (line["keyboard"], line["monkey"], line["record"]) == ("qwerty", "george", "alias/default/gs")


def test_our_errors_come_without_a_traceback_and_bugs_with_one_on_the_same_line(logs: Logging, path: Path) -> None:
    Log("x").error("refused", NotFound("no such thing", hint="look"))
    try:
        raise ZeroDivisionError("oh")
    except ZeroDivisionError as error:
        Log("x").error("bug", error)
    ours, bug = lines(path)
    assert (ours["error"], ours["code"]) == ("NotFound: no such thing (look)", "not-found")
    assert "trace" not in ours
    assert "test_our_errors" in bug["trace"]


def test_what_json_cannot_carry_is_shown_anyway(logs: Logging, path: Path) -> None:
    Log("x").info("odd \ud800", lone="\udfff", big=1 << 80, thing=object, path=Path("/x"), nan=float("nan"))
    (line,) = lines(path)
    assert line["big"] in (1 << 80, str(1 << 80))
    assert line["path"] == "/x"


def test_long_texts_are_cut(logs: Logging, path: Path) -> None:
    Log("x").info("y" * 100_000, note="z" * 100_000)
    assert path.stat().st_size < 20_000


def test_libraries_come_in_from_warning_up_and_we_from_our_level_up(logs: Logging, path: Path) -> None:
    logging.getLogger("aiohttp").info("chatter")
    logging.getLogger("aiohttp").warning("trouble %s", "here")
    logs.level("error")
    Log("x").warning("no")
    Log("x").error("yes")
    assert [line["event"] for line in lines(path)] == ["trouble here", "yes"]


def test_no_line_is_lost_or_torn_by_ten_rotations_under_load(logs: Logging, path: Path) -> None:
    count, writers = 2000, 3
    started = threading.Barrier(writers + 1)

    def write(who: int) -> None:
        started.wait()
        for number in range(count):
            Log("load").info("n", who=who, number=number)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(writers)]
    for thread in threads:
        thread.start()
    started.wait()
    for rotation in range(10):
        path.rename(path.with_suffix(f".{rotation}"))
        logs.reopen()
    for thread in threads:
        thread.join()
    found = [line for each in path.parent.iterdir() for line in lines(each)]
    seen = {(line["who"], line["number"]) for line in found}
    assert len(found) == len(seen) == count * writers


def test_a_file_that_was_moved_away_without_a_signal_is_made_again(logs: Logging, path: Path) -> None:
    Log("x").info("one")
    path.rename(path.with_suffix(".1"))
    Log("x").info("two")
    path.unlink()
    Log("x").info("three")
    assert [line["event"] for line in lines(path)] == ["three"]
    assert [line["event"] for line in lines(path.with_suffix(".1"))] == ["one"]


def test_a_log_that_cannot_be_made_again_keeps_the_old_one(logs: Logging, path: Path) -> None:
    path.rename(path.with_suffix(".1"))
    path.mkdir()
    with pytest.raises(ReadOnlyStore, match=r"registry\.log cannot be written"):
        logs.reopen()
    Log("x").info("lost while the name is taken")
    path.rmdir()
    Log("x").info("back")
    note, back = lines(path)
    assert (note["event"], note["count"], back["event"]) == ("log lines lost", 1, "back")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_costs_lines_and_not_the_process(tmp_path: Path) -> None:
    logs = Logging("info", path=Path("/dev/full"), stderr=False)
    try:
        Log("x").info("no room")
        assert logs.file is not None
        assert logs.file.lost == 1
    finally:
        logs.close()


def test_a_log_in_a_missing_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ReadOnlyStore, match=r"missing/x\.log cannot be written: No such file"):
        Logging("info", path=tmp_path / "missing" / "x.log", stderr=False)


def test_standard_error_gets_the_same_lines(capfd: pytest.CaptureFixture[str], path: Path) -> None:
    logs = Logging("info", path=path)
    try:
        Log("x").info("both")
        logs.write_to_file("only there", NotFound("gone"))
    finally:
        logs.close()
    Log("x").info("after the end")
    said = capfd.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in said] == ["both"]
    assert [line["event"] for line in lines(path)] == ["both", "only there"]
