"""delivery get and retry, session watch and retry, as people run them, with real receivers."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class Moody(BaseHTTPRequestHandler):
    """Takes what it is given, once it is told to; until then it refuses what it is given."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not on the test's screen."""


class Receiver(ThreadingHTTPServer):
    """What it answers with now, and where it is."""

    status = 422

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/in"


@pytest.fixture
def moody() -> Iterator[Receiver]:
    server = Receiver(("127.0.0.1", 0), Moody)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def dead(ureg: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ureg.json("delivery", "ls", "--state", "dead")
    return found


def _given_up(ureg: Any, url: str, wait_for: Callable[[Callable[[], object]], bool]) -> None:
    """Two records and an event that a target has not taken, and the same of another target."""
    for name in ("mine", "other"):
        ureg("target", "add", name, url, "--network", "loopback", "--select", "kind=alias")
    ureg("set", "alias", "gs", "command=x")
    ureg("set", "alias", "ll", "command=y")
    ureg("unidirectional", "gs", "mine", '{"n": 1}')
    assert wait_for(lambda: len(dead(ureg)) == 5)


@pytest.mark.parametrize("bare", ["sqlite", "postgresql"], indirect=True)
def test_what_was_given_up_is_found_by_a_filter_and_sent_again(
    online: Any, moody: Receiver, wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    _given_up(online, moody.url, wait_for)

    def found(filter_: str) -> int:
        count: int = online.json("delivery", "retry", "--dry-run", "--filter", filter_)["found"]
        return count

    assert found("status:failed") == found("status:dead since:1h") == found("since:2020-01-01 status:failed") == 5
    assert found("status:failed target:mine") == 3
    assert found("status:failed target:other name:alias/gs") == 1
    assert found("status:failed name:gs namespace:default") == 3
    assert found("status:failed since:2999-01-01T00:00:00Z") == 0
    (event,) = [each for each in dead(online) if each["op"] == "event"]
    assert found(f"status:failed session:{event['session']}") == 1
    assert len(dead(online)) == 5, "a dry run does nothing"
    said = online("delivery", "retry", "--filter", "status:failed target:mine", "--dry-run").stdout
    assert said == "3 deliveries (3 to mine) would be sent again\n"

    moody.status = 204
    done = online("delivery", "retry", "--filter", "status:failed since:1h target:mine", "--reason", "they are back")
    assert done.stdout == "3 deliveries (3 to mine) will be sent again\n"
    assert wait_for(lambda: [each["target"] for each in dead(online)] == ["system/other"] * 2)
    assert (
        "nothing that was given up is meant"
        in online("delivery", "retry", "--filter", "status:failed target:mine").stderr
    )
    rows = online.json("audit", "ls", "--action", "delivery.redrive")
    assert [row["details"]["reason"] for row in rows] == ["they are back"] * 3


@pytest.mark.parametrize(
    ("filter_", "code", "said"),
    [
        ("", 2, "has no status"),
        ("target:mine", 2, "status:failed"),
        ("status:waiting", 2, "only what was given up"),
        ("status:failed since:soon", 2, "is no time"),
        ("status:failed since:", 2, "is no term"),
        ("status:failed colour:red", 2, "is no term"),
        ("status:failed mine", 2, "is no term"),
        ("status:failed status:dead", 2, "given twice"),
        ("status:failed namespace:default", 2, "no name"),
        ("status:failed name:'a b", 2, "quotation"),
        ("status:failed target:mime", 3, "did you mean 'mine'"),
        ("status:failed name:none", 3, "none"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_one_clear_line(offline: Any, filter_: str, code: int, said: str) -> None:
    offline("target", "add", "mine", "http://127.0.0.1:9", "--network", "loopback")
    done = offline("delivery", "retry", "--filter", filter_, code=code)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_one_delivery_is_shown_with_what_was_tried(
    online: Any, moody: Receiver, wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    _given_up(online, moody.url, wait_for)
    first, *_ = dead(online)
    shown = online.json("delivery", "get", first["delivery"])
    tried = shown.pop("failed_attempts")
    assert shown == first
    assert [each["status"] for each in tried] == [422]
    assert first["delivery"] in online("delivery", "get", first["delivery"]).stdout
    assert online("delivery", "get", first["delivery"], "-o", "name").stdout == first["delivery"] + "\n"
    assert online("delivery", "get", first["delivery"], "--query", "failed_attempts[0].number").stdout == "0\n"
    assert "does not wait" in online("delivery", "get", "dlv_none", code=3).stderr
    online("delivery", "get", code=2)
    online("delivery", "get", "", code=2)


def test_a_session_is_tried_again_and_watched_until_all_have_it(
    online: Any, moody: Receiver, wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    _given_up(online, moody.url, wait_for)
    (event,) = [each for each in dead(online) if each["op"] == "event"]
    session = event["session"]
    done = online("session", "watch", session, code=1)
    assert done.stdout == f"session {session} failed: 1 dead (mine)\n"
    assert "mine dead" in done.stderr
    assert "given up: mine" in done.stderr
    moody.status = 204
    assert "1 delivery (1 to mine) would be" in online("session", "retry", session, "--dry-run").stdout
    assert len(dead(online)) == 5
    assert online("session", "retry", session).stdout == (
        f"session {session}: 1 delivery (1 to mine) will be sent again\n"
    )
    assert wait_for(lambda: online.json("session", "get", session)["state"] == "succeeded")
    watched = json.loads(online("session", "watch", session, "-o", "json").stdout)
    assert [each["state"] for each in watched["targets"]] == ["delivered"]
    assert "nothing was given up" in online("session", "retry", session).stderr
    assert len(dead(online)) == 4, "those of other sessions are left alone"
    for word in ("watch", "retry"):
        assert "no session 'none'" in online("session", word, "none", code=3).stderr


def test_a_watch_goes_on_until_the_target_is_back_and_ctrl_c_ends_only_the_watch(
    online: Any, moody: Receiver, wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    moody.status = 503
    online("target", "add", "mine", moody.url, "--network", "loopback")
    online("set", "alias", "gs", "command=x")
    session = online.json("unidirectional", "gs", "mine", '{"n": 1}')["session"]
    assert wait_for(lambda: online.json("delivery", "ls", "--session", session)[0]["state"] == "waiting")
    running = online.start("session", "watch", session)
    assert running.stderr.readline().startswith("mine waiting: ")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert (out, running.returncode) == ("", 130)
    assert f"it goes on; ureg session get {session}" in err
    running = online.start("session", "watch", session)
    assert running.stderr.readline().startswith("mine waiting: ")
    moody.status = 204
    online("target", "resume", "mine")  # what waits is tried at once
    out, _ = running.communicate(timeout=50)
    assert (out, running.returncode) == (f"session {session} succeeded: 1 delivered\n", 0)


def test_without_a_daemon_a_watch_says_so_and_a_retry_waits_for_one(
    offline: Any, moody: Receiver, wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    offline("target", "add", "mine", moody.url, "--network", "loopback")
    offline("set", "alias", "gs", "command=x")
    session = offline.json("unidirectional", "gs", "mine", '{"n": 1}')["session"]
    assert len(dead(offline)) == 1
    assert "given up" in offline("session", "watch", session, code=1).stderr
    assert "no daemon runs" in offline("session", "retry", session).stderr
    moody.status = 204
    offline("up")
    assert wait_for(lambda: offline.json("session", "get", session)["state"] == "succeeded")
    offline("down")
    moody.status = 503
    session = offline.json("unidirectional", "gs", "mine", '{"n": 2}')["session"]
    assert "no daemon runs" in offline("session", "watch", session, code=7).stderr


@pytest.mark.parametrize("bare", ["sqlite", "postgresql"], indirect=True)
def test_a_session_on_one_axis_of_time(
    online: Any, moody: Receiver, wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    moody.status = 503
    online("target", "add", "mine", moody.url, "--network", "loopback")
    online("target", "add", "later", "http://127.0.0.1:9", "--network", "loopback")
    online("set", "alias", "gs", "command=x")
    session = online.json("multicast", "--source", "gs", "--targets", "mine,later", "--data", '{"n": 1}')["session"]
    assert wait_for(lambda: "waiting" in {each["state"] for each in online.json("delivery", "ls", "--target", "mine")})
    moody.status = 204
    online("target", "resume", "mine")
    assert wait_for(lambda: not online.json("delivery", "ls", "--target", "mine"))

    found = online.json("session", "waterfall", session)
    mine, later = found["targets"]
    (came,), (waits,) = mine["deliveries"], later["deliveries"]
    assert (mine["state"], came["state"], later["state"]) == ("delivered", "delivered", "waiting")
    assert [each["status"] for each in came["attempts"]] == [503] * len(came["attempts"]) != []
    moments = [
        came["planned_at"],
        *(each["ended_at"] for each in came["attempts"]),
        came["began_at"],
        came["arrived_at"],
    ]
    assert moments == sorted(moments)
    assert moments[-1] < found["now"]
    assert waits["arrived_at"] is None
    shown = online("session", "waterfall", session).stdout.splitlines()
    assert shown[1].startswith("mine   ")
    assert "●" in shown[1]
    assert "delivered in " in shown[1]
    assert ": " in shown[2]

    moody.status = 204
    again = online.json("session", "replay", session, "--target", "mine")["session"]
    assert wait_for(lambda: online.json("session", "get", again)["state"] == "succeeded")
    (replayed,) = online.json("session", "waterfall", again)["targets"]
    assert replayed["deliveries"][0]["arrived_at"] > came["arrived_at"]
    assert "no session 'none'" in online("session", "waterfall", "none", code=3).stderr

    standing = online.json("unidirectional", "gs", "mine")["session"]
    assert wait_for(lambda: online.json("session", "get", standing)["state"] == "in_sync")
    assert online("session", "waterfall", standing).stdout.splitlines()[1].split() == ["mine", "in", "sync"]
