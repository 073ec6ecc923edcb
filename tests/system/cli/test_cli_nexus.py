"""Studios end to end: `ureg nexus`, a studio that knows only the documented contract, and the Python names."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from reference_studio import ReferenceStudio


def studio_of(ureg: Any, name: str = "nexus") -> ReferenceStudio:
    return ReferenceStudio((ureg.home / "run" / "address").read_text().splitlines()[0], name)


def logged(ureg: Any, *more: str) -> list[tuple[str, str, str]]:
    rows = ureg.json("nexus", "history", *more)
    return [(row["way"], row["component"], row["status"]) for row in rows]


def test_unidirectional_the_studio_is_told_and_may_not_push(online: Any) -> None:
    ureg = online
    ureg("set", "alias", "gs", "command=git status")
    ureg("nexus", "bind", "gs", "c", "unidirectional")
    studio = studio_of(ureg)
    studio.sync()
    assert studio.components["c"]["spec"] == {"command": "git status"}
    studio.edit("c", command="rm")
    (answer,) = studio.sync("c")["pushed"]
    assert (answer["status"], "unidirectional" in answer["detail"]) == ("refused", True)
    assert ureg.json("get", "alias", "gs")["spec"] == {"command": "git status"}
    assert logged(ureg) == [("push", "c", "failed"), ("pull", "c", "executed")]


def test_bidirectional_edits_of_both_sides_survive(online: Any) -> None:
    ureg = online
    ureg("set", "service", "pay", "port=1", "version=1.0")
    ureg("nexus", "sync", "service/pay", "c", "bidirectional", "--no-ack")
    studio = studio_of(ureg)
    studio.sync()
    ureg("set", "service", "pay", "port=2")
    studio.edit("c", version="2.0")
    (answer,) = studio.sync("c")["pushed"]
    assert answer["effect"] == "updated"
    assert studio.components["c"]["spec"] == ureg.json("get", "service", "pay")["spec"] == {"port": 2, "version": "2.0"}
    ureg("set", "service", "pay", "port=3")
    studio.edit("c", port=4)
    (answer,) = studio.sync("c")["pushed"]
    assert (answer["status"], answer["fields"], answer["record"]["spec"]["port"]) == ("conflict", ["port"], 3)
    assert studio.components["c"]["spec"]["port"] == 3, "it has the record now, and may push again on top of it"
    studio.edit("c", port=4)
    studio.sync("c")
    assert ureg.json("get", "service", "pay")["spec"]["port"] == 4


def test_multicast_one_record_is_several_components(online: Any) -> None:
    ureg = online
    ureg("set", "alias", "gs", "command=1")
    ureg("nexus", "bind", "gs", "a,b", "multicast")
    studio = studio_of(ureg)
    studio.sync()
    ureg("set", "alias", "gs", "command=2")
    studio.sync()
    assert {name: each["spec"]["command"] for name, each in studio.components.items()} == {"a": "2", "b": "2"}
    ureg("delete", "alias", "gs")
    studio.sync()
    assert studio.components == {}


def test_broadcast_every_studio_is_told_also_who_comes_later(online: Any) -> None:
    ureg = online
    ureg("set", "alias", "gs", "command=1")
    ureg("nexus", "bind", "gs", "c", "broadcast")
    first, second = studio_of(ureg), studio_of(ureg, "second")
    first.sync()
    ureg("set", "alias", "gs", "command=2")
    for studio in (first, second):
        studio.sync()
        assert studio.components["c"]["spec"] == {"command": "2"}


def test_a_studio_follows_over_a_websocket(online: Any) -> None:
    ureg = online
    ureg("set", "alias", "gs", "command=1")
    ureg("nexus", "bind", "gs", "c")
    studio = studio_of(ureg)
    following = threading.Thread(target=studio.follow, args=(2,))
    following.start()
    for _ in range(200):
        if logged(ureg):  # the first change was told: the second comes while it waits
            break
    assert logged(ureg), "it asked"
    ureg("set", "alias", "gs", "command=2")
    following.join(30)
    assert not following.is_alive()
    assert studio.components["c"]["spec"] == {"command": "2"}
    assert {status for _, _, status in logged(ureg)} == {"executed"}


def test_the_command_pulls_pushes_and_acknowledges(online: Any, tmp_path: Path) -> None:
    ureg = online
    assert "does not exist yet" in ureg("nexus", "bind", "alias/later", "d").stderr
    ureg("set", "alias", "gs", "command=1")
    ureg("nexus", "bind", "gs", "c")
    (told,) = map(json.loads, ureg("nexus", "sync", "--no-ack", "-o", "ndjson").stdout.splitlines())
    assert (told["op"], told["component"], told["record"]["spec"]) == ("put", "c", {"command": "1"})
    assert ureg("nexus", "sync", "-o", "tsv").stdout == f"put\tc\talias/default/gs\t{told['revision']}\tbidirectional\n"
    assert ureg("nexus", "sync", "-o", "tsv").stdout == ""
    push = [
        {"component": "d", "spec": {"command": "new"}},
        {"component": "c", "spec": {"command": "2"}, "base": told["revision"]},
    ]
    done = ureg("nexus", "sync", "--push", "-", "-o", "tsv", stdin="\n".join(map(json.dumps, push)))
    assert "2 of 2 pushed" in done.stderr
    assert ureg.json("get", "alias", "later")["spec"] == {"command": "new"}
    done = ureg("nexus", "sync", "--push", "-", stdin=json.dumps(push[1] | {"spec": {"command": "3"}}), code=5)
    assert "has changed as well: command" in done.stderr
    assert ureg("nexus", "sync", "--push", "-", stdin="[]", code=6).stderr.startswith("ureg: standard input, line 1")
    assert "did you mean 'multicast'" in ureg("nexus", "bind", "gs", "c", "multicats", code=2).stderr
    assert "there is no record" in ureg("nexus", "bind", "nothing", "c", code=3).stderr
    assert [each["entry"] for each in ureg.json("nexus", "bindings")] == ["alias/default/gs", "alias/default/later"]
    assert ureg.json("nexus", "history", "alias/later")[0]["component"] == "d"


def test_the_command_follows(online: Any) -> None:
    ureg = online
    ureg("set", "alias", "gs", "command=1")
    enabled = json.loads(ureg("nexus", "stream", "gs", "c", "wss").stdout)
    assert (enabled["protocol"], enabled["stream"], enabled["direction"]) == ("wss", "c", "bidirectional")
    (change,) = map(json.loads, ureg("nexus", "stream", "--count", "1").stdout.splitlines())
    assert (change["op"], change["component"]) == ("put", "c")
    assert ureg("stream", "send", "c", "1").returncode == 0, "the stream for data of its own is there"
    assert "is no protocol of streams" in ureg("nexus", "stream", "gs", "c", "grpc", code=2).stderr


PROGRAM = """
import asyncio, json
from universal_registry.facade import (
    nexus_stream, nexus_sync, registry_enable_nexus_streaming, registry_nexus_sync_history, registry_sync_with_nexus
)
found = registry_sync_with_nexus("gs", "c", "bidirectional")
assert found["binding"]["effect"] == "created", found
assert [each["component"] for each in found["changes"]] == ["c"]
pushed = {"component": "c", "spec": {"command": "2"}, "base": found["changes"][0]["revision"]}
answer = nexus_sync(pushed, cursor=found["cursor"])
assert answer["pushed"][0]["effect"] == "updated", answer
registry_enable_nexus_streaming("gs", "c", "ws")
async def first():
    async for change in nexus_stream():
        return change
change = asyncio.run(first())
assert change["record"]["spec"] == {"command": "2"}, change
assert registry_nexus_sync_history("gs")[-1]["status"] == "executed"
print("done")
"""


def test_the_python_names(online: Any) -> None:
    ureg = online
    ureg("set", "alias", "gs", "command=1")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=ureg.environ, cwd=ureg.folder, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.parametrize("bare", ["sqlite", "postgresql"], indirect=True)
def test_without_a_daemon_and_under_its_name_in_sql(bare: Any) -> None:
    ureg = bare
    ureg("init")
    ureg("set", "alias", "gs", "command=1")
    assert "gs" in ureg("nexus", "sync", "gs", "c").stdout
    assert logged(ureg) == [("pull", "c", "executed")]
    assert "ureg up" in ureg("nexus", "stream", "--count", "1", code=7).stderr
