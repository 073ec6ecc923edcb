"""The delivery path, killed (-9) at every named point of it, on both engines.

Every line of the log is then, for each of its targets, delivered, or held, cancelled or dead with a reason; what was
acknowledged is done; and nothing is sent twice but what had been answered and not yet recorded, under the same id.
By default the first and the last passage of each point; REGISTRY_TEST_ALL_POINTS=1: every passage.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import child_crash
import orjson
import pgserver
import pytest

from universal_registry.app import App, init, open_app
from universal_registry.environment import load_settings
from universal_registry.kernel.settings import Settings
from universal_registry.log.change import Change, Op
from universal_registry.propagation.lanes.lane import Delivery, DeliveryState, Keep
from universal_registry.propagation.routing.plan import CONTROL, REPLAY, event_of

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("child_crash.py")
ALL = bool(os.environ.get("REGISTRY_TEST_ALL_POINTS"))
KILLED = -9
ROUTED = ("good", "flaky", "picky", "slow", "down")
WANTED = (
    "plan", "commit of a claim", "commit of a failure", "commit of a lane's move", "commit of a row that is done",
    "commit of a session's step", "commit of the registry", "commit of delivery.redrive", "commit of breaker.open",
    "commit of breaker.reset", "giving delivery.redrive", "giving breaker.open", "session pause", "session resume",
    "session cancel", "a page of what a word is about", "letting hops go", "a step of a replay", "taking over lanes",
    "send",
)  # fmt: skip
Diary = list[dict[str, Any]]


class Trial:
    """A prepared home, and copies of it to be killed in."""

    def __init__(self, folder: Path, server: pgserver.Server | None) -> None:
        self.folder = folder
        self.server = server
        self.prepared = folder / "prepared"
        if server:
            server.database(self.prepared.name)
        settings = self.settings(self.prepared)
        init(settings, child_crash.StageWorld())
        asyncio.run(child_crash.prepare(settings))

    def environ(self, home: Path) -> dict[str, str]:
        database = self.server.environment(home.name) if self.server else {}
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REGISTRY_HOME": str(home), **database}

    def settings(self, home: Path) -> Settings:
        return load_settings(environ=self.environ(home))

    def copy(self, name: str) -> Path:
        home = self.folder / name
        shutil.copytree(self.prepared, home)
        if self.server:
            self.server.database(name, template=self.prepared.name)
        return home

    def child(
        self, home: Path, part: str, point: str = "-", occurrence: int = 0, *broken: str
    ) -> tuple[int, list[str]]:
        """The child's exit code, and the points that it came by."""
        done = subprocess.run(
            [sys.executable, str(CHILD), part, point, str(occurrence), *broken],
            env=self.environ(home), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode in (0, KILLED), done.stderr
        return done.returncode, done.stdout.splitlines()

    def killed_at(self, point: str, occurrence: int, *broken: str) -> list[str]:
        """What does not hold once the next daemon has done what there was to do."""
        home = self._killed(point, occurrence, *broken)
        code, _ = self.child(home, "recover", "-", 0, *broken)
        assert code == 0
        found = self.violations(home)
        self._remove(home)
        return found

    def _killed(self, point: str, occurrence: int, *broken: str) -> Path:
        """A home whose daemon was killed there. How often it comes by differs a little from run to run, with what one
        commit holds: where a late passage does not come this time, it is killed at an earlier one."""
        home = self.copy("killed")
        code, passed = self.child(home, "work", point, occurrence, *broken)
        if code == KILLED:
            assert passed[-1] == point
            return home
        self._remove(home)
        assert occurrence > 1, f"it did not come by {point}"
        return self._killed(point, occurrence - 1, *broken)

    def _remove(self, home: Path) -> None:
        shutil.rmtree(home)
        if self.server:
            self.server.drop_database(home.name)

    def violations(self, home: Path) -> list[str]:
        return asyncio.run(violations(self.settings(home)))


# --- judging ----------------------------------------------------------------------------------------------------------


async def violations(settings: Settings) -> list[str]:
    """What was promised and is not so, in words."""
    diary = [orjson.loads(line) for line in (settings.home / "far.jsonl").read_bytes().splitlines()]
    app = await open_app(settings, world=child_crash.StageWorld(), read_only=True)
    try:
        lines = [line for line in await app.service.log.changes(0, 1000) if line.op is Op.EVENT or line.kind == "alias"]
        rows = await app.lanes.deliveries()
        lanes = {lane.lane_id: lane.target_name for lane in await app.lanes.lanes()}
        sessions = [each async for each in _sessions(app, diary)]
        opened = [lane for lane in await app.lanes.lanes() if lane.target_name == "down" and lane.guard.opened_by]
    finally:
        await app.close()
    found = [*_each_has_ended(lines, rows, lanes, diary), *_ids(diary), *_repeats(diary), *sessions]
    if _noted(diary, "redriven") and not _accepted(diary, "picky", "alias/default/poison"):
        found.append("what was redriven has not arrived")
    if _noted(diary, "opened") and not opened:
        found.append("the breaker that was opened is closed")
    return found


async def _sessions(app: App, diary: Diary) -> Any:
    for what, wanted in (("promised", "succeeded"), ("cancelled", "cancelled")):
        for line in _noted(diary, what):
            state = (await app.control.session(line["session"]))["state"]
            if state != wanted:
                yield f"a session that was {what} is {state}"


def _noted(diary: Diary, what: str) -> Diary:
    return [line for line in diary if line["what"] == what]


def _accepted(diary: Diary, target: str, subject: str) -> bool:
    attempts = _noted(diary, "attempt")
    return any(each["accepted"] and (each["target"], each["subject"]) == (target, subject) for each in attempts)


def _each_has_ended(lines: list[Change], rows: Any, lanes: dict[str, str], diary: Diary) -> Iterator[str]:
    """Each line x target is delivered, or stands in a row that says why it is not, and may be there."""
    arrived = {
        (each["target"], each["place"]) for each in _noted(diary, "attempt") if each["accepted"] and not each["replay"]
    }
    kept: dict[tuple[str, str], Delivery] = {
        (lanes[row.lane_id], _place(row)): row for row in rows if not row.replay_of
    }
    for line in lines:
        for target in _targets(line):
            row = kept.get((target, _place(line)))
            if row is None and (target, _place(line)) not in arrived:
                yield f"lost: {line.name} of {_place(line)} to {target}"
            elif row is not None and not _may_stand(target, row, diary):
                yield f"left behind: {row.name} to {target}: {row.state} ({row.reason})"


def _may_stand(target: str, row: Delivery, diary: Diary) -> bool:
    if not row.reason or row.state is DeliveryState.SENDING:
        return False
    if row.keep is Keep.PAUSED and not any(each["session"] == row.session_id for each in _noted(diary, "promised")):
        return True
    return target == "down" or (target == "picky" and row.state is DeliveryState.DEAD and row.name == "poison")


def _place(each: Change | Delivery) -> str:
    return f"{each.revision:016d}.{each.seq:06d}"


def _targets(line: Change) -> tuple[str, ...]:
    if line.op is not Op.EVENT:
        return ROUTED
    event = event_of(line)
    return () if event.mode in (CONTROL, REPLAY) else tuple(each.partition("/")[2] for each in event.audience)


def _ids(diary: Diary) -> Iterator[str]:
    ids: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    replays: dict[tuple[str, str], set[str]] = defaultdict(set)
    for each in _noted(diary, "attempt"):
        if each["replay"]:
            replays[each["target"], each["place"]].add(each["id"])
        else:
            ids[each["target"], each["place"], each["subject"]].add(each["id"])
    yield from (f"several ids: {key}" for key, found in ids.items() if len(found) > 1)
    originals = set().union(*ids.values()) if ids else set()
    yield from (f"a replay bears the old id: {key}" for key, found in replays.items() if found & originals)


def _repeats(diary: Diary) -> Iterator[str]:
    """Nothing is sent again once its answer was in a commit that returned."""
    ended: set[str] = set()
    committing: set[str] = set()
    recorded: set[str] = set()
    accepted: set[str] = set()
    for line in diary:
        match line["what"]:
            case "began":  # what the one before had not recorded is forgotten
                ended, committing = set(), set()
            case "attempt":
                if line["id"] in recorded:
                    yield f"sent again after it was recorded: {line['subject']} to {line['target']}"
                if line["accepted"]:
                    accepted.add(line["id"])
            case "ended":
                ended |= {line["id"]} & accepted
            case "commit begun":
                committing = set(ended)
            case "committed":
                recorded |= committing


# --- the matrix -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def trial(request: pytest.FixtureRequest, tmp_path: Path) -> Trial:
    server = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    return Trial(tmp_path, server)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_each_point_nothing_is_lost(trial: Trial) -> None:
    whole = trial.copy("whole")
    code, points = trial.child(whole, "work")
    assert code == 0
    passages = Counter(points)
    for name in WANTED:
        assert any(name in point for point in passages), f"the script does not come by {name}"
    trial.child(whole, "recover")
    assert trial.violations(whole) == []
    wrong = {
        (point, occurrence): found
        for point, count in passages.items()
        for occurrence in (range(1, count + 1) if ALL else sorted({1, count}))
        if (found := trial.killed_at(point, occurrence))
    }
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "point", "told"),
    [
        ("moves-before-answer", "after commit of a lane's move", "lost: "),
        ("never-moves", "after commit of delivery.redrive", "sent again after it was recorded: "),
        ("other-ids", "after send, answer received", "several ids: "),
    ],
)
def test_without_the_protection_it_is_noticed(trial: Trial, broken: str, point: str, told: str) -> None:
    assert [each for each in trial.killed_at(point, 1, broken) if each.startswith(told)]


