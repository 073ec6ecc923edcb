"""What a scan changes: found things against the records of earlier scans. Pure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from universal_registry.scan import HOME_LABEL, LABEL, Found

Record = dict[str, Any]
Operation = dict[str, Any]
Key = tuple[str, str]


@dataclass(slots=True)
class Tally:
    """What became of the things of one (reader, kind)."""

    found: int = 0
    created: int = 0
    changed: int = 0
    unchanged: int = 0
    vanished: int = 0
    skipped: int = 0


@dataclass(slots=True)
class Plan:
    """`operations`: what to write, each with its (reader, kind). `vanished`: records not found any more."""

    operations: list[tuple[Operation, tuple[str, str]]] = field(default_factory=list)
    vanished: list[Record] = field(default_factory=list)
    unchanged: Counter[tuple[str, str]] = field(default_factory=Counter)


def make_plan(found: Iterable[Found], known: Mapping[Key, Record], namespace: str) -> Plan:
    """What is to be written so that the records of the namespace say what was found.

    A record keeps what people added around the scan's own part: labels, annotations, description. Its spec, title and
    classification are the scan's.
    """
    plan = Plan()
    for item in found:
        group = (item.labels[LABEL], item.kind)
        document = _difference(item, known.get((item.kind, item.name)))
        if document is None:
            plan.unchanged[group] += 1
            continue
        key = {"op": "merge", "kind": item.kind, "namespace": namespace, "name": item.name}
        plan.operations.append((key | document, group))
    return plan


def _difference(item: Found, old: Record | None) -> dict[str, Any] | None:
    """The merge that makes the record say what was found; None when it does."""
    if old is None:
        document: dict[str, Any] = {"labels": dict(item.labels), "spec": item.spec}
        document |= {"classification": item.classification} if item.classification else {}
        return document | ({"title": item.title} if item.title else {})
    changes: dict[str, Any] = {}
    if (spec := merge_patch(old["spec"], item.spec)) is not None:
        changes["spec"] = spec
    labels = {name: value for name, value in item.labels.items() if old.get("labels", {}).get(name) != value}
    if labels:
        changes["labels"] = labels
    if item.title != old.get("title", ""):
        changes["title"] = item.title
    if item.classification and item.classification != old["classification"]:
        changes["classification"] = item.classification
    return changes or None


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON merge patch from one object to another; None when there is nothing to do.

    A secret that is kept back is always part of it: only the registry can tell whether it is the same one.
    """
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(before, dict) and isinstance(value, dict) and "$secret" not in before:
            inner = merge_patch(before, value)
            if inner is not None:
                patch[name] = inner
        elif name not in old or before != value or isinstance(before, bool) is not isinstance(value, bool):
            patch[name] = value
    return patch or None


def is_secret_only(operation: Operation, old: Record | None) -> bool:
    """Whether all that an operation would write are secrets that the record has already, perhaps the same ones."""
    if old is None or operation.keys() - {"op", "kind", "namespace", "name"} != {"spec"}:
        return False
    kept = {name for name, value in old["spec"].items() if isinstance(value, dict) and "$secret" in value}
    return bool(operation["spec"].keys() <= kept)


def vanished(
    known: Mapping[Key, Record],
    seen: Collection[Key],
    readers: Collection[str],
    folders: Collection[str],
    home: str,
) -> list[Record]:
    """The records of these readers that were not found again. Repositories count only below folders that were looked
    through this time; what was found for another person's home is not ours to miss."""
    gone = []
    for key, record in known.items():
        reader = record.get("labels", {}).get(LABEL)
        if reader not in readers or key in seen:
            continue
        if record["labels"].get(HOME_LABEL, home) != home:
            continue
        if reader == "git" and not any(_is_below(record["name"], folder) for folder in folders):
            continue
        gone.append(record)
    return gone


def _is_below(path: str, folder: str) -> bool:
    folder = os.path.normpath(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")
