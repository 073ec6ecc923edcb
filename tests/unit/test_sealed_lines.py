from __future__ import annotations

import json
from pathlib import Path

from universal_registry.kernel.world import SystemWorld
from universal_registry.observe.logs import Log, Logging
from universal_registry.observe.sealed_lines import opened_line, sealed_line
from universal_registry.security.cipher import Box
from universal_registry.security.keyring import Keyring, new_key

BOX = Box(Keyring.of(new_key(SystemWorld())))
LINE = {"ts": "2026-03-01", "level": "info", "event": "ready", "part": "runner", "target": "system/mine", "n": 1}


def test_the_fields_are_sealed_and_what_everybody_may_read_stays() -> None:
    sealed = sealed_line(LINE, BOX)
    assert list(sealed) == ["ts", "level", "event", "part", "sealed"]
    assert "mine" not in json.dumps(sealed)
    assert json.loads(opened_line(json.dumps(sealed).encode() + b"\n", BOX)) == LINE


def test_what_is_not_sealed_or_does_not_open_stays_as_it_is() -> None:
    other = Box(Keyring.of(new_key(SystemWorld())))
    sealed = json.dumps(sealed_line(LINE, other))
    for text in ("plain text\n", "{}", "[1]", '{"sealed": 5}', '{"sealed": "x"}', json.dumps(LINE), sealed):
        assert opened_line(text.encode(), BOX) == text
    assert sealed_line({"ts": "t", "event": "e"}, BOX) == {"ts": "t", "event": "e"}


def test_a_log_is_sealed_from_when_it_is_told_to_until_it_is_told_not_to(tmp_path: Path) -> None:
    logging = Logging("info", path=tmp_path / "log", stderr=False)
    log = Log("test")
    try:
        logging.redactor.add("hunter2-the-password")
        log.info("before", target="system/mine")
        logging.seal_with(lambda line: sealed_line(line, BOX))
        log.info("meanwhile", target="system/mine", text="hunter2-the-password\u202e")
        logging.seal_with(None)
        log.info("after", target="system/mine")
    finally:
        logging.close()
    before, meanwhile, after = (tmp_path / "log").read_bytes().splitlines()
    assert json.loads(before)["target"] == json.loads(after)["target"] == "system/mine"
    assert b"mine" not in meanwhile
    assert json.loads(meanwhile)["event"] == "meanwhile"
    opened = json.loads(opened_line(meanwhile, BOX))
    assert opened["target"] == "system/mine"
    assert "hunter2" not in opened["text"], "secrets are cut out before"
