"""`ureg diff`: what `ureg apply` would change."""

from __future__ import annotations

import click

from universal_registry.cli.apply import rehearse
from universal_registry.cli.command import Example, command, result_option
from universal_registry.cli.documents import gather
from universal_registry.cli.session import note, session


@command(
    "diff",
    Example("ureg diff -f records.yaml"),
    Example("ureg diff -f ./records && echo 'all of it is so already'"),
    Example("ureg diff -f records.yaml -o json", "before, after, and which fields"),
)
@click.option("-f", "--file", "files", multiple=True, required=True, metavar="FILE", help="A file, a folder, or -.")
@click.option("--merge", is_flag=True, help="As `apply --merge`: keep what the documents do not mention.")
@click.option("--strict", is_flag=True, help="Refuse fields that a kind does not declare.")
@result_option()
def diff(files: tuple[str, ...], merge: bool, strict: bool, output: str) -> int:
    """Show what `ureg apply` of the same files would change. Exits with 0 when that is nothing, else with 1.

    What `apply` would refuse is refused here, with the same code, which is above 1.
    """
    placed = gather(files)
    if not placed:
        note("no documents, nothing to do")
        return 0
    op = "merge" if merge else "put"
    with session() as asked:
        differs = rehearse(asked, placed, op, output, strict=strict)
    return 1 if differs else 0
