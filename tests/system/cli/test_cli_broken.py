"""Commands that people need while something of their home is broken or gone."""

from __future__ import annotations

import json
from typing import Any

Ureg = Any


def checks(ureg: Ureg, code: int) -> dict[str, dict[str, str]]:
    """What doctor says, by check."""
    return {
        f"{each['group']}/{each['name']}": each for each in json.loads(ureg("doctor", "-o", "json", code=code).stdout)
    }


def test_a_broken_config_py_stops_neither_down_nor_status_nor_doctor(offline: Ureg) -> None:
    ureg = offline
    ureg("up")
    config = ureg.home / "config.py"
    config.write_text("x(\n")
    try:
        found = checks(ureg, 1)
        assert [name for name, each in found.items() if each["state"] == "fail"] == ["home/settings"]
        assert "config.py:1 is not Python" in found["home/settings"]["why"]
        assert str(config) in found["home/settings"]["command"]
        assert ureg.json("status")["daemon"]["pid"]
    finally:
        said = ureg("down").stdout
    assert "daemon stopped" in said
    assert "config.py:1 is not Python" in ureg("status", code=2).stderr
    found = checks(ureg, 1)
    assert [name for name, each in found.items() if each["state"] == "fail"] == ["home/settings"]
    assert found["sending/queue"]["state"] == "skip"


def test_a_propagation_store_that_is_gone_is_made_anew_by_up(offline: Ureg) -> None:
    ureg = offline
    ureg("set", "alias", "gs", "command=git status")
    (ureg.home / ".registry_propagation.db").unlink()
    found = checks(ureg, 1)
    assert found["home/whole"]["command"] == "ureg up"
    assert found["home/registry"]["state"] == "skip"
    assert "ureg up" in ureg("status", code=3).stderr
    ureg("up")
    ureg("down")
    assert checks(ureg, 10)["home/whole"]["state"] == "ok"


def test_a_registry_store_that_is_gone_is_to_be_restored(offline: Ureg) -> None:
    ureg = offline
    ureg("target", "add", "mine", "http://127.0.0.1:9", "--select", "kind=alias")
    for left in (None, b""):
        store = ureg.home / ".universal_registry.db"
        store.unlink() if left is None else store.write_bytes(left)
        found = checks(ureg, 1)
        assert found["home/whole"]["command"] == "ureg restore FILE"
        assert found["stores/sound"]["state"] == "skip"
        assert all(each["command"] != "ureg init" for each in found.values())
        said = ureg("status", code=3).stderr
        assert "ureg restore FILE" in said
        assert "ureg init" not in said
        ureg("init", code=5)


def test_a_home_without_a_registry_is_not_called_well(offline: Ureg, tmp_path: Any) -> None:
    found = checks(lambda *words, **more: offline(*words, "--home", str(tmp_path / "empty"), **more), 1)
    assert found["home/registry"]["command"] == "ureg init"
    assert {each["state"] for name, each in found.items() if name.startswith(("stores/", "keys/", "sending/"))} == {
        "skip"
    }
