"""The seven ways to propagate, as three primitives: audience (who), after (a hop waits for the last), two-way."""

from __future__ import annotations

from typing import Any, NamedTuple

from universal_registry.kernel.errors import Invalid, UsageError
from universal_registry.registry.words import near, shown


class Shape(NamedTuple):
    """`most`: targets that may be named, None for any number, 0 where all targets are meant. `mode`, `pattern`: the
    words in a route's record. `after`: each target waits for the one before. `two_way`: the other side writes back."""

    mode: str
    pattern: str | None = None
    least: int = 1
    most: int | None = None
    after: bool = False
    two_way: bool = False

    @property
    def everyone(self) -> bool:
        """Whether all targets are meant, so that none are named."""
        return self.most == 0


MOST_MEMBERS = 16
SHAPES: dict[str, Shape] = {
    "unidirectional": Shape("unidirectional", most=1),
    "bidirectional": Shape("bidirectional", most=1, two_way=True),
    "multicast": Shape("multicast"),
    "broadcast": Shape("broadcast", least=0, most=0),
    "fanout": Shape("multicast", "fanout"),
    "chain": Shape("multicast", "chain", after=True),
    "mesh": Shape("bidirectional", "mesh", least=2, most=MOST_MEMBERS, two_way=True),
}
MODES = tuple(SHAPES)
ALIASES = {"chaining": "chain"}
STOP, SKIP = "stop", "skip"
ON_FAILURE = (STOP, SKIP)
"""What a chain does once a hop has been given up: wait until somebody redrives it, or go on without it."""


def mode_named(word: str) -> str:
    """The mode that a word means. Raises UsageError for a word that is none."""
    word = ALIASES.get(word, word)
    if word in SHAPES:
        return word
    guesses = near(word, (*MODES, *ALIASES))
    raise UsageError(
        f"unknown mode {shown(word)}", hint=f"did you mean {guesses[0]!r}?" if guesses else "one of " + ", ".join(MODES)
    )


def check_targets(mode: str, count: int) -> None:
    """Raises UsageError for a number of targets that the mode does not take."""
    shape = SHAPES[mode]
    if shape.everyone and count:
        raise UsageError(f"{mode} goes to all targets and takes none", hint="--exclude leaves some out; or: multicast")
    if count < shape.least:
        wanted = "a target" if shape.least == 1 else f"at least {shape.least} targets"
        raise UsageError(f"{mode} needs {wanted}", hint='--targets "a,b"' if shape.most != 1 else "--target NAME")
    if shape.most is not None and count > shape.most:
        several = "multicast, fanout or chain take several"
        raise UsageError(
            f"{mode} takes at most {shape.most} target{'s' if shape.most != 1 else ''}, not {count}",
            hint=several if shape.most == 1 else f"{shape.most} members are the most for now",
        )


def mode_of(body: dict[str, Any]) -> str:
    """The mode that a route's record says by `mode` and `pattern`. Raises Invalid."""
    mode, pattern = body.get("mode", MODES[0]), body.get("pattern")
    for name, shape in SHAPES.items():
        if (shape.mode, shape.pattern) == (mode, pattern):
            return name
    if mode == MODES[0] and pattern == "fanout":  # several targets under one route, as `route add` makes them
        return MODES[0]
    if mode not in {shape.mode for shape in SHAPES.values()}:
        raise Invalid(f"mode {shown(mode)} is none", hint="unidirectional, bidirectional, multicast or broadcast")
    raise Invalid(f"pattern {shown(pattern)} is none of {mode}", hint="multicast: fanout or chain; bidirectional: mesh")
