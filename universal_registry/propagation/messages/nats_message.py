"""What a NATS target gets: a message's subject and headers, as the CloudEvents binding for NATS has them. Pure.

A kind, a namespace and a name are one token of the subject each: what could end a token, widen it or begin a protocol
line is written as %XX, so that whoever names a record chooses no subject but its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from universal_registry.kernel.errors import Invalid
from universal_registry.registry.words import shown

TRANSPORT = "nats"
SEALED = "sealed"
"""The last token of the subject of sealed messages: names are sealed with the rest."""
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,100}(\.[A-Za-z0-9_-]{1,100}){0,15}")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "").replace('"', "")


def check_prefix(path: str) -> str:
    """The subject prefix in the path of a URL. Raises Invalid for what is none: wildcards, empty tokens, `$`."""
    prefix = path.removeprefix("/")
    if not _PREFIX.fullmatch(prefix):
        hint = "nats://host:4222/SUBJECT: letters, digits, - and _, in tokens separated by dots"
        raise Invalid(f"the subject {shown(prefix)} is not one that can be published to", hint=hint)
    return prefix


def subject_of(prefix: str, event_subject: str) -> str:
    """PREFIX.kind.namespace.name; of a sealed message (no subject of an event) PREFIX.sealed."""
    if not event_subject:
        return f"{prefix}.{SEALED}"
    return ".".join([prefix, *map(token, event_subject.split("/", 2))])


def token(text: str) -> str:
    """One token of a subject: letters, digits, `-` and `_` as they are, every other byte as %XX."""
    return quote(text, safe="", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E") or "%"


def headers_of(delivery_id: str, attributes: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The id by which JetStream drops repeats, and the attributes of the event (binary mode)."""
    named = (("ce-" + name, quote(value, safe=_PRINTABLE, errors="surrogatepass")) for name, value in attributes)
    return (("Nats-Msg-Id", delivery_id), *named)
