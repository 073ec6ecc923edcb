"""Query parameters, and those that several routes take."""

from __future__ import annotations

from typing import NamedTuple


class Param(NamedTuple):
    """A query parameter. `many`: it may be repeated."""

    name: str
    doc: str
    type: str = "string"
    many: bool = False
    required: bool = False


MESSAGE = Param("message", "why, for the log; at most 1,000 characters")
MODE = Param("mode", "`put` (a document is the whole record; if absent) or `merge`")
BY_CLASS = Param("class", "a classification, whose kind it is when the path says `-` for the kind")
THERE = Param("namespace", "of the record")
STRICT = Param("strict", "refuse fields that the catalogue does not declare", "boolean")
DASH = Param("name", "the name, when the last segment of the path is `-`")
REV = Param("rev", "as it was at this revision, also when it has been deleted since", "integer")
FRESH = Param("min_revision", "wait until the registry has this revision; 504 after 10 s", "integer")
LIMIT = Param("limit", "at most this many, 1 to 1,000; 100 if absent", "integer")
SELECT = Param("select", "a selector, such as `kind=alias,labels.tier=backend`", many=True)
FILTERS = (
    Param("name", "a glob with `*` and `?`", many=True),
    Param("class", "a classification, its children included", many=True),
    Param("label", "`KEY=VALUE`, `KEY` (has it) or `!KEY` (has it not)", many=True),
    Param("field", "`FIELD=VALUE`, a field of the spec", many=True),
    SELECT,
)
ACROSS = (Param("kind", "a kind", many=True), Param("namespace", "a namespace", many=True))
PAGING = (LIMIT, Param("page", "`next` of the page before"), FRESH)
WATCH = (
    Param("from", "`now` (if absent), `beginning`, `list` (what is there, then what follows), or a cursor"),
    *ACROSS,
    *FILTERS,
    Param("consumer", "a named consumer: what it reads, from where it has acknowledged (or `from`)"),
    Param("policy", "for who falls behind: `wait` (if absent), `coalesce` or `drop`"),
    Param("max_lag", "with `drop`: so many revisions behind at most; 100,000 if absent", "integer"),
    Param("heartbeat", "seconds after which silence is broken by a bookmark; 1 to 60, 10 if absent", "integer"),
)
