"""`ureg follow --apply`: what comes is put in its places on this machine, by the machine's own plan."""

from __future__ import annotations

import asyncio
import difflib
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple

from universal_registry.agent.agent import LIST, Agent
from universal_registry.agent.commands import Commands
from universal_registry.agent.places import Places, check_own
from universal_registry.agent.placing import Placer
from universal_registry.agent.plan import Plan, read_plan
from universal_registry.agent.result import Result, Standing
from universal_registry.agent.state import StateFile, Word, leave_word
from universal_registry.cli.contexts import Context
from universal_registry.cli.documents import read_documents
from universal_registry.cli.grid import escaped
from universal_registry.cli.output import json_text
from universal_registry.cli.session import note, spoken
from universal_registry.cli.watching import until_signal
from universal_registry.client.http import Client
from universal_registry.client.watch import WatchClient
from universal_registry.environment import environment
from universal_registry.kernel.errors import Conflict, Invalid, PartlyDelivered, RegistryError, UsageError
from universal_registry.kernel.world import SystemWorld
from universal_registry.registry.catalogue import load_catalogue

_SIGNS = {Standing.RUNNING: "●", Standing.RECEIVED: "◐", Standing.HELD: "○", Standing.REMOVED: "-"}
_REQUEST_SECONDS = 10.0


class Asked(NamedTuple):
    """What was said on the command line. Empty paths: where they are by themselves."""

    plan: str = ""
    state: str = ""
    adopt: Sequence[str] = ()
    revert: Sequence[str] = ()
    dry_run: bool = False
    once: bool = False
    output: str = "table"


def apply(where: Context, asked: Asked) -> None:
    """Follow the registry, and make of this machine what it says, until a signal ends it (or all that is there has been
    dealt with). Raises what the plan, the state or the registry are not good for; PartlyDelivered when at the end
    something does not run."""
    environ, world = environment(), SystemWorld()
    home = environ.get("HOME") or os.path.expanduser("~")
    named = Path(asked.plan or _config(environ.get("XDG_CONFIG_HOME", ""), home) / "agent.yaml").absolute()
    plan = _plan(named, home)
    folder = Path(asked.state or _state(environ.get("XDG_STATE_HOME", ""), home) / plan.name).absolute()
    own = [named, folder, *(Path(each) for each in (where.token_file, where.ca_file) if each)]
    places = Places(plan.roots, own)
    adopted, reverted = ([places.place(_whole(each)) for each in paths] for paths in (asked.adopt, asked.revert))
    if both := set(adopted) & set(reverted):
        raise UsageError(f"{min(both)} cannot be adopted and reverted", hint="--adopt or --revert")
    try:
        file = StateFile(folder, world)
    except Conflict:
        if asked.dry_run or not (adopted or reverted):
            raise
        leave_word(folder, Word(adopt=list(map(str, adopted)), revert=list(map(str, reverted))), world)
        note("the agent that is at work here does it within seconds, and says what came of it")
        return
    client = Client(where.address, where.token(), _REQUEST_SECONDS, ca_file=where.ca_file)
    try:
        state = file.load(where.address, plan.terms())
        placer = Placer(places, Commands(environ, plan.timeout), file, state, world)
        placer.revert(reverted)
        agent = Agent(plan, places, placer, file, state, client, lambda each: _tell(each, asked.output))
        watch = WatchClient(lambda: (where.address,), token=where.token(), ca_file=where.ca_file)
        _Following(agent, watch, client, plan, asked).run(adopted)
    except RegistryError as error:
        raise spoken(error) from None
    finally:
        client.close()
        file.close()