# --- the judge itself -------------------------------------------------------------------------------------------------


def an_attempt(**changes: Any) -> dict[str, Any]:
    made = {"what": "attempt", "target": "good", "id": "d1", "place": "1.0", "subject": "s", "accepted": True}
    return {**made, "replay": "", **changes}


RECORDED: Diary = [
    an_attempt(), {"what": "ended", "id": "d1"}, {"what": "commit begun"}, {"what": "committed"}
]  # fmt: skip


@pytest.mark.parametrize(
    ("judge", "diary", "wanted"),
    [
        (_repeats, [*RECORDED, an_attempt()], 1),
        (_repeats, [*RECORDED[:3], an_attempt()], 0),
        (_repeats, [an_attempt(), {"what": "commit begun"}, {"what": "committed"}, an_attempt()], 0),
        (_repeats, [*RECORDED[:2], {"what": "began"}, *RECORDED[2:], an_attempt()], 0),
        (_repeats, [an_attempt(accepted=False), *RECORDED[1:], an_attempt()], 0),
        (_ids, [an_attempt(), an_attempt(id="d2")], 1),
        (_ids, [an_attempt(), an_attempt(id="d2", replay="d1")], 0),
        (_ids, [an_attempt(), an_attempt(replay="d1")], 1),
    ],
)
def test_the_judge_knows_the_window(judge: Callable[[Diary], Iterator[str]], diary: Diary, wanted: int) -> None:
    assert len(list(judge(diary))) == wanted
