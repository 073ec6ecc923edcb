"""The audit as people see it: who did or was refused what, whether any of it was altered, and anchors to prove that by.

What changes the registry stands in the change log, everything else in a trail of the store that it concerns
(log/audit.py). An anchor is a text that names the ends of all three chains. Kept where nobody who can write the stores
can reach it, it proves later that nothing before it was altered, put in another order or cut off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import orjson

from universal_registry.kernel.errors import Corrupt, NotFound
from universal_registry.log.audit import Asked, AuditHead, AuditRow, Deed, LineSeen, verify_rows
from universal_registry.log.horizon import Horizon
from universal_registry.registry.check import Checked
from universal_registry.registry.compaction import DEED, checkpoint
from universal_registry.registry.ports import LogReader

REGISTRY, PROPAGATION = "registry", "propagation"
_ROWS = 1000
_END = r"(0|[1-9][0-9]{0,18})\.([0-9a-f]{64})"
_ANCHOR = re.compile(rf"ureg-anchor:([0-9a-f]{{12}}):{_END}:{_END}:{_END}")


class Trail(Protocol):
    """The audit trail of one store."""

    async def record(self, deeds: Sequence[Deed]) -> None:
        """Write deeds down that belong to no other transaction, durably."""
        ...

    async def head(self) -> AuditHead: ...

    async def after(self, number: int, limit: int) -> Sequence[AuditRow]:
        """Rows after a number, in order."""
        ...

    async def one(self, number: int) -> AuditRow | None: ...

    async def newest(self, asked: Asked) -> Sequence[AuditRow]: ...

    async def newest_lines(self, asked: Asked) -> Sequence[LineSeen]:
        """Lines of the change log; of the registry's trail only."""
        ...


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """The ends of the change log and of the two trails, at one time."""

    incarnation: str
    log: AuditHead
    registry: AuditHead
    propagation: AuditHead

    def __str__(self) -> str:
        ends = (f"{end.number}.{end.hash.hex()}" for end in (self.log, self.registry, self.propagation))
        return f"ureg-anchor:{self.incarnation}:{':'.join(ends)}"


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was found whole: the registry, the rows of each trail, and how many anchors it agrees with."""

    checked: Checked
    registry: int
    propagation: int
    anchors: int


def anchors_in(text: str) -> list[Anchor]:
    """All anchors of a text, whatever stands around them: a log, a mail, a line of `ureg audit anchor`."""
    return [_anchor(match.groups()) for match in _ANCHOR.finditer(text)]


def _anchor(parts: Sequence[str]) -> Anchor:
    log, registry, propagation = (
        AuditHead(int(number), bytes.fromhex(chained)) for number, chained in zip(parts[1::2], parts[2::2], strict=True)
    )
    return Anchor(incarnation=parts[0], log=log, registry=registry, propagation=propagation)


class Audit:
    """Reads of the change log and both trails, as one."""

    def __init__(self, log: LogReader, trails: Mapping[str, Trail]) -> None:
        self._log = log
        self.trails = trails

    async def newest(self, asked: Asked) -> list[dict[str, Any]]:
        """What fits, newest first: `at`, `actor`, `action`, `subject`, `trail` (log, registry or propagation), `place`
        in it, `details`. Lines of the log have the actions record.put, record.delete and record.event."""
        found = [_line_view(line) for line in await self.trails[REGISTRY].newest_lines(asked)]
        for name, trail in self.trails.items():
            found += [_row_view(name, row) for row in await trail.newest(asked)]
        found.sort(key=lambda item: str(item["at"]), reverse=True)
        return found[: asked.limit]

    async def anchor(self) -> Anchor:
        """The ends as they are now."""
        head = await self._log.head()
        return Anchor(
            incarnation=head.incarnation,
            log=AuditHead(head.revision, head.hash),
            registry=await self.trails[REGISTRY].head(),
            propagation=await self.trails[PROPAGATION].head(),
        )

    async def verify_trail(self, name: str, progress: Callable[[str], None] = lambda _: None) -> int:
        """The number of rows, all of which fit. Raises Corrupt naming the first that does not."""
        head = AuditHead()
        while rows := await self.trails[name].after(head.number, _ROWS):
            head = verify_rows(head, rows, f"the audit trail of the {name} store")
            progress(f"{head.number} rows of the {name} store's trail")
        if name == REGISTRY:
            await self._verify_horizon()
        return head.number

    async def _verify_horizon(self) -> None:
        """Raises Corrupt unless the trail says where the log begins: else anybody could cut it there."""
        horizon = await self._log.horizon()
        told = await self.trails[REGISTRY].newest(Asked(action=DEED, limit=2))  # it may just have moved
        wanted = checkpoint(horizon)
        if horizon != Horizon() and wanted not in [orjson.loads(row.details) for row in told]:
            where = f"the change log is kept from revision {horizon.lines} on"
            raise Corrupt(f"{where}, and its audit trail does not say so", **wanted)

    async def agree(self, anchors: Sequence[Anchor]) -> int:
        """How many there are. Raises Corrupt unless each lies on the chains as they are, NotFound for one of another
        registry."""
        incarnation = (await self._log.head()).incarnation
        for anchor in anchors:
            if anchor.incarnation != incarnation:
                raise NotFound(
                    f"the anchor {str(anchor)[:40]}... is of another registry than {incarnation}",
                    hint="or of this one before it was restored from a backup",
                )
            horizon = await self._log.horizon()
            if anchor.log.number == horizon.lines:
                _compare("the change log", "revision", anchor.log, horizon.hash)
            elif anchor.log.number > horizon.lines:  # of one before that the trail tells, which is anchored too
                line = await self._log.line(anchor.log.number, 0)
                _compare("the change log", "revision", anchor.log, None if line is None else line.hash)
            for name, end in ((REGISTRY, anchor.registry), (PROPAGATION, anchor.propagation)):
                if end.number:
                    row = await self.trails[name].one(end.number)
                    what = f"the audit trail of the {name} store"
                    _compare(what, "row", end, None if row is None else row.hash)
        return len(anchors)


def _compare(what: str, unit: str, anchored: AuditHead, found: bytes | None) -> None:
    if found is None:
        raise Corrupt(f"{what} was cut off: it was anchored at {unit} {anchored.number}, which is gone", what=what)
    if found != anchored.hash:
        raise Corrupt(
            f"{what} was altered: {unit} {anchored.number}, or one before it, is not what was anchored", what=what
        )


def _row_view(trail: str, row: AuditRow) -> dict[str, Any]:
    return {
        "at": row.at,
        "actor": row.actor,
        "action": row.action,
        "subject": row.subject,
        "trail": trail,
        "place": str(row.number),
        "details": orjson.loads(row.details),
    }


def _line_view(line: LineSeen) -> dict[str, Any]:
    return {
        "at": line.at,
        "actor": line.actor,
        "action": f"record.{line.op}",
        "subject": f"{line.kind} {line.namespace}/{line.name}",
        "trail": "log",
        "place": f"{line.revision}.{line.seq}",
        "details": {"message": line.message} if line.message else {},
    }