class _Following:
    """The watch, and the agent that is given its frames."""

    def __init__(self, agent: Agent, watch: WatchClient, client: Client, plan: Plan, asked: Asked) -> None:
        self._agent = agent
        self._watch = watch
        self._client = client
        self._plan = plan
        self._asked = asked
        self._troubled = ""

    def run(self, adopted: Sequence[Path]) -> None:
        """Until it ends. `adopted`: paths whose content becomes that of their records first."""
        if self._asked.dry_run or adopted:
            self._client.request("GET", "/health/live")  # rather than wait for it
            self._agent.anew()
            asyncio.run(until_signal(self._listed(adopted)))
        if self._asked.dry_run:
            for each in self._agent.foresee():
                _tell(each, self._asked.output)
            return
        self._agent.start()
        if self._asked.once:
            self._client.request("GET", "/health/live")
            self._agent.anew()
        asyncio.run(until_signal(self._follow()))
        if self._asked.once and not self._agent.is_settled:
            raise PartlyDelivered("not all of it runs here", hint="the lines above say what, and why")
        if self._asked.once and self._agent.trouble is not None:
            raise self._agent.trouble

    async def _listed(self, adopted: Sequence[Path]) -> None:
        """What the registry has now, without doing anything about it but to adopt."""
        async with aclosing(self._watch.frames(self._query())) as frames:
            async for frame in frames:
                if self._agent.note(frame):
                    break
        if not self._asked.dry_run:
            self._agent.adopt(adopted)

    async def _follow(self) -> None:
        while True:
            begin = self._agent.begin
            try:
                async with aclosing(self._watch.frames(self._query())) as frames:
                    async for frame in frames:
                        dealt_with = self._agent.take(frame, more=self._watch.more)
                        self._say_trouble()
                        if self._asked.once and dealt_with:
                            return
            except Conflict as error:  # the history that was read is no more, or not kept any more
                if self._agent.begin == begin == LIST:
                    raise
                note(f"{error.message}: everything is read again")
                self._agent.anew()

    def _query(self) -> dict[str, Any]:
        return {"select": self._plan.terms(), "from": self._agent.begin, "policy": "coalesce"}

    def _say_trouble(self) -> None:
        trouble = self._agent.trouble
        said = "" if trouble is None else f"what runs here could not be reported: {trouble.message}"
        if said and said != self._troubled:
            note(said)
        self._troubled = said


def _plan(path: Path, home: str) -> Plan:
    documents = read_documents(str(path))
    if len(documents) != 1:
        raise Invalid(f"{path} is no plan", hint="docs/how-to/agent.md shows one")
    check_own(path)
    host = socket.gethostname().partition(".")[0]
    try:
        return read_plan(documents[0], home=home, host=host, catalogue=load_catalogue())
    except RegistryError as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from None


def _config(said: str, home: str) -> Path:
    return Path(said if said.startswith("/") else f"{home}/.config") / "universal-registry"


def _state(said: str, home: str) -> Path:
    return Path(said if said.startswith("/") else f"{home}/.local/state") / "universal-registry" / "agents"


def _whole(path: str) -> str:
    return path if path.startswith("/") else os.path.normpath(os.path.join(os.getcwd(), path))


def _tell(each: Result, output: str) -> None:
    """A line about a place, or of a record that has none; of what is only foreseen, what would change in the file."""
    if output != "table":
        plain = {
            "state": each.standing.value,
            "path": each.path or None,
            "entry": each.entry,
            "records": dict(each.sources),
            "why": each.why or None,
        }
        lines = [json_text(plain)]
    else:
        what = each.path or ", ".join(each.sources)
        lines = [
            escaped(f"{_SIGNS[each.standing]} {each.standing:<8}  {what}  {each.why}".rstrip()),
            *_difference(each),
        ]
    sys.stdout.write("".join(line + "\n" for line in lines))
    sys.stdout.flush()


def _difference(each: Result) -> list[str]:
    if each.before is None or each.after is None:
        return []
    old, new = (data.decode("utf-8", "replace").splitlines() for data in (each.before, each.after))
    return [escaped(line) for line in difflib.unified_diff(old, new, "now", "then", lineterm="", n=1)]
