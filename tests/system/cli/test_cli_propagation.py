"""target, route, unidirectional, where, session, delivery, listen, up and down, against real receivers."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

SEED = [
    ["init"],
    ["status"],
    ["unidirectional", "--source", "myservice", "--target", "remote.service"],
]


def subjects(came: list[dict[str, Any]]) -> list[str]:
    return [event["subject"] for event in came if event["state"] == "received"]


def test_the_lines_of_the_seed_work_as_written_after_init(bare: Any) -> None:
    for words in SEED:
        bare(*words)
    done = bare(*SEED[-1])
    assert "myservice does not exist yet" in done.stderr
    assert "ureg target add remote.service URL" in done.stderr
    assert "ureg up" in done.stderr
    assert len(bare.json("session", "ls")) == 1, "the same again is the same session"
    assert bare("session", "ls", "-o", "name").stdout.strip() in done.stdout
    assert bare("enable-stream", "id", "websocket").stdout == "stream id: created\n"
    assert bare("enable-stream", "id", "websocket").stdout == "stream id: unchanged\n"


def test_a_change_arrives_and_where_shows_it(ureg: Any, listen: Callable[..., Any], wait_for: Any) -> None:
    receiver = listen()
    ureg("set", "alias", "gs", "command=git status")
    added = ureg("target", "add", "mine", receiver.url, "--select", "kind=alias")
    secret = added.stdout.split("secret ")[1].strip()
    assert secret.startswith("whsec_")
    assert "loopback" in added.stderr
    again = ureg("target", "add", "mine", receiver.url, "--select", "kind=alias").stdout
    assert again.splitlines()[0].startswith("target mine unchanged")
    assert "secret" not in again
    assert wait_for(lambda: ureg.json("where", "gs")[0]["state"] == "arrived")
    assert ureg("where", "alias/gs", "-o", "tsv").stdout.startswith("mine\tarrived\t1\t1\t")
    assert "● arrived" in ureg("where", "gs").stdout
    assert ureg("delivery", "ls").stdout == ""
    assert ureg.json("target", "get", "mine")["lane"]["delivered"] == 1
    assert "mine took it with 204" in ureg("target", "test", "mine").stdout
    assert "webhook-signature: v1," in ureg("target", "test", "mine", "--show").stdout
    assert subjects(receiver.stop()) == ["alias/default/gs", "endpoint/system/mine"]
    assert secret not in ureg("target", "ls", "-o", "json").stdout + ureg("export", "-n", "system").stdout


def test_signatures_are_checked_by_listen(offline: Any, listen: Callable[..., Any]) -> None:
    offline("set", "alias", "gs", "command=x")
    plain = listen()
    added = offline.json("target", "add", "mine", plain.url, "--select", "kind=alias")
    plain.stop()
    secret = offline.write("secret.txt", added["secret"] + "\n")
    knowing, foreign = listen("--secret", f"@{secret}"), listen("--secret", "whsec_" + "QUJD" * 11)
    for receiver, code, verified in ((knowing, 0, True), (foreign, 1, False)):
        offline("target", "add", "mine", receiver.url)
        assert offline.run(("target", "test", "mine"), b"", {}).returncode == code
        assert [event["verified"] for event in receiver.stop()][-1:] == [verified]


def test_waiting(ureg: Any, listen: Callable[..., Any]) -> None:
    receiver = listen()
    ureg("set", "alias", "gs", "command=x")
    done = ureg("unidirectional", "--source", "gs", "--target", receiver.url, "--wait")
    assert "in_sync" in done.stdout
    assert done.stderr.rstrip().endswith("ureg target secret show NAME")
    event = ureg.write("event.json", '{"n": [1, "é"]}')
    found = ureg.json("unidirectional", "gs", receiver.url, f"@{event}", "--wait=20s")
    assert (found["state"], found["standing"]) == ("succeeded", False)
    ureg("unidirectional", "gs", receiver.url, "plain text", "--wait")
    ureg("unidirectional", "gs", receiver.url, "--once", "--wait")
    data = [each["data"] for each in receiver.stop() if each["type"].endswith(".event.v1")]
    assert data[:2] == [{"n": [1, "é"]}, "plain text"]
    assert data[2]["spec"] == {"command": "x"}
    assert "no address" in ureg("unidirectional", "gs", "nowhere", "--wait=5s", code=9).stderr
    late = ureg("unidirectional", "gs", receiver.url, '{"n": 2}', "--wait=300ms", code=124)
    assert "not there after 0.3 s" in late.stderr
    waiting = ureg.json("delivery", "ls", "--state", "pending", "--state", "waiting")
    assert {each["target"] for each in waiting} >= {"system/nowhere"}


def test_without_a_daemon_it_can_be_left_for_later(offline: Any, listen: Callable[..., Any], wait_for: Any) -> None:
    receiver = listen()
    offline("set", "alias", "gs", "command=x")
    offline("target", "add", "mine", receiver.url)
    done = offline("unidirectional", "gs", "mine", "--no-wait", code=7)
    assert "syncing" in done.stdout
    assert "ureg up" in done.stderr
    offline("up")
    assert wait_for(lambda: offline.json("where", "gs")[0]["state"] == "arrived")
    offline("down")
    assert subjects(receiver.stop()) == ["alias/default/gs"]


def test_a_dry_run_stores_nothing(ureg: Any) -> None:
    ureg("set", "alias", "gs", "command=x")
    before = ureg.json("status")["revision"]
    assert "to mine: no address, new" in ureg("unidirectional", "gs", "mine", "--dry-run").stdout
    said = ureg("unidirectional", "kind=alias", "https://example.com/x", "--dry-run").stdout
    assert said.startswith("would send the state of kind=alias and each later change (unidirectional, created)\n")
    ureg("set", "function", "gs", "body=x")
    assert "2 records" in ureg("unidirectional", "gs", "mine", "--dry-run", code=2).stderr
    assert "2 records" in ureg("unidirectional", "gs", "mine", code=2).stderr
    assert ureg.json("status")["revision"] == before + 1


def test_routes_sessions_and_mistakes(ureg: Any) -> None:
    ureg("set", "alias", "gs", "command=x")
    ureg("target", "add", "mine", "http://127.0.0.1:9", "--select", "kind=alias")
    assert ureg("route", "add", "all", "--select", "kind=alias", "--target", "mine").stdout.startswith(
        "route all created"
    )
    assert {each["route"] for each in ureg.json("route", "ls")} == {"mine", "all"}
    session = ureg("session", "ls", "-o", "name").stdout.split()[0]
    assert ureg.json("session", "get", session)["session"] == session
    assert "did you mean 'mine'" in ureg("target", "get", "mien", code=3).stderr
    ureg("route", "add", "x", "--select", "kind=alias", "--target", "nosuch", code=3)
    ureg("route", "add", "x", "--select", "kid=alias", "--target", "mine", code=6)
    ureg("target", "add", "meta", "https://169.254.169.254/latest", code=9)
    ureg("target", "add", "bad", "ftp://x", code=6)
    ureg("unidirectional", "gs", "nosuch", "--strict", code=3)
    ureg("unidirectional", "gs", "mine", "--wait", "--no-wait", code=2)
    ureg("unidirectional", "gs", code=2)
    ureg("where", "nosuch", code=3)
    done = ureg.run(("target", "test", "mine"), b"", {})
    assert (done.returncode, "did not take it" in done.stdout) == (1, True)
    assert ureg("status", "-o", "tsv").stdout.startswith("home\t")


def test_up_and_down_are_idempotent(offline: Any) -> None:
    assert offline("up").stdout.startswith("daemon started: pid ")
    assert offline("up").stdout.startswith("daemon runs already: pid ")
    found = offline.json("status")
    assert found["daemon"]["pid"] > 0
    assert offline("status").stdout.splitlines()[1].startswith(f"daemon    pid {found['daemon']['pid']}")
    assert offline("down").stdout.startswith("daemon stopped")
    assert offline("down").stderr == "no daemon runs\n"
    assert offline.json("status")["daemon"] is None


def test_a_port_that_is_taken_is_one_line(offline: Any, listen: Callable[..., Any]) -> None:
    port = listen().url.rstrip("/").rpartition(":")[2]
    assert port in offline("listen", f":{port}", code=5).stderr
    assert port in offline("serve", "--listen", f"127.0.0.1:{port}", code=5).stderr.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_listen_ends_when_it_is_told_to(listen: Callable[..., Any], number: int) -> None:
    receiver = listen()
    receiver.process.send_signal(number)
    _, err = receiver.process.communicate(timeout=30)
    assert receiver.process.returncode == 0
    assert err == "0 received, 0 repeated, 0 verified, 0 refused, 0 failed\n"


def test_ctrl_c_while_waiting(online: Any) -> None:
    online("set", "alias", "gs", "command=x")
    online("target", "add", "mine", "http://127.0.0.1:9")
    process = online.start("unidirectional", "gs", "mine", "--wait=60s")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("mine ")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert json.loads(online("session", "ls", "-o", "json").stdout), "what was stored goes on"
    assert out == ""


def test_up_and_status_show_the_tcp_address_too(offline: Any) -> None:
    said = offline("up").stdout.strip()
    socket, tcp = offline.json("status")["daemon"]["addresses"]
    assert tcp.startswith("127.0.0.1:")
    assert said.endswith(f", {socket}, {tcp}")
    assert f"{socket}, {tcp}" in offline("status").stdout


def test_a_list_that_was_cut_says_so(online: Any, wait_for: Any) -> None:
    ureg = online
    ureg("unidirectional", "--source", "kind=alias", "--target", "later")
    for name in "abc":
        ureg("set", "alias", name, "command=x")
    assert wait_for(lambda: len(ureg.json("delivery", "ls")) == 3)
    done = ureg("delivery", "ls", "--limit", "2", "-o", "name")
    assert len(done.stdout.splitlines()) == 2
    assert "the first 2 only; --limit N shows more" in done.stderr
    assert "only" not in ureg("delivery", "ls", "--limit", "3").stderr
    assert "no delivery 'xx'" in ureg("delivery", "attempts", "xx", code=3).stderr


def test_an_empty_selector_is_refused(ureg: Any) -> None:
    done = ureg("target", "add", "mine", "http://127.0.0.1:9", "--select", "", code=6)
    assert "the selector is empty (such as kind=alias, or name=*" in done.stderr
    ureg("target", "add", "mine", "http://127.0.0.1:9")
    assert "the selector is empty" in ureg("route", "add", "r", "--select", " ", "--target", "mine", code=6).stderr
    assert ureg.json("route", "ls") == []
