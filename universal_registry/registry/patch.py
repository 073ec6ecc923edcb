"""JSON Patch (RFC 6902) over plain JSON data. Pure, and bounded: no patch makes more of a value than it may hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from universal_registry.kernel.errors import Invalid
from universal_registry.registry.words import near, shown

MOST_STEPS = 1000
MOST_DEPTH = 64
_MOST_COPIED = 100_000  # nodes, over all copies of one patch: copying into a copy doubles it each time
Pointer = tuple[str, ...]


class StepOp(StrEnum):
    """What a step does."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"
    MOVE = "move"
    COPY = "copy"
    TEST = "test"


_VALUED = (StepOp.ADD, StepOp.REPLACE, StepOp.TEST)
_SOURCED = (StepOp.MOVE, StepOp.COPY)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a patch. `source`: the pointer of `from`; `number` counts from 0, for messages."""

    op: StepOp
    path: Pointer
    number: int
    value: Any = None
    source: Pointer | None = None

    def refusal(self, what: str, hint: str | None = None) -> Invalid:
        """The error that this step gives."""
        where = pointer_text(self.path)
        return Invalid(
            f"step {self.number} ({self.op} {shown(where)}): {what}", hint=hint, step=self.number, path=where
        )


def parse_patch(value: Any) -> tuple[Step, ...]:
    """The steps of a patch document. Raises Invalid naming the step; unknown members are ignored, as the RFC says."""
    if not isinstance(value, list):
        raise Invalid("a JSON patch is an array", hint='as in [{"op": "replace", "path": "/spec/port", "value": 8443}]')
    if len(value) > MOST_STEPS:
        raise Invalid(f"the patch has {len(value)} steps", hint=f"at most {MOST_STEPS}")
    return tuple(_step(number, each) for number, each in enumerate(value))


def _step(number: int, value: Any) -> Step:
    if not isinstance(value, dict):
        raise Invalid(f"step {number} is not an object", step=number)
    word = value.get("op")
    if word not in tuple(StepOp):
        guesses = near(word, tuple(StepOp)) if isinstance(word, str) else []
        hint = f"did you mean {guesses[0]!r}?" if guesses else "one of " + ", ".join(StepOp)
        raise Invalid(f"step {number}: unknown op {shown(word)}", hint=hint, step=number)
    op = StepOp(word)
    for member in ("path", "value" if op in _VALUED else "path", "from" if op in _SOURCED else "path"):
        if member not in value:
            raise Invalid(f"step {number} ({op}) has no {member!r}", step=number)
    source = parse_pointer(value["from"], number) if op in _SOURCED else None
    return Step(
        op=op, path=parse_pointer(value["path"], number), number=number, value=value.get("value"), source=source
    )


def parse_pointer(text: Any, number: int) -> Pointer:
    """A JSON pointer (RFC 6901) as its tokens. Raises Invalid."""
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise Invalid(f"step {number}: {shown(text)} is not a path", hint="such as /spec/port", step=number)
    tokens = []
    for token in text.split("/")[1:]:
        if "~" in token.replace("~0", "").replace("~1", ""):
            raise Invalid(f"step {number}: a `~` in {shown(text)} is not ~0 or ~1", hint="write ~0 for ~", step=number)
        tokens.append(token.replace("~1", "/").replace("~0", "~"))
    if len(tokens) > MOST_DEPTH:
        raise Invalid(
            f"step {number}: the path is {len(tokens)} levels deep", hint=f"at most {MOST_DEPTH}", step=number
        )
    return tuple(tokens)


def pointer_text(pointer: Pointer) -> str:
    """The pointer as it is written."""
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in pointer)


def apply_patch(target: Any, steps: Sequence[Step], *, as_seen: Callable[[Any], Any] = lambda value: value) -> Any:
    """What the steps make of `target`, which is left alone. All of them or none: the first that fails raises Invalid.

    `as_seen`: what `test` compares with, for values of which not everything may be told.
    """
    return _Patching(target, as_seen).run(steps)


class _Patching:
    """One patch under way. Containers are copied before they are changed; values are shared until then."""

    def __init__(self, target: Any, as_seen: Callable[[Any], Any]) -> None:
        self._root = [target]  # so that the whole document has a container too
        self._as_seen = as_seen
        self._copied = 0

    def run(self, steps: Sequence[Step]) -> Any:
        for step in steps:
            match step.op:
                case StepOp.TEST:
                    if not same(self._as_seen(self._read(step, step.path)), step.value):
                        raise step.refusal("the value there is another one")
                case StepOp.REMOVE:
                    self._remove(step, step.path)
                case StepOp.REPLACE:
                    self._read(step, step.path)
                    self._put(step, step.value, insert=False)
                case StepOp.ADD:
                    self._put(step, step.value, insert=True)
                case StepOp.COPY | StepOp.MOVE:
                    self._transfer(step)
        return self._root[0]

    def _transfer(self, step: Step) -> None:
        assert step.source is not None
        value = self._read(step, step.source)
        if step.op is StepOp.MOVE:
            if step.source == step.path:
                return
            if step.path[: len(step.source)] == step.source:
                raise step.refusal("a value cannot be moved into itself")
            self._remove(step, step.source)
        else:
            self._copied += measure(value)[0]
            if self._copied > _MOST_COPIED:
                raise step.refusal("the copies of this patch are too large", f"at most {_MOST_COPIED} values")
        self._put(step, value, insert=True)

    def _read(self, step: Step, path: Pointer) -> Any:
        value = self._root[0]
        for depth, token in enumerate(path):
            value = _child(step, value, token, path[: depth + 1])
        return value

    def _own(self, step: Step, path: Pointer) -> Any:
        """The container that holds the path's last token, it and all above it copied, so that it may be changed."""
        holder: Any = self._root
        slot: Any = 0
        for depth, token in enumerate(path[:-1]):
            _child(step, holder[slot], token, path[: depth + 1])
            holder[slot] = _copied(holder[slot])
            holder, slot = holder[slot], _slot(holder[slot], token)
        found = holder[slot]
        if not isinstance(found, dict | list):
            raise step.refusal(f"{shown(pointer_text(path[:-1]))} is neither an object nor an array")
        holder[slot] = _copied(found)
        return holder[slot]

    def _put(self, step: Step, value: Any, *, insert: bool) -> None:
        path = step.path
        if len(path) + measure(value)[1] > MOST_DEPTH:
            raise step.refusal("the result is nested too deep", f"at most {MOST_DEPTH} levels")
        if not path:
            self._root[0] = value
            return
        holder = self._own(step, path)
        if isinstance(holder, dict):
            holder[path[-1]] = value
        elif insert:
            holder.insert(len(holder) if path[-1] == "-" else _index(step, path[-1], len(holder)), value)
        else:
            holder[_index(step, path[-1], len(holder) - 1)] = value

    def _remove(self, step: Step, path: Pointer) -> None:
        if not path:
            raise step.refusal("the whole document cannot be removed")
        self._read(step, path)
        holder = self._own(step, path)
        del holder[_slot(holder, path[-1])]


