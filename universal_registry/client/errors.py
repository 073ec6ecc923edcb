"""From a problem on the wire back to the error that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from universal_registry.kernel.errors import RegistryError, Unreachable

PROBLEM_TYPE = "application/problem+json"
_FOREIGN_HINT = "is another program listening there?"


def error_from(status: int, content_type: str, body: bytes) -> RegistryError:
    """The error that an answer of status >= 400 tells of: of the class with its code, with message, hint and data.

    `data` also holds `trace_id`, by which the daemon's log can be searched. An answer that is no problem document comes
    from some other program: Unreachable.
    """
    import json

    problem: Any = None
    if content_type.partition(";")[0].strip().lower() == PROBLEM_TYPE:
        try:
            problem = json.loads(body)
        except ValueError:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            problem = None
    if not isinstance(problem, dict) or not isinstance(problem.get("detail"), str):
        return Unreachable(f"the answer (status {status}) is not one of a registry's", hint=_FOREIGN_HINT)
    return _rebuild(problem)


def _rebuild(problem: dict[str, Any]) -> RegistryError:
    found = class_of(str(problem.get("code")))
    hint = problem.get("hint")
    error = found(problem["detail"], hint=hint if isinstance(hint, str) else None)
    data = problem.get("data")
    error.data = dict(data) if isinstance(data, dict) else {}
    if isinstance(problem.get("trace_id"), str):
        error.data.setdefault("trace_id", problem["trace_id"])
    return error


def class_of(code: str) -> type[RegistryError]:
    """The class of errors with that code; of one that is not known here, RegistryError."""
    return {each.code: each for each in _tree(RegistryError)}.get(code, RegistryError)


def _tree(base: type[RegistryError]) -> Iterator[type[RegistryError]]:
    yield base
    for each in base.__subclasses__():
        yield from _tree(each)
