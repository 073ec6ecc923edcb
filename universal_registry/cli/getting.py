"""What `ureg get` does, once its words are understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from universal_registry.cli.output import QUERY, TABLES, emit, told_in_words
from universal_registry.cli.records import fetch, kind_of, record_shape, split_reference
from universal_registry.cli.session import reach, session
from universal_registry.kernel.errors import UsageError

FORMS = (*TABLES, "json", "ndjson", "yaml", "name", "tsv")


class Question(NamedTuple):
    """What is asked for. `filters`: query parameters of a list; those without values are left out."""

    kind: str
    name: str | None = None
    namespace: str | None = None
    output: str = FORMS[0]
    filters: Mapping[str, Sequence[str]] = {}
    rev: int | None = None
    watch: bool = False
    start: str | None = None
    consumer: str | None = None


def show(asked: Question) -> None:
    """Write the record, or the list. Raises NotFound, UsageError."""
    if asked.consumer is not None:
        _consume(asked, asked.consumer)
        return
    kind, name = split_reference(asked.kind, asked.name)
    filters = {key: list(values) for key, values in asked.filters.items() if values}
    if name is not None and filters:
        raise UsageError("a NAME and a filter are both given", hint="--name takes a glob")
    if name is None and asked.rev is not None:
        raise UsageError("--rev is for one record", hint="ureg get KIND NAME --rev N")
    if asked.watch:
        _watch(asked, kind, name, filters)
        return
    if asked.start is not None:
        raise UsageError("--from is for a watch", hint="ureg get KIND -w --from now")
    with session() as registry:
        described = kind_of(registry, kind) if told_in_words(asked.output) else {}
        shape = record_shape(described, namespaces=asked.namespace is None)
        if name is not None:
            emit([fetch(registry, kind, name, asked.namespace, asked.rev)], asked.output, shape, single=True)
            return
        place = {"namespace": asked.namespace} if asked.namespace else {}
        emit(registry.items("/v1/-/records", {**filters, **place, "kind": kind}), asked.output, shape)


def _consume(asked: Question, consumer: str) -> None:
    from universal_registry.cli.consuming import Consuming
    from universal_registry.cli.watching import follow

    if not asked.watch or asked.kind or any(asked.filters.values()) or asked.rev is not None or asked.namespace:
        raise UsageError("--consumer is for a watch of its own", hint="ureg get -w --consumer NAME [--from PLACE]")
    if QUERY.get() is not None:
        raise UsageError("--query and --watch are both given", hint="-o ndjson writes a frame a line")
    query = {"consumer": consumer, **({"from": asked.start} if asked.start else {})}
    reach("a watch")
    place = Consuming(consumer)
    place.check()
    follow(query, asked.output, keep=place.acknowledge)


def _watch(asked: Question, kind: str, name: str | None, filters: Mapping[str, Sequence[str]]) -> None:
    from universal_registry.cli.watching import follow
    from universal_registry.registry.selector import exact_name

    if QUERY.get() is not None:
        raise UsageError("--query and --watch are both given", hint="-o ndjson writes a frame a line")
    if asked.rev is not None:
        raise UsageError("--rev and --watch are both given", hint="a watch begins at a cursor: --from")
    place = {"namespace": asked.namespace} if asked.namespace else {}
    named = {"name": exact_name(name)} if name is not None else {}
    follow({**filters, **place, **named, "kind": kind, "from": asked.start or "list"}, asked.output)
