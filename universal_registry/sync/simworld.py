"""What the simulator holds in its hands: chance, clocks, and machines with the product's stores on them (a port)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from universal_registry.kernel.ids import Key
from universal_registry.sync.audience import Reach
from universal_registry.sync.identity import Identity, Renewal
from universal_registry.sync.ports import SyncStore
from universal_registry.sync.version import Known, State

T = TypeVar("T")
START = datetime(2030, 1, 1, tzinfo=UTC)
KEYS = tuple(Key("service", "default", name) for name in ("a", "b", "c"))
"""The records that the simulator writes."""
LIMITED = KEYS[1]
LIMITED_SCOPE = f"kind={LIMITED.kind},namespace={LIMITED.namespace},name={LIMITED.name}"
"""The record that has an audience in some runs, and its scope."""
SETS = "depends_on"
"""The field whose items merge one by one (see the catalogue)."""
Spec = dict[str, Any]
"""The members of a document that the simulator writes: `title`, and those of `spec`."""


class Dice:
    """Numbers that only depend on the seed (SplitMix64)."""

    def __init__(self, seed: int) -> None:
        self._state = seed & (1 << 64) - 1

    def number(self) -> int:
        """64 bits."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & (1 << 64) - 1
        mixed = self._state
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
        return mixed ^ mixed >> 31

    def below(self, count: int) -> int:
        """0 <= n < count."""
        return self.number() % count

    def pick(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[self.below(len(choices))]

    def chance(self, percent: int) -> bool:
        """True so many times in a hundred."""
        return self.below(100) < percent


class SimWorld:
    """One machine's world: the time that all share, and how wrong its own clock is."""

    def __init__(self, dice: Dice, time: list[float]) -> None:
        self._dice = dice
        self._time = time
        self.wrong_by = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self._time[0] + self.wrong_by)

    def monotonic(self) -> float:
        return self._time[0]

    def chance(self) -> float:
        return self._dice.below(1 << 20) / (1 << 20)

    def new_id(self) -> str:
        return f"{self._dice.number():016x}{self._dice.number():016x}"

    def secret_bytes(self, count: int) -> bytes:
        return bytes(self._dice.below(256) for _ in range(count))


class Disk(SyncStore, Protocol):
    """A machine's registry: the product's own, in a store that can be copied, put back and killed."""

    took: Callable[[Sequence[Known], bool], None]
    """Told of each merge once it is committed: the records, and whether the sender's vector was joined."""

    async def start(self) -> Renewal | None:
        """As a daemon does, first thing: why it became somebody else."""
        ...

    async def kill(self) -> None:
        """Nothing of the process is left; what was committed is. It is to be started again."""
        ...

    async def copy(self) -> Any:
        """All of the store as it is now, and nothing of what stands outside: something for `put_back` and `clone`."""
        ...

    async def put_back(self, backup: Any) -> None:
        """Kill, then make the store that of the copy. It is to be started again."""
        ...

    async def edit(self, key: Key, change: Callable[[Spec], Spec | None]) -> bool:
        """Somebody writes: `change` makes the new members of those shown (none: there is no record), or None to
        delete. False: nothing changed."""
        ...

    async def held(self) -> tuple[Identity, dict[Key, State]]:
        """Who this is, and all that is kept of records."""
        ...

    async def shown(self, key: Key) -> Spec | None:
        """What a reader of the registry sees. None: no record."""
        ...

    async def limit(self, members: Sequence[str]) -> None:
        """Only these nodes may have the limited record from now on, as far as this one is told; none: all may."""
        ...

    def reach(self, own: Identity, peer: str) -> Reach:
        """What a link with that node carries."""
        ...

    async def purge(self) -> None:
        """As the daemon does now and then."""
        ...

    async def check(self) -> None:
        """The registry's own check of its log and records. Raises Corrupt."""
        ...

    async def forget_peer(self, node: str) -> None:
        """Nobody waits for that peer any more."""
        ...

    async def close(self) -> None:
        """The machine is gone, with its store."""
        ...


class Machines(Protocol):
    """Where machines come from. `what`: the stores, in a word for people."""

    what: str

    async def new(self, world: SimWorld) -> Disk:
        """A registry that has joined the group, empty, and was started."""
        ...

    async def clone(self, backup: Any, world: SimWorld) -> Disk:
        """Another machine with a copy of a store; it was not started yet."""
        ...
