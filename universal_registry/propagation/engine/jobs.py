"""What becomes attempts: lines that were planned, and the attempts under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from universal_registry.kernel.ids import Key
from universal_registry.log.change import Change
from universal_registry.propagation.lanes.fairness import Standing
from universal_registry.propagation.lanes.lane import Delivery, Mark

if TYPE_CHECKING:
    from universal_registry.propagation.engine.window import LaneRun

Judge = Callable[[Delivery], Delivery]
"""A delivery as it should be now by what people said; the same one where that is as it is."""


class Fresh(msgspec.Struct, frozen=True, eq=False):
    """A planned line without a row. `order` counts up along the lane; `mark` is the lane's place behind it; lines of
    one `key` wait for each other."""

    order: int
    key: Key
    delivery: Delivery
    change: Change
    mark: Mark


class Job(msgspec.Struct, eq=False):
    """An attempt under way. `fresh` is None when the delivery has a row. `since`: on the steady clock."""

    run: LaneRun
    delivery: Delivery
    fresh: Fresh | None
    key: Key
    probe: bool = False
    standing: Standing = Standing.UNKNOWN
    since: float = 0.0
