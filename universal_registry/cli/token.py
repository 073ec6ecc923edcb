"""`ureg token`: access for those who must not hold the administrator's token."""

from __future__ import annotations

import click

from universal_registry.cli.command import Command, Example, Group, output_option, result_option
from universal_registry.cli.output import Column, Shape, emit, json_text, write
from universal_registry.cli.session import note, session
from universal_registry.client.http import quote

_SCOPES = ("read", "write", "propagate", "admin")
_SHAPE = Shape(
    "tokens but that in config/admin.token",
    (
        Column("NAME", "name", whole=True),
        Column("SCOPES", lambda item: ",".join(item["scopes"])),
        Column("STATE", "state"),
        Column("EXPIRES", "expires_at"),
        Column("CREATED", "created_at"),
        Column("BY", "created_by"),
    ),
    lambda item: str(item["name"]),
)


@click.group(
    "token",
    cls=Group,
    examples=(
        Example("ureg token add prometheus --scope read", "for a scraper of /metrics"),
        Example("ureg token ls"),
        Example("ureg token revoke prometheus"),
    ),
)
def token() -> None:
    """Access tokens with scopes, for scripts and scrapers."""


@token.command(
    "add",
    cls=Command,
    examples=(
        Example("ureg token add prometheus --scope read"),
        Example("ureg token add ci --scope write --expires 90d"),
    ),
)
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice(_SCOPES), help="What it may do; repeatable."
)
@click.option("--expires", metavar="TIME", help="After so long, as 90d or 12h; never if absent.")
@result_option()
def add(name: str, scopes: tuple[str, ...], expires: str | None, output: str) -> None:
    """Make a token and print it, this once: only its hash is kept.

    Each scope may read. `write`: records outside of namespace system. `propagate`: targets, routes and sessions.
    `admin`: everything.
    """
    with session() as asked:
        made = asked.write("/v1/-/tokens", {"name": name, "scopes": list(scopes), "expires": expires})
    if output == "json":
        write(json_text(made))
        return
    write(made["token"])
    until = f"until {made['expires_at']}" if made["expires_at"] else "until it is revoked"
    note(f"token {made['name']} ({', '.join(made['scopes'])}) is valid {until}; it is not shown again")


@token.command("ls", cls=Command, examples=(Example("ureg token ls"), Example("ureg token ls -o json")))
@output_option()
def ls(output: str) -> None:
    """All tokens but that in config/admin.token, without what they are."""
    with session() as asked:
        emit(asked.read("/v1/-/tokens")["items"], output, _SHAPE)


@token.command("revoke", cls=Command, examples=(Example("ureg token revoke prometheus"),))
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke a token: within a second it opens nothing any more, on open connections too."""
    with session() as asked:
        asked.request("DELETE", f"/v1/-/tokens/{quote(name)}")
    write(f"token {name} revoked")
