"""Telling targets and dead letters what to do, from the command line, with a daemon and without."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

NOWHERE = "http://127.0.0.1:9"


def lane(ureg: Any, name: str = "mine") -> dict[str, Any]:
    """The lane; nothing while no daemon has made it."""
    found: dict[str, Any] = ureg.json("target", "get", name)["lane"] or {}
    return found


def test_a_target_is_paused_resumed_disabled_and_enabled(ureg: Any) -> None:
    ureg("target", "add", "mine", NOWHERE, "--network", "loopback", "--select", "kind=alias")
    told = ureg.json("target", "pause", "mine", "--reason", "they move house")
    assert told["target"] == "system/mine"
    assert (told["state"], told["lane"]["by"] != "") == ("paused", True)
    assert "target mine ready" in ureg("target", "resume", "mine").stdout
    assert ureg.json("target", "get", "mine")["state"] == "ready"
    off = ureg.json("target", "disable", "mine", "--reason", "it's; gone `x`")
    assert off["state"] == "held"
    assert "it's; gone `x`" in off["reason"]
    assert ureg.json("target", "enable", "mine")["state"] == "ready"


def test_the_breaker_is_shown_opened_and_reset(ureg: Any) -> None:
    ureg("target", "add", "mine", NOWHERE, "--network", "loopback", "--select", "kind=alias")
    opened = ureg.json("target", "breaker", "mine", "--open", "--for", "2h")
    assert opened["lane"]["breaker"] == "open"
    assert opened["lane"]["open_until"]
    assert lane(ureg)["breaker"] == "open"
    assert "breaker open" in ureg("target", "breaker", "mine").stdout
    assert ureg.json("target", "breaker", "mine", "--reset")["lane"]["breaker"] == "closed"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("breaker", "mine", "--open", "--reset"), 2, "give one of the two"),
        (("breaker", "mine", "--for", "2h"), 2, "--open"),
        (("breaker", "mine", "--open", "--for", "soon"), 2, "--for"),
        (("breaker", "mine", "--open", "--for", "99999h"), 6, "365 days"),
        (("pause", "mime"), 3, "did you mean 'mine'"),
        (("pause", "mine", "--reason", "a\nb"), 6, "one line"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_line(offline: Any, words: tuple[str, ...], code: int, said: str) -> None:
    offline("target", "add", "mine", NOWHERE, "--network", "loopback")
    done = offline("target", *words, code=code)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_paused_daemon_holds_and_a_resumed_one_sends(
    online: Any, listen: Callable[..., Any], wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    listener = listen()
    online("target", "add", "mine", listener.url, "--network", "loopback", "--select", "kind=alias")
    online("target", "pause", "mine")
    for number in range(3):
        online("set", "alias", "gs", f"command={number}")
    assert wait_for(lambda: lane(online)["queued"] == 3)
    assert lane(online)["delivered"] == 0
    online("target", "resume", "mine")
    assert wait_for(lambda: lane(online)["delivered"] == 3)
    assert [event["data"]["record"]["spec"]["command"] for event in listener.stop()] == ["0", "1", "2"]
    actions = [row["action"] for row in online.json("audit", "ls", "--action", "target")]
    assert actions[:2] == ["target.resume", "target.pause"]


class Refuses(BaseHTTPRequestHandler):
    """Takes no payload at all."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(422)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not on the test's screen."""


@pytest.fixture
def refusing() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/in"
    server.shutdown()
    thread.join()
    server.server_close()


def test_dead_letters_are_redriven_and_skipped(
    online: Any, refusing: str, wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    online("target", "add", "mine", refusing, "--network", "loopback", "--select", "kind=alias", "--order", "strict")
    online("set", "alias", "one", "command=x")
    assert wait_for(lambda: lane(online)["dead"] == 1)
    held = online.json("target", "get", "mine")
    assert held["lane"]["hold"] == "order"
    online("set", "alias", "two", "command=y")
    [dead] = online.json("delivery", "ls", "--state", "dead")
    assert f"ureg delivery redrive {dead['delivery']}" in held["reason"]
    online("delivery", "skip", dead["delivery"], "--reason", "they have it")
    assert wait_for(lambda: lane(online)["dead"] == 1 and lane(online)["hold"] == "order")
    [dead] = online.json("delivery", "ls", "--state", "dead")
    assert dead["key"] == "alias/default/two"
    assert "sent again" in online("delivery", "redrive", "--target", "mine").stdout
    online("delivery", "redrive", "dlv_none", code=3)
    online("delivery", "skip", code=2)
