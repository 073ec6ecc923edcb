"""`ureg export`: records written out, to be applied elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from universal_registry.cli.command import Example, command, namespace_option
from universal_registry.cli.output import write
from universal_registry.cli.session import session


@command(
    "export",
    Example("ureg export > records.ndjson", "everything but `system`"),
    Example("ureg export --select kind=alias -o yaml"),
    Example("ureg export -n system", "targets and routes"),
)
@click.option("--select", "selectors", multiple=True, metavar="SELECTOR", help="As in `kind=alias,name=g*`.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Records of this kind.")
@namespace_option("Only this namespace.")
@click.option("-o", "--output", type=click.Choice(("ndjson", "json", "yaml")), default="ndjson", help="The form.")
def export(selectors: tuple[str, ...], kinds: tuple[str, ...], namespace: str | None, output: str) -> None:
    """Write records out, in a fixed order and without what belongs to this registry alone.

    Secrets stay sealed: only a registry with the same key can open them. NDJSON comes as the registry sends it, so
    that an export of what was applied from an export is the same to the byte.
    """
    query = {"select": list(selectors), "kind": list(kinds), "namespace": namespace}
    with session() as asked:
        lines = asked.lines("/v1/-/export", {name: value for name, value in query.items() if value})
        if output == "ndjson":
            for line in lines:
                write(line.decode())
        elif output == "json":
            _as_array(lines)
        else:
            _as_yaml(lines)


def _as_array(lines: Iterable[bytes]) -> None:
    between = "[\n"
    for line in lines:
        sys.stdout.write(between + line.decode())
        between = ",\n"
    write("\n]" if between != "[\n" else "[]")


def _as_yaml(lines: Iterable[bytes]) -> None:
    import json

    from universal_registry.cli.yamltext import yaml_text

    for number, line in enumerate(lines):
        sys.stdout.write(("---\n" if number else "") + yaml_text(json.loads(line)))
