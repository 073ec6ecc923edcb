"""`ureg peer`: the registries that this one is paired with, and how the links with them do."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Command, Example, Group, answer_option, output_option, result_option
from universal_registry.cli.grid import escaped
from universal_registry.cli.output import (
    TABLES,
    Column,
    Shape,
    emit,
    json_text,
    tell,
    told_in_words,
    write,
    write_value,
)
from universal_registry.cli.session import Session, note, session
from universal_registry.client.http import daemon_addresses, quote
from universal_registry.kernel.errors import UsageError

_PATH = "/v1/-/peers"
_ROOT_SHOWN = 8
_ANY = ("0.0.0.0", "[::]", "::", "*")  # noqa: S104 - what a listener is told, not where we listen
_HERE = ("127.0.0.1", "localhost", "[::1]")


def _scope(item: dict[str, Any]) -> str:
    return item["scope"] or "all"


_SHAPE = Shape(
    "peers",
    (
        Column("PEER", "peer", whole=True),
        Column("STATE", "state"),
        Column("SCOPE", _scope),
        Column("NODE", "node", whole=True),
        Column("BEHIND", "behind"),
        Column("LAG", "lag"),
        Column("CONFLICTS", "conflicts"),
        Column("SEEN", "seen_at"),
        Column("WHY", "reason", long=True),
    ),
    lambda item: str(item["peer"]),
)


@click.group(
    "peer",
    cls=Group,
    examples=(
        Example("ureg peer invite", "here: prints one line"),
        Example("ureg peer join LINE", "there: paste it"),
        Example("ureg peer status", "whether both are the same"),
    ),
)
def peer() -> None:
    """Registries that keep the same records as this one, both ways."""


@peer.command(
    "invite",
    cls=Command,
    examples=(
        Example("ureg peer invite"),
        Example("ureg peer invite laptop --scope kind=alias", "only aliases, with the one that is called laptop here"),
        Example("ureg peer invite --address https://registry.example:8443"),
    ),
)
@click.argument("name", required=False)
@click.option("--scope", default="", metavar="SELECTOR", help="What is kept the same: by kind, namespace and name.")
@click.option("--address", metavar="URL", help="Where the other side reaches this registry.")
@click.option("--lasts", default="1h", show_default=True, metavar="TIME", help="How long it may be used.")
@result_option()
def invite(name: str | None, scope: str, address: str | None, lasts: str, output: str) -> None:
    """Print one line that makes one other registry a peer of this one: `ureg peer join LINE`, there.

    The line holds a secret that works once. NAME is what the other is called here.
    """
    with session() as asked:
        body = {"address": address or _own_address(asked), "scope": scope, "name": name or "", "lasts": lasts}
        made = asked.write(f"{_PATH}/invitations", body)
        offline = asked.daemon is None
    if output == "json":
        write(json_text(made, indent=2))
        return
    write(made["line"])
    note(f"run there: ureg peer join LINE; valid once, until {made['expires_at']}")
    note(f"this registry is node {made['node']}, key {made['fingerprint']}; shared: {made['scope'] or 'all records'}")
    if offline:
        note("no daemon runs: nobody can join until you run: ureg up")


def _own_address(asked: Session) -> str:
    """Where the daemon listens, if others can use that as it is. Raises UsageError."""
    known = [each for each in daemon_addresses(asked.places) if not each.startswith("/")]
    listen = known[0] if known else asked.settings.listen
    host = listen.rpartition(":")[0]
    if not listen or listen.endswith(":0") or host in _ANY:
        raise UsageError(f"others cannot connect to {listen or 'a socket'!r}", hint="--address http://HOST:PORT")
    if host in _HERE:
        note(
            f"only this machine can connect to {listen}; for others: REGISTRY_LISTEN, REGISTRY_TLS_CERT, --address URL"
        )
    return f"{'https' if asked.settings.tls_cert else 'http'}://{listen}"


def _mine(asked: Session, line: str) -> str:
    """Where whoever made that line may reach this registry: its own address, unless that leads nowhere from there."""
    listen = next((each for each in daemon_addresses(asked.places) if not each.startswith("/")), "")
    host = listen.rpartition(":")[0]
    if not listen or host in _ANY or (host in _HERE and not any(f"//{each}:" in line for each in _HERE)):
        return ""
    return f"{'https' if asked.settings.tls_cert else 'http'}://{listen}"


@peer.command("join", cls=Command, examples=(Example("ureg peer join LINE"), Example("ureg peer join LINE laptop")))
@click.argument("line")
@click.argument("name", required=False)
@click.option("--address", default="", metavar="URL", help="Where members of a mesh reach this registry, if they can.")
@result_option()
def join(line: str, name: str | None, address: str, output: str) -> None:
    """Use the line that `ureg peer invite` printed on the other machine. NAME is what that one is called here."""
    with session() as asked:
        address = address or _mine(asked, line)
        made = asked.write(_PATH, {"line": line, "name": name or "", "address": address})
        offline = asked.daemon is None
    if output == "json":
        write(json_text(made, indent=2))
        return
    tell(f"joined {made['name']} (node {made['node']}, key {made['fingerprint']}): {made['scope'] or 'all records'}")
    if offline:
        note("no daemon runs: nothing is exchanged until you run: ureg up")


@peer.command("ls", cls=Command, examples=(Example("ureg peer ls"), Example("ureg peer ls -o json")))
@output_option()
def ls(output: str) -> None:
    """All peers, and the state of the link with each."""
    with session() as asked:
        found = _status(asked)
    emit(found["items"], output, _SHAPE)
    if output in TABLES:
        for each in found["invitations"]:
            note(f"{each['name']} may be used until {each['expires_at']}")


@peer.command("status", cls=Command, examples=(Example("ureg peer status"), Example("ureg peer status -o json")))
@answer_option()
def status(output: str) -> None:
    """Whether all peers hold the same, with the proof: one root, on all of them."""
    with session() as asked:
        found = _status(asked)
    if not told_in_words(output):
        write_value(found, output)
        return
    if found["node"] is None:
        note("no peers: ureg peer invite")
        return
    write(verdict(found))
    for each in found["items"]:
        why = f": {each['reason']}" if each["reason"] else ""
        clock = each["clock_offset_ms"]
        clock_told = f", clock {clock / 1000:+.1f} s" if clock is not None and abs(clock) >= 1000 else ""
        write(escaped(f"  {each['peer']}: {each['state']}{why}; behind by {each['behind']}{clock_told}"))
    for each in found["origins"]:
        if each["lag"]:
            write(
                escaped(f"  {each['peer'] or each['node']}: {each['lag']} of its changes are elsewhere, not here yet")
            )
    for name, fault in found["faults"].items():
        note(f"{name}: {fault}")


def verdict(found: dict[str, Any]) -> str:
    """Convergence in one line: the root of what all hold, or those of what each link is about."""
    on = f"{found['in_sync']} of {found['members']}"
    if found["converged"]:
        roots = dict.fromkeys(each["root"] for each in found["items"])
        return f"in sync: root {', '.join(f'{root[:_ROOT_SHOWN]}...' for root in roots)} on {on}"
    return f"not in sync: {on} hold the same as node {found['node']}"


def _status(asked: Session) -> dict[str, Any]:
    found: dict[str, Any] = asked.read(_PATH)
    if asked.daemon is None and found["items"]:
        note("no daemon runs: nothing is exchanged until you run: ureg up")
    return found


@peer.command("rm", cls=Command, examples=(Example("ureg peer rm laptop"),))
@click.argument("name")
def rm(name: str) -> None:
    """Be paired with it no more, or take an invitation back. What was exchanged stays, on both sides."""
    with session() as asked:
        asked.request("DELETE", f"{_PATH}/{quote(name)}")
    tell(f"{name} removed; the other side keeps trying until you remove this registry there")


@peer.command(
    "audience",
    cls=Command,
    examples=(
        Example("ureg peer audience namespace=payroll here north", "they alone may have these records"),
        Example("ureg peer audience namespace=payroll --all", "all may have them again"),
        Example("ureg peer audience", "what is set"),
    ),
)
@click.argument("scope", required=False)
@click.argument("members", nargs=-1, metavar="[NAME...]")
@click.option("--all", "everybody", is_flag=True, help="All may have them again.")
def audience(scope: str | None, members: tuple[str, ...], *, everybody: bool) -> None:
    """Who may have which records, by kind, namespace and name: peers by name or node, and this registry as `here`.

    They go to nobody else, and nobody else passes them on. What others have already stays there. Set the same on all
    nodes: those with other audiences are not talked to.
    """
    if scope is not None and bool(members) == everybody:
        raise UsageError("say who may have it, or --all", hint="ureg peer audience namespace=payroll here north")
    with session() as asked:
        if scope is None:
            found = _status(asked)["audiences"]
        else:
            body = {"scope": scope, "members": list(members)}
            found = asked.request("PUT", f"{_PATH}/audiences", json=body).json()["audiences"]
    for text, nodes in found.items():
        write(escaped(f"{text}: {', '.join(nodes)}"))
    if not found:
        note("every peer may have every record in its scope")


def _word(name: str, help_text: str, done: str) -> click.Command:
    @peer.command(name, cls=Command, examples=(Example(f"ureg peer {name} laptop"),), help=help_text)
    @click.argument("peer_name", metavar="NAME")
    def tell_it(peer_name: str) -> None:
        with session() as asked:
            told = asked.write(f"{_PATH}/{quote(peer_name)}/{name}", {})
        tell(f"{peer_name} {done}{'' if told['changed'] else ' already'}")

    return tell_it


pause = _word("pause", "Exchange nothing with a peer until it is resumed; nothing is lost meanwhile.", "is paused")
resume = _word("resume", "Go on with a peer that was paused, or taken for a copy of another.", "goes on")
