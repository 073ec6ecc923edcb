"""The names of things: new types for ids, and the rules for record names and namespaces."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple, NewType

from universal_registry.kernel.errors import Invalid

Revision = NewType("Revision", int)
Uid = NewType("Uid", str)
DeliveryId = NewType("DeliveryId", str)
SessionId = NewType("SessionId", str)

NAME_BYTES = 253
DEFAULT_NAMESPACE = "default"
SYSTEM_NAMESPACE = "system"
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Key(NamedTuple):
    """What identifies a record to people: kind (singular), namespace, name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


def check_name(name: object) -> str:
    """The name as it will be stored: NFC, 1-253 bytes, no control characters, no outer space. Raises Invalid."""
    if not isinstance(name, str):
        raise Invalid(f"name must be a string, not {type(name).__name__}")
    if 0 < len(name) <= NAME_BYTES and name.isascii() and name.isprintable() and name[0] != " " != name[-1]:
        return name  # as nearly all are: what follows would find nothing
    text = unicodedata.normalize("NFC", name)
    if not text:
        raise Invalid("name is empty", hint="give 1 to 253 bytes of UTF-8")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Invalid("name holds a lone surrogate", hint="names are UTF-8") from None
    if size > NAME_BYTES:
        raise Invalid(f"name is {size} bytes long", hint=f"at most {NAME_BYTES} bytes of UTF-8")
    for position, char in enumerate(text):
        if unicodedata.category(char) in ("Cc", "Zl", "Zp"):
            raise Invalid(f"name holds the control character U+{ord(char):04X} at position {position}")
    if text != text.strip():
        raise Invalid(f"name {text!r} begins or ends with a space")
    return text


def check_namespace(namespace: object) -> str:
    """A DNS label (lowercase letters, digits, hyphen inside, 1-63). Raises Invalid."""
    if namespace == DEFAULT_NAMESPACE:
        return DEFAULT_NAMESPACE  # as nearly all are
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        shown = repr(namespace)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise Invalid(
            f"namespace {shown} is not a DNS label",
            hint="1 to 63 of a-z, 0-9 and -, not at the ends",
        )
    return namespace


def namespace_from(text: str) -> str:
    """The nearest legal namespace to a host name: lowercased, other characters to '-'. Falls back to 'localhost'."""
    label = re.sub(r"[^a-z0-9-]+", "-", text.lower().split(".")[0]).strip("-")[:63].strip("-")
    return label or "localhost"
