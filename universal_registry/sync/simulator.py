"""Some registries, their links, and everything that goes wrong with them, in one deterministic run for each seed.

The product's own sessions, merges, identities and stores run over a network and clocks that this module holds, on
machines that it kills, copies, restores and wipes. After each step the oracle compares. A failure replays from its
seed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from universal_registry.kernel.errors import RegistryError
from universal_registry.sync.identity import Live
from universal_registry.sync.oracle import Oracle, Violation
from universal_registry.sync.session import Phase, Session
from universal_registry.sync.simchecks import Checks, check_apart, check_in_sync
from universal_registry.sync.simnet import Frame, Node, Wire
from universal_registry.sync.simworld import KEYS, LIMITED_SCOPE, SETS, Dice, Machines, SimWorld, Spec
from universal_registry.sync.version import Known

_FIELDS = ("state", "application", "title", SETS)
_LIMITED_EVERY = 5
"""In one of so many runs a record has an audience, to which not all nodes belong, and which changes."""
_DAY = 86400.0
_MOST_ROUNDS = 60
_MOST_FRAMES = 600


class Report(NamedTuple):
    """What a run came to. `frames`: that were delivered; `damaged`: repeated, late or cut off; `rounds`: until all was
    equal, once nothing went wrong; `refused_clones`: how often a node was found to be there twice; `limited`: how often
    one was told who may have what."""

    seed: int
    writes: int
    frames: int
    rounds: int
    damaged: int
    restored: int
    refused_clones: int
    limited: int


class Simulation:
    """One run."""

    def __init__(self, seed: int, machines: Machines, *, nodes: int = 3, steps: int = 120) -> None:
        self.seed = seed
        self._machines = machines
        self._dice = Dice(seed)
        self._time = [0.0]
        self._steps = steps
        self._oracle = Oracle()
        self._checks = Checks(self._oracle)
        self._deeds = _DEEDS if seed % _LIMITED_EVERY else _DEEDS_OF_LIMITED
        self._count = nodes
        self._nodes: list[Node] = []
        self._clone: Node | None = None
        self._wires: dict[tuple[Node, Node], Wire] = {}
        self._cut: set[tuple[Node, Node]] = set()
        self._changed: set[Node] = set()
        """Not compared yet since something reached them."""
        self._written = self._frames = self._damaged = self._restored = self._refused = self._limited = 0
        self._damage = 5
        """Percent of frames that arrive twice; as many arrive late, and fewer cut off."""

    async def run(self) -> Report:
        """Let things go wrong, then heal and compare. Raises Violation, naming the seed."""
        try:
            for number in range(self._count):
                self._nodes.append(await self._new_node("ABCDE"[number]))
            if self._deeds is _DEEDS_OF_LIMITED:
                await self._limit_all(self._nodes[0].id, self._nodes[1].id)
            for _ in range(self._steps):
                self._time[0] += self._dice.below(2000) / 100
                await self._dice.pick(self._deeds)(self)
                await self._check()
            rounds = await self._heal()
        except (Violation, RegistryError) as error:
            raise Violation(f"seed {self.seed}: {error}") from error
        finally:
            for node in self._all():
                await node.disk.close()
        return Report(
            seed=self.seed,
            writes=len(self._oracle.writes),
            frames=self._frames,
            rounds=rounds,
            damaged=self._damaged,
            restored=self._restored,
            refused_clones=self._refused,
            limited=self._limited,
        )

    async def _new_node(self, name: str) -> Node:
        world = SimWorld(self._dice, self._time)
        disk = await self._machines.new(world)
        if self._checks.members:
            await disk.limit(self._checks.members)
        return Node(name, (await disk.identity()).node, disk, world)

    def _all(self) -> list[Node]:
        return [*self._nodes, self._clone] if self._clone is not None else self._nodes

    def _pairs(self) -> list[tuple[Node, Node]]:
        nodes = self._all()
        return [(one, two) for number, one in enumerate(nodes) for two in nodes[number + 1 :]]

    # --- what happens --------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        node, key = self._dice.pick(self._all()), self._dice.pick(KEYS)
        self._written += 1
        member, what = self._dice.pick(_FIELDS), self._dice.below(10)
        value = f"v{self._written}"

        def change(shown: Spec) -> Spec | None:
            if what == 0:
                return None
            if what == 1:
                return {name: each for name, each in shown.items() if name != member}
            if member == SETS:
                items = shown.get(member, [])
                return {**shown, member: [*items[what > 5 :], value]}
            return {**shown, member: value}

        if await node.disk.edit(key, change):
            _, states = await node.disk.held()
            self._oracle.note(node.seen, key, states[key])
            self._changed.add(node)
        await self._wake(node)

    async def _wake(self, node: Node, but: Wire | None = None) -> None:
        """Something was committed there."""
        for wire in self._wires.values():
            for end in (0, 1):
                if wire is not but and wire.ends[end] is node:
                    wire.send(end, await wire.sessions[end].woken())

    async def _connect(self) -> None:
        pair = self._dice.pick(self._pairs())
        if pair not in self._wires and pair not in self._cut:
            await self._open(pair)

    async def _open(self, pair: tuple[Node, Node]) -> None:
        identities = (await pair[0].disk.identity(), await pair[1].disk.identity())
        wire = self._wires[pair] = Wire(pair, identities)
        for end in (0, 1):
            wire.send(end, await wire.sessions[end].open())

    async def _deliver_some(self) -> None:
        for _ in range(self._dice.below(8)):
            waiting = [(pair, end) for pair, wire in self._wires.items() for end in (0, 1) if wire.queues[end]]
            if waiting:
                await self._deliver(*self._dice.pick(waiting))

    async def _deliver(self, pair: tuple[Node, Node], end: int) -> None:
        """One frame: perhaps twice, not the first, or not all of it."""
        wire = self._wires[pair]
        queue = wire.queues[end]
        if len(queue) > 1 and self._harms(self._damage):
            queue.rotate(-1)
        frame = queue.popleft()
        if self._harms(self._damage // 4):
            frame = Frame(frame.data[: self._dice.below(len(frame.data))], {})
        for _ in range(2 if self._harms(self._damage) else 1):
            await self._hand_over(wire, end, frame)
        if wire.is_over and not any(wire.queues):
            del self._wires[pair]

    def _harms(self, percent: int) -> bool:
        harms = self._dice.chance(percent)
        self._damaged += harms
        return harms

    async def _hand_over(self, wire: Wire, end: int, frame: Frame) -> None:
        node, session = wire.ends[end], wire.sessions[end]
        self._frames += 1

        def took(known: Sequence[Known], joins: bool) -> None:
            check_apart(wire, known)
            for key in frame.seen if joins else [each.key for each in known]:
                node.seen[key] = node.seen.get(key, frozenset()) | frame.seen.get(key, frozenset())

        node.disk.took = took
        self._changed.add(node)
        wire.send(end, await session.receive(frame.data, self._others(wire, node)))
        if session.refused is not None and session.refused[0] == "clone":
            self._refused += 1
            self._end_clones(session)
        await self._wake(node, wire)

    def _others(self, wire: Wire, node: Node) -> list[Live]:
        """The other sessions that are open there."""
        return [
            session.live
            for other in self._wires.values()
            for here, session in zip(other.ends, other.sessions, strict=True)
            if other is not wire and here is node and session.live is not None and session.phase is not Phase.ENDED
        ]

    def _end_clones(self, refused: Session) -> None:
        """Whoever finds a node twice ends all sessions with it."""
        twin = refused.live
        for pair, wire in list(self._wires.items()):
            found = [each.live for each in wire.sessions if each is not refused and each.live is not None]
            if twin is not None and twin.node in [live.node for live in found]:
                del self._wires[pair]

    async def _break(self) -> None:
        """The connection is lost, with all that was under way."""
        if self._wires:
            del self._wires[self._dice.pick(list(self._wires))]

    async def _partition(self) -> None:
        pair = self._dice.pick(self._pairs())
        self._wires.pop(pair, None)
        self._cut ^= {pair}

    async def _tick(self) -> None:
        for wire in self._wires.values():
            for end in (0, 1):
                wire.send(end, await wire.sessions[end].tick())

    async def _purge(self) -> None:
        node = self._dice.pick(self._all())
        await node.disk.purge()
        self._changed.add(node)

    async def _want_limit(self) -> None:
        """Somebody decides who may have the limited record; nobody knows of it yet."""
        ids = sorted({node.id for node in self._all()})
        self._checks.members = tuple(each for each in ids if self._dice.chance(60)) if self._dice.chance(75) else ()

    async def _tell_limit(self) -> None:
        """And says so to one node, which ends its links."""
        node = self._dice.pick(self._all())
        if set((await node.disk.identity()).audiences.get(LIMITED_SCOPE, ())) != set(self._checks.members):
            await node.disk.limit(self._checks.members)
            self._limited += 1
            self._drop_wires_of(node)

    async def _limit_all(self, *members: str) -> None:
        self._checks.members = members
        for node in self._nodes:
            await node.disk.limit(members)

    async def _skew(self) -> None:
        self._dice.pick(self._all()).world.wrong_by = (self._dice.below(2001) - 1000) / 1000 * _DAY

    async def _long_time(self) -> None:
        self._time[0] += self._dice.below(40) * _DAY

    async def _kill(self) -> None:
        node = self._dice.pick(self._all())
        self._drop_wires_of(node)
        await node.disk.kill()
        await node.disk.start()
        self._changed.add(node)

    async def _back_up(self) -> None:
        node = self._dice.pick(self._nodes)
        node.backup = (await node.disk.copy(), dict(node.seen))

    async def _restore(self) -> None:
        node = self._dice.pick(self._nodes)
        if node.backup is None:
            return
        before = await node.disk.identity()
        self._drop_wires_of(node)
        await node.disk.put_back(node.backup[0])
        node.seen = dict(node.backup[1])
        self._restored += 1
        await node.disk.start()
        after = await node.disk.identity()
        self._changed.add(node)
        if after.origin == before.origin:
            self._oracle.unsay(after.origin, after.feed, [each.seen for each in self._all()])

    async def _wipe(self) -> None:
        """The disk is lost; the machine joins anew, as a new node."""
        if self._dice.chance(30):
            number = self._dice.below(self._count)
            gone, self._nodes[number] = self._nodes[number], await self._new_node(self._nodes[number].name)
            await self._remove(gone)

    async def _copy_whole(self) -> None:
        """Somebody copies the folder of a registry and starts it beside the first; later he notices, and removes it."""
        if self._clone is not None:
            gone, self._clone = self._clone, None
            await self._remove(gone)
        elif self._dice.chance(60):
            node = self._dice.pick(self._nodes)
            world = SimWorld(self._dice, self._time)
            disk = await self._machines.clone(await node.disk.copy(), world)
            if not await disk.start():
                raise Violation(f"a copy of {node.name} goes on as {node.name}")
            self._clone = Node(node.name.lower(), node.id, disk, world, dict(node.seen))
            self._changed.add(self._clone)

    async def _remove(self, node: Node) -> None:
        self._drop_wires_of(node)
        self._cut = {pair for pair in self._cut if node not in pair}
        self._changed.discard(node)
        identity = await node.disk.identity()
        await node.disk.close()
        left = self._all()
        if identity.node not in {(await other.disk.identity()).node for other in left}:
            for other in left:
                await other.disk.forget_peer(identity.node)

    def _drop_wires_of(self, node: Node) -> None:
        for pair in [pair for pair in self._wires if node in pair]:
            del self._wires[pair]

    # --- what must hold ------------------------------------------------------------------------------------------

    async def _check(self) -> None:
        for node in sorted(self._changed, key=lambda node: node.name):
            identity, states = await node.disk.held()
            self._oracle.check_states(node.name, node.seen, states)
            self._oracle.check_vector(node.name, node.seen, identity.vector)
        self._changed.clear()

    async def _heal(self) -> int:
        """Nothing goes wrong any more: everybody must come to hold the same, and then be silent."""
        if self._clone is not None:
            await self._copy_whole()
        await self._limit_all(*self._checks.members)
        held = [self._checks.held_for(node, self._nodes) for node in self._nodes]
        self._damage = 0
        self._cut.clear()
        self._wires.clear()
        for node in self._nodes:
            node.world.wrong_by = 0.0
        rounds = await self._settle()
        await self._check()
        await self._checks.check_equal(self._nodes, held)
        check_in_sync(list(self._wires.values()))
        quiet = await self._settle()
        if quiet > 2:
            raise Violation(f"a second, idle round took {quiet} rounds")
        before = self._frames
        self._wires.clear()
        await self._settle()
        if self._frames - before > 8 * len(self._pairs()):
            raise Violation(f"opening quiet links anew took {self._frames - before} frames")
        return rounds

    async def _settle(self) -> int:
        """Rounds until nobody has anything to say."""
        for rounds in range(_MOST_ROUNDS):
            for pair in self._pairs():
                if pair not in self._wires or self._wires[pair].is_over:
                    await self._open(pair)
            await self._tick()
            if not any(queue for wire in self._wires.values() for queue in wire.queues):
                return rounds
            most = self._frames + _MOST_FRAMES
            while waiting := [(p, end) for p, wire in self._wires.items() for end in (0, 1) if wire.queues[end]]:
                if self._frames > most:
                    raise Violation(f"no rest after {_MOST_FRAMES} frames")
                await self._deliver(*waiting[0])
        raise Violation(f"no rest after {_MOST_ROUNDS} rounds")


_DEEDS: tuple[Callable[[Simulation], Awaitable[None]], ...] = (
    *(Simulation._write,) * 30,
    *(Simulation._deliver_some,) * 40,
    *(Simulation._connect,) * 12,
    *(Simulation._tick,) * 6,
    *(Simulation._break,) * 4,
    *(Simulation._partition,) * 4,
    *(Simulation._purge,) * 6,
    *(Simulation._skew,) * 2,
    *(Simulation._long_time,) * 3,
    *(Simulation._kill,) * 3,
    *(Simulation._back_up,) * 3,
    *(Simulation._restore,) * 3,
    *(Simulation._wipe,) * 2,
    *(Simulation._copy_whole,) * 2,
)

_DEEDS_OF_LIMITED = (*_DEEDS, *(Simulation._want_limit,) * 2, *(Simulation._tell_limit,) * 8)


async def simulate(seed: int, machines: Machines) -> Report:
    """One run. Raises Violation."""
    return await Simulation(seed, machines).run()
