"""token, audit, health and metrics, as people run them: with a daemon and without."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import apsw
import pytest

MOVE = "UPDATE audit SET number = {} WHERE number = {}"


def get(ureg, path: str, token: str) -> tuple[int, bytes]:
    """Over TCP, with a token."""
    address = (ureg.home / "run" / "address").read_text().splitlines()[1]
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def tamper(ureg, file: str, sql: str) -> None:
    connection = apsw.Connection(str(ureg.home / file))
    connection.execute("DROP TRIGGER audit_guard_update; DROP TRIGGER audit_guard_delete; " + sql)
    connection.close()


def test_tokens_are_made_listed_and_revoked(ureg):
    done = ureg("token", "add", "prom", "--scope", "read", "--expires", "90d")
    token = done.stdout.strip()
    assert token.startswith("ur_")
    assert "not shown again" in done.stderr
    made = ureg.json("token", "add", "ci", "--scope", "write", "--scope", "propagate")
    assert (made["scopes"], made["token"][:3]) == (["write", "propagate"], "ur_")
    assert ureg("token", "ls", "-o", "name").stdout.split() == ["ci", "prom"]
    listed = ureg("token", "ls", "-o", "json").stdout
    assert token not in listed
    assert made["token"] not in listed
    assert "there is a token ci already" in ureg("token", "add", "ci", "--scope", "read", code=5).stderr
    ureg("token", "add", "a b", "--scope", "read", code=6)
    ureg("token", "add", "x", "--scope", "raed", code=2)
    ureg("token", "add", "x", "--scope", "read", "--expires", "soon", code=6)
    assert "did you mean 'prom'?" in ureg("token", "revoke", "prmo", code=3).stderr
    assert ureg("token", "revoke", "prom").stdout == "token prom revoked\n"
    actions = [(item["action"], item["subject"]) for item in ureg.json("audit", "ls", "--action", "token")]
    assert actions == [("token.revoke", "token prom"), ("token.add", "token ci"), ("token.add", "token prom")]


def test_a_token_made_by_a_command_opens_the_daemon_until_it_is_revoked(online):
    token = online("token", "add", "prom", "--scope", "read").stdout.strip()
    status, body = get(online, "/metrics", token)
    assert status == 200
    assert b"ureg_health_db 1.0" in body
    online("token", "revoke", "prom")
    assert get(online, "/metrics", token)[0] == 401


def test_the_audit_lists_what_was_done(ureg):
    ureg("set", "alias", "gs", "command=x", "-m", "why not")
    ureg("delete", "alias", "gs")
    found = ureg.json("audit", "ls")
    assert [item["action"] for item in found] == ["record.delete", "record.put"]
    assert found[1]["details"] == {"message": "why not"}
    assert "why not" in ureg("audit", "ls", "--since", "1h", "--action", "record.put").stdout
    assert ureg("audit", "ls", "--actor", "nobody").stderr == "no such rows\n"
    ureg("audit", "ls", "--since", "yesterday", code=2)


def test_whole_chains_verify_with_anchors_of_any_form(ureg):
    ureg("set", "alias", "gs", "command=x")
    ureg("token", "add", "ci", "--scope", "read")
    anchor = ureg("audit", "anchor").stdout.strip()
    file = ureg.write("anchors.txt", f"mail of Monday:\n  > {anchor}\n")
    ureg("set", "alias", "gs", "command=y")
    log = f'{{"anchor":"{anchor}"}}'
    done = ureg("audit", "verify", "--anchor", file, "--anchor", anchor, "--anchor", "-", stdin=log)
    assert "2 lines of the change log up to revision 2" in done.stdout
    assert "1 rows of the registry store's trail" in done.stdout
    assert "anchors that agree: 3" in done.stdout
    assert "no anchor" in ureg("audit", "verify").stdout
    assert ureg.json("audit", "verify")["rows"] == {"registry": 1, "propagation": 0}
    assert "there is no file" in ureg("audit", "verify", "--anchor", "nowhere", code=3).stderr
    assert "no anchor in" in ureg("audit", "verify", "--anchor", ureg.write("empty", "x"), code=2).stderr


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE audit SET actor = 'uid:0', details = '{}' WHERE number = 2", "row 2 was altered"),
        ("DELETE FROM audit WHERE number = 2", "row 2 is missing"),
        ("DELETE FROM audit WHERE number = 3", "was cut off: it was anchored at row 3"),
        (f"{MOVE.format(9, 1)}; {MOVE.format(1, 2)}; {MOVE.format(2, 9)}", "row 1 was altered"),
    ],
    ids=["altered", "removed", "cut off", "reordered"],
)
def test_what_was_tampered_with_is_named(offline, sql, says):
    for name in ("a", "b", "c"):
        offline("token", "add", name, "--scope", "read")
    anchor = offline("audit", "anchor").stdout.strip()
    tamper(offline, ".universal_registry.db", sql)
    done = offline("audit", "verify", "--anchor", anchor, code=1)
    assert done.stdout == ""
    assert f"the audit trail of the registry store{'' if 'cut' in says else ':'} {says}" in done.stderr


def test_a_log_that_was_cut_off_is_named(offline):
    for command in ("x", "y"):
        offline("set", "alias", "gs", f"command={command}")
    anchor = offline("audit", "anchor").stdout.strip()
    backup = (offline.home / ".universal_registry.db").read_bytes()
    offline("set", "alias", "gs", "command=z")
    later = offline("audit", "anchor").stdout.strip()
    for file in offline.home.glob(".universal_registry.db*"):
        file.unlink()
    Path(offline.home / ".universal_registry.db").write_bytes(backup)
    assert "anchors that agree: 1" in offline("audit", "verify", "--anchor", anchor).stdout
    assert "the change log was cut off" in offline("audit", "verify", "--anchor", later, code=1).stderr


def test_health_says_how_the_daemon_does(online):
    found = json.loads(online("health", "-o", "json").stdout)
    assert found["status"] == "ok"
    assert {"propagation", "webhook", "streaming", "health"} <= found["workers"].keys()
    assert {each["state"] for each in found["workers"].values()} == {"running"}
    assert "ok\n" in online("health").stdout
    database = online.home / ".universal_registry.db"
    database.rename(online.home / "away")
    try:
        done = online.run(("health",), b"", {})
        assert (done.returncode, "cannot be found any more" in done.stdout) == (1, True)
    finally:
        (online.home / "away").rename(database)
    online("health")


def test_health_without_a_daemon_is_exit_7(offline):
    assert "no daemon runs here" in offline("health", code=7).stderr


def test_metrics_rules_and_board_come_with_the_program(ureg, bare):
    assert "ureg_build_info{" in ureg("metrics").stdout
    assert "- alert: RegistryDown" in bare("metrics", "--rules").stdout
    assert json.loads(bare("metrics", "--board").stdout)["uid"] == "universal-registry"
