"""`--query`: a JMESPath expression over what `-o json` would print."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from universal_registry.cli.grid import escaped
from universal_registry.cli.output import json_text, tsv_cell, write
from universal_registry.kernel.errors import UsageError

_HINT = "as in '[].name', or \"[?spec.port > `1024`].name\"; https://jmespath.org tells the language"


def check(expression: str) -> None:
    """Raises UsageError for what is no expression: before anything is asked."""
    import jmespath

    try:
        jmespath.compile(expression)
    except jmespath.exceptions.JMESPathError as error:
        raise _refusal(expression, error) from None


def answer(value: Any, expression: str, output: str) -> None:
    """Write what the expression makes of the value.

    As `table` or `text`: a text as it is, a list an item a line, nothing for null, all else as JSON. As `ndjson` an
    item a line, as `tsv` an item a row. Raises UsageError.
    """
    import jmespath

    try:
        found = jmespath.search(expression, value)
    except jmespath.exceptions.JMESPathError as error:
        raise _refusal(expression, error) from None
    if output == "name":
        raise UsageError("-o name and --query are both given", hint="--query '[].name'")
    if output == "json":
        write(json_text(found, indent=2))
    elif output == "yaml":
        from universal_registry.cli.yamltext import yaml_text

        sys.stdout.write(yaml_text(found))
    else:
        for line in _lines(found, output):
            write(line)


def _lines(found: Any, output: str) -> Iterable[str]:
    items = found if isinstance(found, list) else [] if found is None else [found]
    if output == "ndjson":
        return map(json_text, items)
    if output == "tsv":
        return ("\t".join(map(tsv_cell, _cells(item))) for item in items)
    return map(_plain, items)


def _cells(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else [item]


def _plain(item: Any) -> str:
    text = item if isinstance(item, str) else json_text(item)
    return escaped(text) if sys.stdout.isatty() else text


def _refusal(expression: str, error: Exception) -> UsageError:
    why = str(error).partition("\n")[0].rstrip(": ")
    return UsageError(f"--query {expression!r:.80}: {why}", hint=_HINT)
