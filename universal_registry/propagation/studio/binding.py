"""A binding: which record here is which component of a studio, and which way changes go. Itself a record. Pure."""

from __future__ import annotations

import re
from enum import StrEnum
from hashlib import sha256
from typing import Any

import msgspec

from universal_registry.kernel.errors import Invalid, UsageError
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector
from universal_registry.registry.words import near, shown

KIND, CLASSIFICATION = "policy", "StudioBinding"
BINDINGS = Selector(kinds=(KIND,), namespaces=(SYSTEM_NAMESPACE,), classifications=(CLASSIFICATION,))
DEFAULT_STUDIO = "nexus"
LONGEST_COMPONENT = 512
_STUDIO = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")


class Direction(StrEnum):
    """Which way changes go: to one component, both ways, to some components, to every studio that asks."""

    UNIDIRECTIONAL = "unidirectional"
    BIDIRECTIONAL = "bidirectional"
    MULTICAST = "multicast"
    BROADCAST = "broadcast"


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: of the record that it is. `protocol`: by which the studio follows it; empty: it asks when it likes."""

    name: str
    studio: str
    key: Key
    components: tuple[str, ...]
    direction: Direction
    protocol: str = ""

    def is_for(self, studio: str) -> bool:
        """Whether that studio is told of it."""
        return self.direction is Direction.BROADCAST or self.studio == studio

    @property
    def entry(self) -> str:
        """`kind/namespace/name` of the record."""
        return entry_text(self.key)


def entry_text(key: Key) -> str:
    """`kind/namespace/name`."""
    return f"{key.kind}/{key.namespace}/{key.name}"


def check_studio(name: str) -> str:
    """The name of a studio. Raises Invalid."""
    if not _STUDIO.fullmatch(name):
        hint = "1 to 48 lowercase letters, digits and -, a letter or digit first and last"
        raise Invalid(f"the studio name {shown(name)} cannot be used", hint=hint)
    return name


def read_direction(word: str) -> Direction:
    """The direction. Raises UsageError."""
    if word in tuple(Direction):
        return Direction(word)
    guesses = near(word, tuple(Direction))
    hint = f"did you mean {str(guesses[0])!r}?" if guesses else "one of " + ", ".join(Direction)
    raise UsageError(f"direction {shown(word)} is unknown", hint=hint)


def make_binding(studio: str, key: Key, components: list[str], direction: Direction, protocol: str = "") -> Binding:
    """A binding of what people said. One of the same studio, record and components has the same name, whatever the
    direction. Raises Invalid, UsageError."""
    check_studio(studio)
    if key.namespace == SYSTEM_NAMESPACE:
        raise Invalid(f"{entry_text(key)} is of the registry itself", hint="records outside of system can be bound")
    named = tuple(dict.fromkeys(check_component(each) for each in components))
    if len(named) > 1 and direction is not Direction.MULTICAST:
        raise UsageError(f"{len(named)} components are given for {direction}", hint="several take multicast")
    identity = sha256(canonical([studio, *key, *sorted(named)])).hexdigest()[:16]
    return Binding(
        name=f"{studio}-{identity}", studio=studio, key=key, components=named, direction=direction, protocol=protocol
    )


def check_component(name: str) -> str:
    """The id of a component, as the studio has it. Raises Invalid."""
    if not 0 < len(name.encode(errors="replace")) <= LONGEST_COMPONENT or not name.isprintable():
        raise Invalid(f"component {shown(name)} cannot be used", hint=f"1 to {LONGEST_COMPONENT} printable bytes")
    return name


def binding_document(binding: Binding) -> dict[str, Any]:
    """The record that the binding is."""
    spec = {
        "enabled": True,
        "binding": {
            "studio": binding.studio,
            "entry": dict(zip(("kind", "namespace", "name"), binding.key, strict=True)),
            "components": list(binding.components),
            "direction": str(binding.direction),
            **({"protocol": binding.protocol} if binding.protocol else {}),
        },
    }
    key = {"kind": KIND, "namespace": SYSTEM_NAMESPACE, "name": binding.name}
    return {**key, "classification": CLASSIFICATION, "spec": spec}


def parse_binding(record: Record) -> Binding | None:
    """What the record binds; None when it binds nothing, is switched off, or says what cannot be followed."""
    body = record.spec.get("binding")
    if record.kind != KIND or record.namespace != SYSTEM_NAMESPACE or record.classification != CLASSIFICATION:
        return None
    if not isinstance(body, dict) or record.spec.get("enabled") is False:
        return None
    entry, components, direction = body.get("entry"), body.get("components"), body.get("direction")
    if not isinstance(entry, dict) or not isinstance(components, list) or direction not in tuple(Direction):
        return None
    words = [entry.get("kind"), entry.get("namespace"), entry.get("name"), body.get("studio"), *components]
    if not components or not all(isinstance(word, str) and word for word in words):
        return None
    kind, namespace, name, studio, *named = words
    return Binding(
        name=record.name,
        studio=studio,
        key=Key(kind, namespace, name),
        components=tuple(named),
        direction=Direction(direction),
        protocol=str(body.get("protocol") or ""),
    )