def _copied(value: Any) -> Any:
    return value.copy()


def _slot(holder: Any, token: str) -> Any:
    return int(token) if isinstance(holder, list) else token


def _child(step: Step, holder: Any, token: str, path: Pointer) -> Any:
    if isinstance(holder, dict):
        if token in holder:
            return holder[token]
        guesses = near(token, tuple(holder))
        raise step.refusal(
            f"there is nothing at {shown(pointer_text(path))}", f"did you mean {guesses[0]!r}?" if guesses else None
        )
    if isinstance(holder, list):
        return holder[_index(step, token, len(holder) - 1)]
    raise step.refusal(f"there is nothing at {shown(pointer_text(path))}")


def _index(step: Step, token: str, last: int) -> int:
    """An array index from 0 to `last`, without sign or leading zeros."""
    if token.isascii() and token.isdigit() and len(token) < 8 and str(int(token)) == token and int(token) <= last:
        return int(token)
    raise step.refusal(f"{shown(token)} is not an index of that array", f"0 to {last}" if last >= 0 else "it is empty")


def measure(value: Any) -> tuple[int, int]:
    """How many values a value consists of, and how deep it is nested. Counting ends when it is too large anyway."""
    nodes, deepest, todo = 0, 0, [(value, 0)]
    while todo and nodes <= _MOST_COPIED:
        each, depth = todo.pop()
        nodes, deepest = nodes + 1, max(deepest, depth)
        inside = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        todo.extend((item, depth + 1) for item in inside)
    return nodes, deepest


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: numbers by value, but true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
