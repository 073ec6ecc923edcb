"""An agent's parts, for tests: records as a watch tells them, a plan of a folder, and what puts it there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from universal_registry.agent.commands import Commands
from universal_registry.agent.places import Places
from universal_registry.agent.placing import Placer
from universal_registry.agent.plan import Plan, read_plan
from universal_registry.agent.result import Result
from universal_registry.agent.state import State, StateFile
from universal_registry.agent.wanted import Unfit, wanted
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.catalogue import load_catalogue


def item(kind: str, name: str, revision: int = 1, classification: str = "", **spec: Any) -> dict[str, Any]:
    """The document of a record."""
    classification = classification or load_catalogue().kind(kind).classifications[0].name
    meta = {"revision": revision}
    return {
        "kind": kind,
        "namespace": "default",
        "name": name,
        "classification": classification,
        "spec": spec,
        "meta": meta,
    }


def plan_of(folder: Path, entries: dict[str, Any], **more: Any) -> Plan:
    """A plan with one root, `folder/root`, which is made."""
    (folder / "root").mkdir(exist_ok=True)
    document = {"name": "m", "roots": [str(folder / "root")], "entries": entries, **more}
    return read_plan(document, home=str(folder / "root"), host="m", catalogue=load_catalogue())


class Machine:
    """One run of the agent's placing in a folder; close it before the next one."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        *,
        reverts: Sequence[Path] = (),
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.plan = plan
        self.file = StateFile(folder / "state", SystemWorld())
        self.state: State = self.file.load("here", plan.terms())
        self.places = Places(plan.roots, [self.file.folder])
        commands = Commands(os.environ, plan.timeout)
        self.placer = Placer(self.places, commands, self.file, self.state, SystemWorld(), reached=reached)
        self.placer.revert(reverts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def settle(self, *items: dict[str, Any], again: bool = False) -> list[Result | Unfit]:
        """Make it so, what was under way first."""
        entries = {entry.name: entry for entry in self.plan.entries}
        self.placer.resume(entries)
        found, unfit = wanted(self.plan, self.places, items)
        keys = {each.key for each in found}
        gone = [key for key in self.state.places if key not in keys]
        done = [self.placer.remove(key, entries[self.state.places[key].entry], again=again) for key in gone]
        done += [self.placer.settle(each, again=again) for each in found]
        self.placer.all_done()
        self.file.save(self.state)
        return [*done, *unfit]


def said(results: list[Result | Unfit]) -> list[tuple[str, str]]:
    """What came of them: (standing or unfit, why)."""
    return [(each.standing.value, each.why) if isinstance(each, Result) else ("unfit", each.why) for each in results]
