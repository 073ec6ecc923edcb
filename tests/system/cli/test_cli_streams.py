"""Streams from the command line, with a daemon and without."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_data_is_sent_into_a_stream_and_received(online: Any, tmp_path: Path) -> None:
    ureg = online
    assert ureg("enable-stream", "room", "wss").stdout == "stream room: created\n"
    assert "there is no stream 'hall'" in ureg("stream", "send", "hall", "1", code=3).stderr
    assert "there is no stream 'hall'" in ureg("stream", "receive", "hall", code=3).stderr
    (tmp_path / "data.json").write_text('{"x": [1, "ä"]}')
    assert ureg("stream", "send", "room", f"@{tmp_path}/data.json").stdout.startswith("sent to room at revision ")
    first = ureg.json("stream", "send", "room", "plain words")["revision"]
    assert ureg("stream", "receive", "room", "--from", "beginning", "--count", "2").stdout.splitlines() == [
        '{"x":[1,"ä"]}',
        '"plain words"',
    ]
    (line,) = ureg("stream", "receive", "room", "--from", "beginning", "--count", "1", "--cursors").stdout.splitlines()
    cursor = json.loads(line)["cursor"]
    assert ureg("stream", "receive", "room", "--from", cursor, "--count", "1").stdout == '"plain words"\n'
    status = ureg.json("stream", "status", "room")
    assert (status["protocol"], status["open"]) == ("wss", 0)
    assert status["in"]["messages"] == 5  # two sent, three subscriptions
    assert status["out"]["messages"] >= 2 + 3 + 4
    assert ureg.json("status")["streams"]["messages"] == status["in"]["messages"] + status["out"]["messages"]
    assert ureg.json("status")["revision"] == first


def test_records_and_messages_are_published(online: Any, tmp_path: Path) -> None:
    ureg = online
    lines = [{"kind": "alias", "name": f"a{number}", "spec": {"command": "x"}} for number in range(700)]
    file = tmp_path / "lines.ndjson"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert ureg("stream", "publish", str(file)).stderr == "700 pushed\n"
    assert ureg.json("status")["kinds"]["alias"] == 700
    file.write_text(
        '{"type": "delete", "kind": "alias", "name": "a1"}\n{"type": "delete", "kind": "alias", "name": "b"}\n'
    )
    assert "there is no alias 'b'" in ureg("stream", "publish", str(file), code=3).stderr
    assert ureg.json("status")["kinds"]["alias"] == 699
    file.write_text('{"kind": "alias"\n')
    assert f"{file}, line 1: not JSON" in ureg("stream", "publish", str(file), code=6).stderr


def test_without_a_daemon_data_is_stored_and_who_wants_to_hear_is_told_what_to_do(bare: Any) -> None:
    bare("init")
    assert bare("enable-stream", "id", "websocket").returncode == 0
    assert bare("stream", "send", "id", "{}").stdout.startswith("sent to id")
    for words in (["stream", "receive", "id"], ["stream", "tail"]):
        assert "`ureg up` starts one" in bare(*words, code=7).stderr or "ureg up" in bare(*words, code=7).stderr
    assert "is no protocol of streams" in bare("enable-stream", "id", "grpc", code=2).stderr


def test_a_target_of_ws_gets_each_change_signed(ureg: Any, listen: Callable[..., Any], wait_for: Any) -> None:
    for number in range(5):
        ureg("set", "alias", f"a{number}", "command=x")
    receiver = listen()
    url = receiver.url.replace("http://", "ws://")
    made = ureg.json("target", "add", "mine", url, "--select", "kind=alias")
    assert made["network"] == "loopback"
    assert ureg.json("target", "get", "mine")["transport"] == "websocket"
    assert "took it" in ureg("target", "test", "mine").stdout
    assert wait_for(lambda: ureg.json("where", "a4")[0]["state"] == "arrived")
    told = [event["subject"] for event in receiver.stop() if event["state"] == "received"]
    assert sorted(told) == [*(f"alias/default/a{number}" for number in range(5)), "endpoint/system/mine"]
