"""What people tell lanes is done here, by the daemon that owns them: in one commit with what follows, and its deed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from universal_registry.kernel.world import World
from universal_registry.log.audit import deed
from universal_registry.propagation.engine.outbox import Outbox
from universal_registry.propagation.engine.window import LaneRun
from universal_registry.propagation.lanes.lane import Delivery, DeliveryState
from universal_registry.propagation.lanes.lane_command import (
    AT_ONCE,
    ON_DELIVERIES,
    Command,
    hastened,
    obeyed,
    row_obeyed,
)
from universal_registry.propagation.ports import LaneCommands, LaneQueries
from universal_registry.registry.service import RegistryService


class Store(LaneCommands, LaneQueries, Protocol):
    """The part of the propagation store that obeying needs."""


class Obedience:
    """Does commands once each. `done`: numbers of those that are done and not stored yet."""

    def __init__(self, service: RegistryService, store: Store, runs: Mapping[str, LaneRun], outbox: Outbox) -> None:
        self.outbox = outbox
        self._service = service
        self._world: World = service.world
        self._store = store
        self._runs = runs
        self._done: set[int] = set()

    async def obey(self, news: Callable[..., None]) -> bool:
        """Do what is there for the lanes at work. Whether there was anything."""
        commands = await self._store.commands()
        self._done &= {command.number for command in commands}
        told = {each.delivery_id for each in commands if each.number in self._done}
        todo = [each for each in commands if each.number not in self._done and each.lane_id in self._runs]
        for command in todo:
            if command.delivery_id and command.delivery_id in told:
                continue  # what became of it by the word before is not stored yet
            told.add(command.delivery_id)
            await self._do(command, self._runs[command.lane_id], news)
        return bool(todo)

    async def _do(self, command: Command, run: LaneRun, news: Callable[..., None]) -> None:
        subject = f"target {run.target.address}"
        if command.action in ON_DELIVERIES:
            subject = f"delivery {command.delivery_id} to {run.target.address}"
            row = await self._dead_row(command)
            if row is not None:
                await self._row(command, run, row)
        if command.action in AT_ONCE:
            await self._hasten(run)
        run.lane = obeyed(run.lane, command, self._world.now())
        run.rows_changed = run.rows > 0
        run.stir()
        self._done.add(command.number)
        self.outbox.lane(run.lane)
        self.outbox.obeyed(command.lane_id, command.number)
        why = {"reason": command.reason} if command.reason else {}
        self.outbox.deed(deed(self._world, command.actor, command.action.value, subject, **why))
        news(command.action.value.replace(".", " "), target=run.target.address, by=command.actor, **why)

    async def _hasten(self, run: LaneRun) -> None:
        """What waits is due now: what is stored, and then what was not stored yet, which is the newer word."""
        now = self._world.now()
        await self._store.hasten(run.lane.lane_id, now)
        run.recall(lambda row: hastened(row, now))
        for row in self.outbox.waiting():
            now_so = hastened(row, now)
            if row.lane_id == run.lane.lane_id and now_so is not row and not run.has_in_hand(row.delivery_id):
                run.restate(now_so)

    async def _dead_row(self, command: Command) -> Delivery | None:
        row = await self._store.delivery(command.delivery_id)
        if row is None or row.lane_id != command.lane_id or row.state is not DeliveryState.DEAD:
            return None
        return row

    async def _row(self, command: Command, run: LaneRun, row: Delivery) -> None:
        told = row_obeyed(row, command, self._world.now(), newer=await self._newer(row))
        if told is None:
            self.outbox.delivered(row)
        elif told.state is DeliveryState.PENDING:
            run.revive(told)
            self.outbox.rows([told])
        else:
            self.outbox.rows([told])

    async def _newer(self, row: Delivery) -> int:
        """The revision that has overtaken the row; 0: none has."""
        record = await self._service.records.get(row.key)
        if record is None:
            return row.revision + 1 if row.op == "put" else 0
        return record.revision if record.revision > row.revision else 0
