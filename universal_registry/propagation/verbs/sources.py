"""What a source word of the propagation commands means: records that are there, a selector, or a name to wait for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from universal_registry.kernel.errors import Invalid, UsageError
from universal_registry.kernel.ids import DEFAULT_NAMESPACE, Key
from universal_registry.propagation.verbs.documents import selector_text
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector, parse_selector
from universal_registry.registry.service import RegistryService
from universal_registry.registry.words import shown

PLACEHOLDER_KIND = "component"
"""The kind under which an event of a source without a record stands in the log: the older registry calls everything
that propagates a component, and the line makes no record of that name."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A source as it was resolved. `selector`: its text form. `key`: the one record, or where an event of it stands;
    None for a selector. `record`: None while there is none."""

    text: str
    selector: str
    key: Key | None = None
    record: Record | None = None

    @property
    def announced(self) -> bool:
        """Whether it names one record that does not exist yet."""
        return self.key is not None and self.record is None


async def resolve_source(service: RegistryService, text: str) -> Source:
    """`[kind/]name`, or a selector (it holds a `=`). Raises UsageError listing the candidates of an ambiguous name."""
    if not text.strip():
        raise UsageError("the source is empty", hint="give [kind/]name or a selector such as kind=alias")
    if "=" in text:
        parse_selector(text, service.catalogue)
        return Source(text=text, selector=text)
    found = await service.find(text)
    if len(found) > 1:
        raise _ambiguous(text, found)
    if found:
        key = found[0].key
        selector = selector_text(key.name, kind=key.kind, namespace=key.namespace)
        return Source(text=text, selector=selector, key=key, record=found[0])
    kind, name = _split(service, text)
    key = service.key(kind or PLACEHOLDER_KIND, DEFAULT_NAMESPACE, name)
    return Source(text=text, selector=selector_text(key.name, kind=kind), key=key)


def _split(service: RegistryService, text: str) -> tuple[str | None, str]:
    """Kind and name of a reference to a record that does not exist: the kind counts only if there is such a kind."""
    head, slash, rest = text.partition("/")
    if slash and rest:
        try:
            return service.catalogue.kind(head).name, rest
        except Invalid:
            return None, text
    return None, text


def _ambiguous(text: str, found: Sequence[Record]) -> UsageError:
    candidates = [str(record.key) for record in found]
    first = found[0].key
    by_kind = len({record.kind for record in found}) == len(found)
    hint = (
        f"{first.kind}/{first.name}"
        if by_kind
        else selector_text(first.name, kind=first.kind, namespace=first.namespace)
    )
    return UsageError(
        f"{shown(text)} may mean {len(found)} records: {', '.join(candidates[:10])}",
        hint=f"say which, such as {hint}",
        candidates=candidates,
    )


async def selected(service: RegistryService, selector: Selector, limit: int) -> list[Record]:
    """All records that the selector matches. Raises UsageError when there are more than `limit`."""
    found: list[Record] = []
    page: str | None = None
    while True:
        answer = await service.list(selector, limit=1000, page=page)
        found.extend(answer.records)
        if len(found) > limit:
            raise UsageError(f"the source matches more than {limit} records", hint="narrow the selector")
        if answer.next is None:
            return found
        page = answer.next
