"""The catalogue for commands: as the registry has it, or this program where there is no registry yet."""

from __future__ import annotations

from typing import Any

from universal_registry.cli.records import kind_of
from universal_registry.cli.session import Session, session
from universal_registry.kernel.errors import Invalid, NotFound


def all_kinds() -> list[dict[str, Any]]:
    """Each kind; `records`: how many there are, None without a registry."""
    with session() as asked:
        if _is_there(asked):
            found: list[dict[str, Any]] = asked.read("/v1/-/kinds")["items"]
            return found
    from universal_registry.api.documents import kind_summary
    from universal_registry.registry.catalogue import load_catalogue

    return [{**kind_summary(kind), "records": None} for kind in load_catalogue().kinds.values()]


def all_classes() -> list[dict[str, Any]]:
    """Each classification."""
    with session() as asked:
        if _is_there(asked):
            found: list[dict[str, Any]] = asked.read("/v1/-/classes")["items"]
            return found
    from universal_registry.api.documents import class_document
    from universal_registry.registry.catalogue import load_catalogue

    return [class_document(each) for kind in load_catalogue().kinds.values() for each in kind.classifications]


def one_kind(word: str) -> dict[str, Any]:
    """All that the catalogue says of a kind. Raises NotFound with "did you mean"."""
    with session() as asked:
        if _is_there(asked):
            return kind_of(asked, word)
    from universal_registry.api.documents import kind_document
    from universal_registry.registry.catalogue import load_catalogue
    from universal_registry.registry.jsonschema import json_schema

    try:
        kind = load_catalogue().kind(word)
    except Invalid as error:
        raise NotFound(error.message, hint=error.hint, **error.data) from None
    return {**kind_document(kind), "schema": json_schema(kind)}


def _is_there(asked: Session) -> bool:
    from universal_registry.storage.home import is_initialised

    return asked.daemon is not None or is_initialised(
        asked.places, asked.settings.key_file, files=asked.settings.database is None
    )
