"""`field=value`, of a command line or a form, typed by the catalogue. Pure but for `read`, which may fetch `@FILE`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from universal_registry.kernel.errors import Invalid, RegistryError, UsageError

_ENVELOPE = {
    "class": "classification",
    "classification": "classification",
    "title": "title",
    "description": "description",
    "lifecycle": "lifecycle",
    "health": "health",
    "expires_at": "expires_at",
}
_MAPS = ("labels", "annotations")


class Assignment(NamedTuple):
    """One word: where to, what, and whether that is JSON (`field:=JSON`)."""

    path: str
    text: str
    is_json: bool


class Built(NamedTuple):
    """A document of what was assigned, and the paths of secrets whose value itself was given, not where it is."""

    document: dict[str, Any]
    exposed: list[str]


def parse_assignment(word: str) -> Assignment:
    """`field=value` or `field:=JSON`. Raises UsageError."""
    path, equals, text = word.partition("=")
    if not equals or not path.rstrip(":"):
        raise UsageError(f"{word!r:.80} is not an assignment", hint="write field=value, or field:=JSON")
    if any("\ud800" <= char <= "\udfff" for char in word):  # how a byte that is not UTF-8 arrives
        raise Invalid(f"{path!r:.80} is given a value that is not UTF-8", hint="a record's values are text")
    return Assignment(path[:-1], text, True) if path.endswith(":") else Assignment(path, text, False)


def build(assignments: Iterable[Assignment], kind: Mapping[str, Any], read: Callable[[str], str] | None) -> Built:
    """The document that they make. `kind`: as the API describes it. `read`: fetches what a value stands for; None: each
    stands for itself. Raises UsageError, Invalid with the field."""
    fields = {field["name"]: field for field in _fields_of(kind)}
    document: dict[str, Any] = {}
    exposed: list[str] = []
    seen: set[tuple[str, ...]] = set()
    stdin_of = ""
    for assignment in assignments:
        steps = _steps(assignment.path, fields)
        if steps in seen:
            raise UsageError(f"{assignment.path} is given twice")
        seen.add(steps)
        field = _declared(steps, fields)
        if read and assignment.text == "-":
            if stdin_of:
                raise UsageError(
                    f"{stdin_of} and {assignment.path} both ask for standard input", hint="give one as @FILE"
                )
            stdin_of = assignment.path
        if field.get("secret") and not _fetched(assignment):
            exposed.append(assignment.path)
        _put(document, steps, _value(assignment, field, read or str), assignment.path)
    return Built(document, exposed)


def merge_into(document: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Put what `more` holds into the document: objects into objects, anything else in the place of what was there."""
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(document.get(name), dict):
            merge_into(document[name], value)
        else:
            document[name] = value


def _fields_of(kind: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for classification in kind.get("classifications", ()):
        yield from classification.get("fields", ())
    yield from kind.get("fields", ())


def _fetched(assignment: Assignment) -> bool:
    return assignment.text in ("", "-") or assignment.text.startswith("@")


def _steps(path: str, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Where in the document a path leads. A field of the kind may have dots in its name; else they mean nesting."""
    if path in fields:
        return ("spec", path)
    if path in _ENVELOPE:
        return (_ENVELOPE[path],)
    head, dot, rest = path.partition(".")
    if dot and head in _MAPS:
        if not rest:
            raise UsageError(f"{path!r} names no {head[:-1]}", hint=f"as in {head}.tier=backend")
        return (head, rest)
    if head == "health" and rest:
        return (head, rest)
    inner = rest if dot and head == "spec" else path
    steps = (inner,) if inner in fields else tuple(inner.split("."))
    if not all(steps):
        raise UsageError(f"{path!r:.80} is not the name of a field")
    return ("spec", *steps)


def _declared(steps: Sequence[str], fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the catalogue says of the field; empty for what it does not declare."""
    if steps[0] != "spec":
        return {"type": "string"}
    found: Mapping[str, Any] = fields.get(steps[1], {})
    for step in steps[2:]:
        found = next((each for each in found.get("fields", ()) if each["name"] == step), {})
    return found


def _value(assignment: Assignment, field: Mapping[str, Any], read: Callable[[str], str]) -> Any:
    text = read(assignment.text)
    if assignment.is_json:
        return _json(text, assignment.path)
    if field.get("secret"):
        return text.removesuffix("\n")  # files and pipes end with one; no secret does
    match field.get("type", "string"):
        case "integer" | "number" | "boolean":
            return _plain(text.strip(), str(field["type"]), assignment.path)
        case "object":
            return _json(text, assignment.path)
        case "array":
            return _array(text, field, assignment.path)
        case "any":
            return _any(text)
        case _:
            return text


def _plain(text: str, wanted: str, path: str) -> Any:
    if wanted == "boolean" and text in ("true", "false"):
        return text == "true"
    try:
        if wanted != "boolean" and text.isascii() and "_" not in text:
            return int(text) if wanted == "integer" else _number(text)
    except ValueError:
        pass
    article = "an" if wanted == "integer" else "a"
    raise Invalid(
        f"{path} is {text!r:.60}, not {article} {wanted}", hint="true or false" if wanted == "boolean" else None
    )


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


def _array(text: str, field: Mapping[str, Any], path: str) -> Any:
    """A JSON array, or items between commas."""
    if text.lstrip().startswith("["):
        return _json(text, path)
    if not text:
        return []
    wanted = field.get("items", {}).get("type", "string")
    parts = [part.strip() for part in text.split(",")]
    return parts if wanted in ("string", "any") else [_plain(part, wanted, path) for part in parts]


def _any(text: str) -> Any:
    try:
        return _json(text, "")
    except RegistryError:
        return text


def _json(text: str, path: str) -> Any:
    from universal_registry.kernel.loader import load_json

    try:
        return load_json(text)
    except RegistryError as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from None


def _put(document: dict[str, Any], steps: Sequence[str], value: Any, path: str) -> None:
    place = document
    for step in steps[:-1]:
        place = place.setdefault(step, {})
        if not isinstance(place, dict):
            raise UsageError(f"{path}: {step} was given a value of its own")
    if steps[-1] in place:
        raise UsageError(f"{path} and a part of it are both given")
    place[steps[-1]] = value
