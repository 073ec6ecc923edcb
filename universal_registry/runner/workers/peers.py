"""Keeps the links with peers: connects, for ever and with jitter, and lets each link know what was committed."""

from __future__ import annotations

import asyncio

from universal_registry.kernel.errors import RegistryError
from universal_registry.kernel.world import World
from universal_registry.observe.logs import Log
from universal_registry.runner.ports import Alarm, Job, Peers, Pulse

TICK = 1.0
PURGE_SECONDS = 3600.0
FIRST_PAUSE, LONGEST_PAUSE, REFUSED_PAUSE = 0.25, 1.0, 10.0
_ALARMS = ("clone", "to and fro")
CALM = 10.0
"""A link that lasted so many seconds has worked: after it the pauses begin anew."""


class PeersWorker:
    """Its alarm rings for each commit, and for the end."""

    def __init__(self, peers: Peers, world: World) -> None:
        self.alarm = Alarm()
        self._peers = peers
        self._world = world
        self._tasks: dict[str, tuple[Job, asyncio.Task[None]]] = {}
        self._trouble = ""
        self._log = Log("peers")
        peers.news = self._news

    async def run(self, pulse: Pulse) -> None:
        """Until the end is asked for."""
        tend_at = self._world.monotonic()
        purge_at = tend_at + PURGE_SECONDS
        try:
            while not pulse.ending():
                pulse.beat()
                now = self._world.monotonic()
                await self._tried(tend=now >= tend_at, purge=now >= purge_at)
                tend_at = now + TICK if now >= tend_at else tend_at
                purge_at = now + PURGE_SECONDS if now >= purge_at else purge_at
                await self.alarm.wait(max(0.0, tend_at - self._world.monotonic()))
        finally:
            await self._cancel([task for _, task in self._tasks.values()])
            self._tasks.clear()

    async def _tried(self, *, tend: bool = False, purge: bool = False) -> None:
        """What a database that is gone prevents is done when that is back."""
        try:
            await self._peers.woken()
            if tend:
                await self._tend()
            if purge:
                await self._peers.purge()
            self._trouble = ""
        except RegistryError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self._log.error("links wait for the database", error)

    async def _tend(self) -> None:
        wanted = await self._peers.to_dial()
        gone = [node for node, (peer, task) in self._tasks.items() if task.done() or wanted.get(node) != peer]
        await self._cancel([self._tasks.pop(node)[1] for node in gone])
        for node, peer in wanted.items():
            if node not in self._tasks:
                task = asyncio.create_task(self._keep(node, peer), name=f"peer-{node}")
                self._tasks[node] = peer, task

    async def _cancel(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                self._log.error("a link met a fault of ours", ended)

    async def _keep(self, node: str, peer: Job) -> None:
        """Connect, carry, and again; each pause is any part of twice the one before."""
        failures = 0
        while True:
            began = self._world.monotonic()
            refused = await self._one(node, peer)
            failures = 0 if self._world.monotonic() - began >= CALM else failures + 1
            longest = REFUSED_PAUSE if refused else min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 16))
            await asyncio.sleep(self._world.chance() * longest)

    async def _one(self, node: str, peer: Job) -> bool:
        """One link, from its beginning to its end; whether it was refused."""
        try:
            link = await self._peers.dial(peer)
        except RegistryError as error:
            self._peers.failed(node, str(error))
            return False
        sides = [asyncio.create_task(link.send()), asyncio.create_task(link.poll())]
        reason = "the connection ended"
        try:
            done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            for side in done:
                ended = side.exception()
                if ended is not None and not isinstance(ended, RegistryError):
                    raise ended
                reason = str(ended) if ended is not None else reason
        finally:
            refused = self._peers.hung_up(link, reason)
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
        return refused

    def _news(self, event: str, **fields: str) -> None:
        if event in _ALARMS:
            self._log.error(event, None, **fields)
        else:
            self._log.info(event, **fields)
