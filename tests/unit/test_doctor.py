"""Each check of `ureg doctor`, when all is well and when it is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from universal_registry.care.checks.finding import Facts, State
from universal_registry.care.doctor import CHECKS, examine, exit_code, fixes

NOW = datetime(2026, 3, 1, tzinfo=UTC)
AT = "2026-02-20T00:00:00Z"
KEYS = {"keys": [{"kid": "3f2a9c01"}], "rotation": None, "warnings": []}
WELL: dict[str, Any] = {
    "now": NOW,
    "holder": "process 1 (daemon)",
    "holder_is_daemon": True,
    "answers": True,
    "health": {"reason": "", "workers": {"webhook": {"state": "running", "deaths": 0}}},
    "modes": {"config/encryption.key": 0o600, ".universal_registry.db": 0o640},
    "sizes": {"logs/registry.log": 1},
    "token_is_one": True,
    "metrics_age": 1.0,
    "backup_folder": "/b",
    "backup_age": 3600.0,
    "marks": {"key_backup": {"at": AT, "kids": ["3f2a9c01"]}, "drill": {"at": AT}},
    "keys": KEYS,
}


def target(**more: Any) -> dict[str, Any]:
    return {"targets": [{"target": "system/mine", "reason": "", "lane": {"breaker": "closed"}, **more}]}


ILL: dict[str, tuple[dict[str, Any], str]] = {
    "home/registry": ({"initialised": False}, "fail"),
    "home/whole": ({"half": "one is missing", "half_command": "ureg up"}, "fail"),
    "home/writable": ({"home_writable": False}, "fail"),
    "home/space": ({"free_bytes": 1 << 20}, "fail"),
    "home/private": ({"modes": {"config/encryption.key": 0o644}}, "fail"),
    "home/token": ({"token_is_one": False}, "fail"),
    "home/databases": ({"modes": {".universal_registry.db": 0o644}}, "warn"),
    "home/log-size": ({"sizes": {"logs/registry.log": 1 << 30}}, "warn"),
    "home/settings": ({"settings_warnings": ("no setting is called x",)}, "warn"),
    "daemon/runs": ({"holder_is_daemon": False, "holder": ""}, "warn"),
    "daemon/answers": ({"answers": False}, "fail"),
    "daemon/lock": ({"holder": "process 2 (command)", "holder_is_daemon": False}, "warn"),
    "daemon/address": ({"stale_address": True}, "warn"),
    "daemon/port": ({"port_taken": "127.0.0.1:8080"}, "fail"),
    "daemon/ready": ({"health": {"reason": "migrating"}}, "fail"),
    "daemon/workers": ({"health": {"workers": {"webhook": {"state": "stuck", "deaths": 0}}}}, "warn"),
    "daemon/metrics": ({"metrics_age": None}, "warn"),
    "daemon/tls": ({"tls_until": NOW + timedelta(days=3)}, "warn"),
    "daemon/exposed": ({"open_to_others": True}, "warn"),
    "stores/sound": ({"broken": {"registry": "page 3"}}, "fail"),
    "stores/schema": ({"pending": 2}, "warn"),
    "stores/wal": ({"sizes": {".universal_registry.db-wal": 2 << 30}}, "warn"),
    "stores/readable": ({"silent": "no"}, "fail"),
    "keys/key": ({"key_trouble": "missing"}, "fail"),
    "keys/age": ({"keys": {**KEYS, "warnings": ["key 3f2a9c01 has sealed for 99 days"]}}, "warn"),
    "keys/rotation": ({"keys": {**KEYS, "rotation": {"kid": "aa"}}, "answers": False}, "warn"),
    "keys/backup": ({"keys": {**KEYS, "keys": [{"kid": "00000000"}]}}, "warn"),
    "backups/newest": ({"backup_age": 1e6}, "warn"),
    "backups/made": ({"status": {"warnings": ["no backup is made since 2026-03-01: /b cannot be written"]}}, "fail"),
    "backups/drill": ({"marks": {}}, "warn"),
    "sending/breakers": ({"status": target(lane={"breaker": "open"})}, "warn"),
    "sending/targets": ({"status": target(reason="no address")}, "warn"),
    "sending/dead": ({"status": {"dead": 1}}, "warn"),
    "sending/queue": ({"status": {"health": {"queue_depth": 20_000}}}, "warn"),
    "sending/conflicts": ({"status": {"warnings": ["there are conflicts to review: x"]}}, "warn"),
    "sending/peers": ({"status": {"warnings": ["peer a: degraded: x"]}}, "warn"),
    "sending/history": ({"status": {"warnings": ["history: target a keeps 9: ureg target resume a"]}}, "warn"),
    "sending/wire": ({"keys": {**KEYS, "warnings": ["nothing is sealed on the wire, as x"]}}, "warn"),
}


def test_every_check_is_tested_in_both_states_and_there_are_enough() -> None:
    assert [f"{check.group}/{check.name}" for check in CHECKS] == list(ILL)
    assert len(ILL) >= 25


def test_all_is_well_with_a_registry_that_is_looked_after() -> None:
    found = examine(Facts(**WELL))
    assert {each.state for each in found} == {State.OK}, found
    assert exit_code(found) == 0
    assert not fixes(Facts(**WELL))


@pytest.mark.parametrize("name", ILL)
def test_a_check_says_what_is_wrong_and_the_command(name: str) -> None:
    facts, state = ILL[name]
    found = {f"{each.group}/{each.name}": each for each in examine(Facts(**{**WELL, **facts}))}
    assert found[name].state == state
    assert found[name].why
    assert found[name].command
    assert exit_code(list(found.values())) in (1, 10)


def test_nothing_is_called_well_that_was_not_looked_at() -> None:
    found = {f"{each.group}/{each.name}": each for each in examine(Facts(now=NOW, initialised=False))}
    well = {name for name, each in found.items() if each.state == "ok"}
    assert well == {
        "home/writable", "home/space", "home/settings",
        "daemon/lock", "daemon/address", "daemon/port", "daemon/tls", "daemon/exposed",
    }  # fmt: skip
    assert {name for name, each in found.items() if each.state == "fail"} == {"home/registry"}
    assert found["stores/sound"].why.startswith("not looked at: ")
    server = Facts(**{**WELL, "engine": "postgresql"})
    assert next(each.state for each in examine(server) if each.name == "sound") == "skip"


def test_what_does_not_open_was_not_looked_at_either() -> None:
    found = examine(Facts(**{**WELL, "silent": "the disk is gone"}))
    assert {each.state for each in found if each.group == "sending"} == {"skip"}
    assert exit_code(found) == 1


def test_settings_that_cannot_be_read_are_the_one_thing_that_failed() -> None:
    wrong = {"settings_trouble": "config.py:1 is not Python", "silent": "config.py:1 is not Python", "answers": False}
    found = examine(Facts(**{**WELL, **wrong, "holder_is_daemon": False, "holder": "", "key_trouble": "missing"}))
    assert [f"{each.group}/{each.name}" for each in found if each.state == "fail"] == ["home/settings"]


def said(name: str, **facts: Any) -> tuple[str, str]:
    found = {f"{each.group}/{each.name}": each for each in examine(Facts(**{**WELL, **facts}))}
    return found[name].state, found[name].command


def test_a_daemon_that_stands_still_is_told_to_go_on() -> None:
    still = {"answers": False, "frozen": 17, "silent": "process 17 stands still"}
    assert said("daemon/answers", **still) == ("fail", "kill -CONT 17")
    assert said("stores/readable", **still) == ("skip", "")


def test_a_key_that_others_may_read_is_closed_and_not_restored() -> None:
    open_ = {"key_trouble": "open to others", "key_command": "chmod 600 key", "silent": "open to others"}
    assert said("keys/key", **open_) == ("fail", "chmod 600 key")
    assert said("stores/readable", **open_) == ("skip", "")


def test_a_full_disk_is_not_taken_for_a_damaged_store() -> None:
    full = {"unread": "no space left", "silent": "no space left", "free_bytes": 0}
    assert said("stores/sound", **full) == ("skip", "")
    assert said("home/space", **full) == ("fail", "df -h")


def test_a_target_that_keeps_the_history_is_said_with_its_command() -> None:
    kept = "history: target one keeps 9 revisions beyond their time (it is paused): ureg target resume one"
    found = {each.name: each for each in examine(Facts(**{**WELL, "status": {"warnings": [kept]}}))}
    why = "target one keeps 9 revisions beyond their time (it is paused)"
    assert (found["history"].state, found["history"].why, found["history"].command) == (
        "warn", why, "ureg target resume one",
    )  # fmt: skip


def test_a_target_called_backup_is_none() -> None:
    assert said("backups/made", status={"warnings": ["target backup: no address, 3 waiting"]}) == ("ok", "")
    late = "the backup that was begun at 2026-03-01T00:00:00+00:00 does not end"
    assert said("backups/made", status={"warnings": [late]}) == ("fail", "ls -ld /b")


def test_a_key_in_the_place_of_another_is_said() -> None:
    assert said("keys/key", key_replaced="0badc0de") == ("warn", "ureg key ls")
