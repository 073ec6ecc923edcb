"""`ureg get`: a record, or those of a kind."""

from __future__ import annotations

import click

from universal_registry.cli.command import Example, command, namespace_option, output_option
from universal_registry.cli.getting import Question, show
from universal_registry.kernel.errors import UsageError


@command(
    "get",
    Example("ureg get alias", "all aliases"),
    Example("ureg get alias gs -o yaml", "one, as `ureg apply` takes it"),
    Example("ureg get package --name 'lib*' -o name", "by a glob"),
    Example("ureg get service --class AppService -l tier=backend"),
    Example("ureg get alias gs --rev 936", "as it was then, see `ureg history`"),
    Example("ureg get path -- -rf", "a name that looks like an option"),
    Example("ureg get alias -w", "what is there, then each change, until Ctrl-C"),
    Example("ureg get -w --consumer audit -o ndjson", "goes on where it was: see `ureg consumer`"),
    Example("ureg get service -l tier=backend -w --from now -o ndjson", "for programs: a frame a line"),
)
@click.argument("kind", required=False, default="")
@click.argument("name", required=False)
@namespace_option("Only there; without it a NAME is looked for in `default` first, a list spans all but `system`.")
@click.option("--name", "globs", multiple=True, metavar="GLOB", help="Names that match; `*` and `?` stand for others.")
@click.option("--class", "classes", multiple=True, metavar="CLASS", help="Of this classification or one below it.")
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY[=VALUE]", help="With this label; !KEY: without.")
@click.option("--field", "fields", multiple=True, metavar="FIELD=VALUE", help="With this value in the spec.")
@click.option(
    "--select", "selectors", multiple=True, metavar="SELECTOR", help="As in `kind=alias,labels.tier=backend`."
)
@click.option("--rev", type=click.IntRange(1), metavar="N", help="The record NAME as it was at revision N.")
@click.option("-w", "--watch", is_flag=True, help="Then go on with each change, until Ctrl-C. Needs the daemon.")
@click.option(
    "--from",
    "start",
    metavar="PLACE",
    help="Where a watch begins: list (what is there; if absent), now, beginning, or a cursor.",
)
@click.option(
    "--consumer",
    metavar="NAME",
    help="Watch what that consumer reads, from its place; what is written out is acknowledged.",
)
@output_option()
def get(
    kind: str,
    name: str | None,
    namespace: str | None,
    globs: tuple[str, ...],
    classes: tuple[str, ...],
    labels: tuple[str, ...],
    fields: tuple[str, ...],
    selectors: tuple[str, ...],
    rev: int | None,
    watch: bool,
    start: str | None,
    consumer: str | None,
    output: str,
) -> None:
    """Show a record, or list those of a kind.

    KIND is singular or plural. JSON of a record that was asked for by NAME is one object, of a list an array.
    """
    filters = {"name": globs, "class": classes, "label": labels, "field": fields, "select": selectors}
    if not kind and consumer is None:
        raise UsageError("no KIND is given", hint="`ureg kinds` lists them")
    show(Question(kind, name, namespace, output, filters, rev, watch, start, consumer))
