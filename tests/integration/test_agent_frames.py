"""What an agent makes of the frames of a watch, in whatever pieces they come."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.agents import Machine, item, plan_of
from universal_registry.agent.agent import LIST, Agent
from universal_registry.agent.state import Word, leave_word
from universal_registry.client.http import Client
from universal_registry.kernel.errors import Conflict, Malformed, Refused
from universal_registry.kernel.world import SystemWorld

NOBODY = "127.0.0.1:1"


class Watched:
    """An agent whose registry cannot be told of anything."""

    def __init__(self, folder: Path) -> None:
        entry = {"select": "kind=config_file", "path": f"{folder}/root/{{name}}"}
        self.machine = Machine(folder, plan_of(folder, {"files": entry}))
        machine, self.told = self.machine, []
        client = Client(NOBODY, timeout=0.5)
        self.agent = Agent(
            machine.plan, machine.places, machine.placer, machine.file, machine.state, client, self.told.append
        )
        self.root = folder / "root"

    def take(self, *frames: Mapping[str, Any]) -> list[str]:
        """The files that there are after the frames, which are at hand together."""
        for number, frame in enumerate(frames, 1):
            self.agent.take(frame, more=number < len(frames))
        return sorted(os.listdir(self.root))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.machine.file.close()


def records(*names: str) -> dict[str, Any]:
    return {"type": "records", "records": [item("config_file", name, content=name) for name in names]}


def changes(revision: int, *events: tuple[str, str]) -> dict[str, Any]:
    told = []
    for op, name in events:
        record = item("config_file", name, revision, content=f"{name} {revision}")
        told.append({**record, "op": op, "record": record if op == "put" else None})
    return {"type": "changes", "cursor": f"c.{revision}.x", "events": told}


def synced(revision: int) -> dict[str, Any]:
    return {"type": "synced", "cursor": f"c.{revision}.x"}


def test_a_list_is_all_that_there_is_and_a_catching_up_only_what_changed(watched: Watched) -> None:
    assert watched.agent.begin == LIST
    assert watched.take(records("a", "b"), records("c")) == [], "half a list says nothing of the rest"
    assert watched.take(synced(3)) == ["a", "b", "c"]
    assert watched.agent.begin == "c.3.x"
    assert watched.take(changes(4, ("delete", "a")), changes(5, ("put", "d"))) == ["b", "c", "d"]
    assert watched.take(synced(5)) == ["b", "c", "d"], "it says that all was caught up, and lists nothing"
    assert watched.take({"type": "bookmark", "cursor": "c.9.x"}) == ["b", "c", "d"]
    watched.agent.anew()
    assert watched.agent.begin == LIST
    assert watched.take(records("c"), {"type": "restart"}, records("d")) == ["b", "c", "d"]
    assert watched.take(synced(9)) == ["d"]
    watched.agent.anew()
    assert watched.take(synced(9)) == []


def test_it_goes_on_from_what_it_has_when_it_starts(watched: Watched, tmp_path: Path) -> None:
    watched.take(records("a"), synced(1))
    watched.machine.file.close()
    (tmp_path / "root" / "a").unlink()
    again = Watched(tmp_path)
    again.agent.start()
    assert [each.why for each in again.told] == ["it was removed on this machine"]
    (tmp_path / "root" / "a").write_text("a")
    (tmp_path / "root" / "a").chmod(0o644)
    assert again.agent.begin == "c.1.x"
    assert again.take(synced(1)) == ["a"]
    assert again.take(changes(2, ("put", "b"))) == ["a", "b"]
    assert again.take(changes(3, ("left", "a"))) == ["b"]
    watched.machine = again.machine


def test_what_cannot_stand_there_any_more_takes_nothing_away(watched: Watched) -> None:
    watched.take(records("a"), synced(1))
    bad = item("config_file", "a", 2, content="worse", mode="0755")
    event = {**bad, "op": "put", "record": bad}
    assert watched.take({"type": "changes", "cursor": "c.2.x", "events": [event]}, synced(2)) == ["a"]
    assert (watched.root / "a").read_text() == "a"
    [held] = [each for each in watched.told if each.standing == "held"]
    assert held.running == {"config_file/default/a": 1}
    assert [each for each in watched.told if each.standing == "removed"] == []
    assert watched.agent.foresee() == [each for each in watched.agent.foresee() if each.standing == "held"]
    assert watched.take(changes(3, ("put", "a"))) == ["a"]
    assert (watched.root / "a").read_text() == "a 3"
    assert watched.take(changes(4, ("delete", "a"))) == []


def test_what_was_said_a_while_ago_is_of_the_record_as_it_was(watched: Watched) -> None:
    """The registry, which nobody can reach here, is asked to take nothing."""
    watched.take(records("a", "b"), synced(1))
    leave_word(watched.machine.file.folder, Word(adopt=[str(watched.root / "a")]), SystemWorld())
    watched.take({"type": "bookmark", "cursor": "c.2.x"})
    assert "nothing to adopt" in watched.told[-1].why, "nobody has changed it"
    (watched.root / "a").write_text("mine")
    leave_word(watched.machine.file.folder, Word(adopt=[str(watched.root / "a")]), SystemWorld())
    watched.take(changes(3, ("put", "a")))
    assert [each.why for each in watched.told if "changed since" in each.why] != []
    assert (watched.root / "a").read_text() == "mine"
    watched.machine.places._roots = ()  # the folder is another one's now
    watched.agent.settle()
    assert "below no allowed folder" in watched.told[-1].why
    assert watched.machine.state.places == {}, "what stands there is left as it is, and is no longer the agent's"
    assert sorted(os.listdir(watched.root)) == ["a", "b"]


def test_a_registry_that_was_made_anew_takes_nothing_away(watched: Watched) -> None:
    watched.take(records("a"), synced(1))
    watched.agent.anew()
    with pytest.raises(Refused, match="another history"):
        watched.take({"type": "synced", "cursor": "d.1.x"})
    assert os.listdir(watched.root) == ["a"]
    assert watched.take(records("b"), {"type": "synced", "cursor": "d.2.x"}) == ["b"]


def test_what_is_no_frame_of_a_watch_changes_nothing(watched: Watched) -> None:
    watched.take(records("a"), synced(1))
    with pytest.raises(Conflict):
        watched.take({"type": "gap", "first": 1, "last": 2})
    for broken in (
        {"kind": "config_file", "namespace": "default", "name": "a"},
        {**item("config_file", "a"), "spec": 1},
    ):
        event = {"op": "put", "kind": "config_file", "namespace": "default", "name": "a", "record": broken}
        with pytest.raises(Malformed):
            watched.take({"type": "changes", "cursor": "c.2.x", "events": [event]})
    assert watched.take(synced(2)) == ["a"]
    assert watched.agent.trouble is not None
