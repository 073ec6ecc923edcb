"""The agent: takes the frames of a watch, makes of this machine what the records say, and reports what runs of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from universal_registry.agent.disk import Target, look
from universal_registry.agent.places import Places
from universal_registry.agent.placing import Placer
from universal_registry.agent.plan import Form, Plan
from universal_registry.agent.result import Result, Standing
from universal_registry.agent.state import Kept, State, StateFile, Word
from universal_registry.agent.wanted import Unfit, Wanted, check_item, record_text, wanted
from universal_registry.client.http import Caller, record_path
from universal_registry.kernel.errors import Conflict, Invalid, NotFound, Refused, RegistryError
from universal_registry.registry.agent_report import (
    CLASSIFICATION,
    KIND,
    MOST_TOLD,
    NAMESPACE,
    AgentReport,
    NotRunning,
    report_spec,
)
from universal_registry.registry.selector import selector_document

Tell = Callable[[Result], None]
Item = dict[str, Any]
LIST = "list"
"""Where a watch begins that knows nothing yet."""


class Agent:
    """One machine's. `tell` is told of each place whose standing is not what it was; `caller` reports to the registry.

    Every method may raise StorageUnavailable, when its own state cannot be kept; whoever starts it again loses nothing.
    """

    def __init__(
        self, plan: Plan, places: Places, placer: Placer, file: StateFile, state: State, caller: Caller, tell: Tell
    ) -> None:
        self._plan = plan
        self._places = places
        self._placer = placer
        self._file = file
        self._state = state
        self._caller = caller
        self._tell = tell
        self._told: dict[str, Result] = {}
        self._listed: dict[str, Item] | None = None if state.cursor else {}
        """What a list has brought that is under way; None: none is, and `synced` only says that all was caught up."""
        self._history = ""
        self._due = False
        self._results: list[Result] = []
        self.trouble: RegistryError | None = None
        """Why the last report did not reach the registry."""

    @property
    def begin(self) -> str:
        """Where the watch is to go on."""
        return self._state.cursor or LIST

    @property
    def is_settled(self) -> bool:
        """Whether all that has come runs."""
        return all(each.standing in (Standing.RUNNING, Standing.REMOVED) for each in self._results)

    def start(self) -> None:
        """End what the last run was in the middle of; then make everything as the records are that came before, which
        needs no registry, and tries again what did not do."""
        done = self._placer.resume({entry.name: entry for entry in self._plan.entries})
        self._state.reported = ""
        if done is not None:
            self._tell(done)
        if self._state.cursor:
            self.settle(again=done is None)

    def anew(self) -> None:
        """The place in the log is worth nothing any more: everything is to be listed again."""
        self._history = self._state.cursor.partition(".")[0] or self._history
        self._state.cursor = self._state.reported = ""
        self._listed = {}

    def take(self, frame: Mapping[str, Any], *, more: bool = False) -> bool:
        """Note one frame of the watch, and do what it says. `more`: another is at hand, so that this one need not be
        dealt with by itself. Whether all that came has been dealt with."""
        if not self.note(frame) or more:
            return False
        if self._due or frame["type"] == "bookmark":
            self.settle()
        return True

    def note(self, frame: Mapping[str, Any]) -> bool:
        """Keep what a frame of the watch says. Whether it is whole: not within a list. Raises Conflict when changes are
        missing, Refused for a registry that has lost everything."""
        match frame["type"]:
            case "records":
                self._listed = self._listed or {}
                self._listed.update({record_text(each): check_item(each) for each in frame["records"]})
                return False
            case "restart":
                self._listed = {}
                return False
            case "synced":
                if self._listed is not None:
                    self._check_history(str(frame.get("cursor")))
                    self._state.items, self._listed = self._listed, None
                self._due = True
            case "changes":
                self._change(frame["events"])
            case "gap":
                raise Conflict("changes are missing that are not kept any more")
        self._state.cursor = frame.get("cursor") or self._state.cursor
        return True

    def settle(self, *, again: bool = False) -> None:
        """Make everything what the records say, see what was changed on this machine, and report it. What people have
        said meanwhile is heeded first."""
        for word in self._file.words():
            self._heed(word)
        found, unfit = wanted(self._plan, self._places, self._state.items.values())
        entries = {entry.name: entry for entry in self._plan.entries}
        keys = {each.key for each in found}
        results = []
        for key, kept in list(self._state.places.items()):
            entry = entries.get(kept.entry)
            if entry is None or entry.form != kept.form or not self._places.covers(Path(kept.path)):
                del self._state.places[key]  # no entry of the plan is about it any more: it is left as it is
            elif key not in keys and not _are_there(kept, unfit):
                results.append(self._placer.remove(key, entry, again=again))
        results += [self._placer.settle(each, again=again) for each in found]
        self._results = results + self._of_unfit(unfit, keys)
        self._placer.all_done()
        self._due = False
        self._file.save(self._state)
        self._tell_news()
        self.report()

    def foresee(self) -> list[Result]:
        """What `settle` would do; nothing is changed."""
        found, unfit = wanted(self._plan, self._places, self._state.items.values())
        entries = {entry.name: entry for entry in self._plan.entries}
        keys = {each.key for each in found}
        gone = [
            self._placer.foresee_removal(key, entries[kept.entry])
            for key, kept in self._state.places.items()
            if key not in keys
            and kept.entry in entries
            and kept.mark
            and self._places.covers(Path(kept.path))
            and not _are_there(kept, unfit)
        ]
        return [*gone, *map(self._placer.foresee, found), *self._of_unfit(unfit, keys)]

    def report(self) -> None:
        """Tell the registry what runs here, unless it knows. One that is away is told later."""
        if not self._state.cursor:
            return
        report = self._report()
        digest = sha256(msgspec.json.encode(report)).hexdigest()
        if digest == self._state.reported:
            return
        document = {"classification": CLASSIFICATION, "spec": report_spec(report)}
        try:
            self._caller.request("PUT", record_path(NAMESPACE, KIND, self._plan.name), json=document)
        except RegistryError as error:
            self.trouble = error
            return
        self.trouble, self._state.reported = None, digest
        self._file.save(self._state)

    def adopt(self, paths: Collection[Path]) -> None:
        """Make what stands at these paths what the registry has: it becomes the record's content, unless the record was
        changed since it came here. Raises NotFound, Invalid, Refused, and what the registry answers."""
        found = {each.path: each for each in wanted(self._plan, self._places, self._state.items.values())[0]}
        for path in paths:
            each = found.get(path)
            if each is None:
                raise NotFound(f"no record is to stand at {path}", hint="--dry-run shows the places")
            self._adopt(each)

    def _adopt_as_seen(self, paths: Collection[Path]) -> None:
        """The same for what was said a while ago: of the record as it was when what stood there came. Raises Conflict,
        too."""
        for each in wanted(self._plan, self._places, self._state.items.values())[0]:
            kept = self._state.places.get(each.key)
            if each.path in paths and kept is not None and kept.mark and kept.sources != each.sources:
                hint = "--revert takes that; a new content of the record puts yours over it"
                raise Conflict(f"{each.path} cannot be adopted: the record was changed since", hint=hint)
        self.adopt(paths)

    def _heed(self, word: Word) -> None:
        said = [
            *((path, self._adopt_as_seen) for path in word.adopt),
            *((path, self._placer.revert) for path in word.revert),
        ]
        for path, verb in said:
            try:
                verb([self._places.place(path)])
            except RegistryError as error:
                self._tell(Result(path=path, entry="", standing=Standing.HELD, sources={}, why=error.message))

    # --- how ---------------------------------------------------------------------------------------------------------

    def _check_history(self, cursor: str) -> None:
        """A registry that was made anew or restored, and has nothing of what it had, takes nothing away here."""
        another = self._history not in ("", cursor.partition(".")[0])
        if another and not self._listed and self._state.items:
            hint = f"if that is meant, remove {self._file.folder}; what was put there stays"
            raise Refused("the registry has another history and nothing of what it had: nothing is removed", hint=hint)

    def _change(self, events: Iterable[Mapping[str, Any]]) -> None:
        for event in events:
            if event["op"] == "put":
                self._state.items[record_text(event)] = check_item(event["record"])
            elif event["op"] in ("delete", "left"):
                self._state.items.pop(record_text(event), None)
            else:
                continue
            self._due = True

    def _tell_news(self) -> None:
        news = {f"{each.path}\n{each.entry}\n{'' if each.path else list(each.sources)}": each for each in self._results}
        for key, each in news.items():
            before = self._told.get(key)
            if each.changed or before is None or (before.standing, before.why) != (each.standing, each.why):
                self._tell(each)
        self._told = news

    def _report(self) -> AgentReport:
        behind = [
            NotRunning(
                record=record,
                state=each.standing.value,
                revision=revision,
                why=f"{each.path}: {each.why}" if each.path else each.why,
                running=each.running.get(record),
            )
            for each in self._results
            if each.standing in (Standing.RECEIVED, Standing.HELD)
            for record, revision in each.sources.items()
            if each.running.get(record) != revision and record in self._state.items
        ]
        return AgentReport(
            at=self._at(),
            selectors=[selector_document(entry.selector) for entry in self._plan.entries],
            behind=behind[:MOST_TOLD],
            more=max(0, len(behind) - MOST_TOLD),
        )

    def _of_unfit(self, unfit: Iterable[Unfit], keys: Collection[str]) -> list[Result]:
        """What came and cannot stand here as it is. Where it had a place to itself, what it was runs on there."""
        runs = {
            (kept.entry, record): revision
            for key, kept in self._state.places.items()
            if kept.mark and key not in keys
            for record, revision in kept.sources.items()
        }
        found = []
        for each in unfit:
            revision = runs.get((each.entry, each.record))
            running = {} if revision is None else {each.record: revision}
            sources = {each.record: each.revision}
            found.append(
                Result(
                    path="", entry=each.entry, standing=Standing.HELD, sources=sources, why=each.why, running=running
                )
            )
        return found

    def _at(self) -> int:
        """The newest revision of what came: it does not rise with what is none of this machine's business."""
        return max((item["meta"]["revision"] for item in self._state.items.values()), default=0)

    def _adopt(self, each: Wanted) -> None:
        record = next(iter(each.sources))
        item = self._state.items[record]
        if each.entry.form is not Form.FILE or len(each.sources) != 1 or item["kind"] != "config_file":
            raise Invalid(
                f"{each.path} cannot be adopted: it is not the content of one record",
                hint="--revert, or edit the records",
            )
        self._places.check(each.path)
        found, kept = look(Target(each.path, each.entry)), self._state.places.get(each.key)
        if kept is not None and kept.mark and found.mark == kept.mark:
            raise Refused(f"{each.path} is as the agent has put it: there is nothing to adopt")
        if found.before.what != "file":
            raise Refused(f"{each.path} is no file to adopt")
        try:
            spec = {"content": found.before.data.decode(), "data": None}
        except UnicodeDecodeError:
            raise Invalid(f"{each.path} cannot be adopted: it is no UTF-8") from None
        headers = {"if-match": f'"{each.sources[record]}"'}
        path = record_path(item["namespace"], item["kind"], item["name"])
        answer = self._caller.request("PATCH", path, json={"spec": spec}, headers=headers).json()
        self._state.items[record] = check_item(answer["record"])
        key, entry = each.key, each.entry
        self._state.places[key] = Kept(path=str(each.path), form=entry.form, entry=entry.name, mark=found.mark)
        self._file.save(self._state)


def _are_there(kept: Kept, unfit: Iterable[Unfit]) -> bool:
    """Whether a record that a place was made of is still there, though it cannot stand there as it is now."""
    return any(each.entry == kept.entry and each.record in kept.sources for each in unfit)
