"""What the target words of the propagation commands mean: known targets, names to wait for, URLs, or everyone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from universal_registry.kernel.errors import Invalid, NotFound, UsageError
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key, check_name
from universal_registry.propagation.routing.audience import Audience, own_names
from universal_registry.propagation.routing.counterparts import is_within, not_paired
from universal_registry.propagation.routing.modes import SHAPES
from universal_registry.propagation.routing.route import full_address
from universal_registry.propagation.routing.target import KIND as TARGET_KIND
from universal_registry.propagation.verbs import documents
from universal_registry.propagation.verbs.sources import Source
from universal_registry.propagation.views.inventory import Inventory
from universal_registry.registry.selector import parse_selector
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.registry.words import shell_word, shown
from universal_registry.security.addresses import check_url
from universal_registry.security.signing import new_secret

PEER = "peer"


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A target as it was resolved: its address, and the merge that declares it where it is not there yet."""

    address: str
    declaration: dict[str, Any] | None = None
    secret: str | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Destinations(msgspec.Struct, frozen=True, kw_only=True):
    """The targets of one command, in order, none twice, and who was left out by which word."""

    targets: tuple[Destination, ...] = ()
    excluded: dict[str, str] = {}
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(each.address for each in self.targets)

    @property
    def declarations(self) -> list[dict[str, Any]]:
        """The merges that make those that are not there yet."""
        return [each.declaration for each in self.targets if each.declaration]

    @property
    def secrets(self) -> dict[str, str]:
        """The signing secrets that were made, by address."""
        return {each.address: each.secret for each in self.targets if each.secret}


async def resolve_destinations(
    service: RegistryService,
    inventory: Inventory,
    mode: str,
    words: Sequence[str],
    source: Source,
    *,
    exclude: Sequence[str],
    follow: bool,
    strict: bool,
    event: bool = False,
    actor: Actor,
) -> Destinations:
    """The targets that the words mean; of a broadcast, all but the excluded; of an `event` that goes both ways, both
    ends. Raises as `resolve_target`, and UsageError when nobody is left."""
    shape = SHAPES[mode]
    if shape.everyone:
        return _everyone(inventory, Audience(exclude=tuple(exclude), itself=own_names(source.text)), follow=follow)
    notes: list[str] = []
    if shape.two_way and event:
        words = [*words, *_way_back(inventory, source, notes)]
        _check_no_peer(inventory, mode, words)
    if shape.two_way and not event:
        found = [_other_side(service, inventory, mode, word, source) for word in words]
    else:
        found = [await resolve_target(service, inventory, word, strict=strict, actor=actor) for word in words]
    return _collapsed(mode, words, found, source, notes)


def _way_back(inventory: Inventory, source: Source, notes: list[str]) -> list[str]:
    """The source as a target, to which the event goes as well. A record here that is none has it by the log."""
    if source.key is None:
        return []  # a selector, of which there is no event
    name = own_names(source.text)[-1]
    if source.record is None or full_address(name) in inventory.targets:
        return [name]
    notes.append(f"{name} is a record here and no target: it has the event by the log (else: {_add_line(name)})")
    return []


def _check_no_peer(inventory: Inventory, mode: str, words: Sequence[str]) -> None:
    for word in words:
        if not documents.has_scheme(word) and _short(full_address(word)) in inventory.counterparts:
            hint = "leave the data out, and change the record: both have it then"
            raise Invalid(f"{mode}: {shown(word)} is another registry, which takes records and no events", hint=hint)


def _add_line(name: str) -> str:
    return f"ureg target add {shell_word(name)} URL"


def _everyone(inventory: Inventory, audience: Audience, *, follow: bool) -> Destinations:
    facts = inventory.facts()
    meant, excluded = audience.parted(facts)
    force = "; it stays in force for targets that come later" if follow else ""
    silent = [f"--exclude {shown(word)} matches no target now{force}" for word in audience.unmatched(facts.values())]
    warnings = [_no_address(inventory, each) for each in meant if inventory.targets[each].url is None]
    notes = [f"excluded: {_short(address)} ({word})" for address, word in excluded.items()]
    return Destinations(
        targets=tuple(Destination(address=each) for each in meant),
        excluded=excluded,
        warnings=(*silent, *warnings),
        notes=tuple(notes),
    )


def _collapsed(
    mode: str, words: Sequence[str], found: Sequence[Destination], source: Source, notes: list[str]
) -> Destinations:
    """Each target once; the source itself not at all, where others are named beside it."""
    kept: dict[str, Destination] = {}
    itself = own_names(source.text) if SHAPES[mode].most != 1 else ()
    for word, each in zip(words, found, strict=True):
        if each.address in kept:
            notes.append(f"{word} is named twice: it is one target")
        elif _short(each.address) in itself:
            notes.append(f"{word} is the source itself: left out")
        else:
            kept[each.address] = each
    if len(kept) < SHAPES[mode].least:
        raise UsageError(f"{mode}: no target is left ({'; '.join(notes)})", hint="name others")
    return Destinations(targets=tuple(kept.values()), notes=tuple(notes))


async def resolve_target(
    service: RegistryService, inventory: Inventory, text: str, *, strict: bool, actor: Actor
) -> Destination:
    """`[namespace/]name` or a URL. An unknown name is declared, with a warning; when `strict`, NotFound."""
    if not text.strip():
        raise UsageError("the target is empty", hint="give [namespace/]name or a URL")
    if documents.is_url(text):
        return await _at_url(service, text, actor)
    if documents.has_scheme(text):
        raise Invalid(
            f"{shown(text)} is an address of a kind that nothing is sent to", hint="such as https://host/path"
        )
    address = full_address(text)
    target = inventory.targets.get(address)
    name = check_name(_short(address))
    if target is None and strict:
        inventory.require(text)
    if target is not None and target.url is not None:
        return Destination(address=address)
    if strict:
        raise NotFound(f"target {name!r:.80} has no address", hint=f"ureg target add {shell_word(name)} URL")
    declaration = None
    if target is None:
        declaration = documents.target_document(name, url=None, delivery={})
    return Destination(address=address, declaration=declaration, warnings=(_no_address(inventory, address),))


def _no_address(inventory: Inventory, address: str) -> str:
    name = _short(address)
    guesses = (
        [guess for guess in inventory.guesses(address) if guess != name] if address not in inventory.targets else []
    )
    meant = f"; did you mean {guesses[0]!r}?" if guesses else ""
    return f"target {name} has no address yet: what is meant for it is held until you run: {_add_line(name)}{meant}"


def _other_side(service: RegistryService, inventory: Inventory, mode: str, text: str, source: Source) -> Destination:
    """The other side of a two-way session. A name nobody knows is waited for; what cannot write back is refused, and
    what the link does not carry."""
    if not text.strip():
        raise UsageError("a member is empty", hint="give the name of a peer")
    address = full_address(text)
    target = None if documents.is_url(text) else inventory.targets.get(address)
    if documents.is_url(text) or (target is not None and target.url is not None and target.transport != PEER):
        what = shown(text) if target is None else f"{_short(address)} is a {target.transport} target and"
        hint = "unidirectional sends it one way; a peer is another registry"
        raise Invalid(f"{mode}: {what} cannot write back", hint=hint)
    name = check_name(_short(address))
    peer = inventory.counterparts.get(name)
    if peer is None:
        note = f"{not_paired(name)}; the session is stored, and nothing is exchanged until then"
        return Destination(address=address, warnings=(note,))
    if not is_within(parse_selector(source.selector, service.catalogue), peer.scope):
        hint = "pair them anew, with a scope that holds it: ureg peer invite --scope SELECTOR"
        raise Invalid(f"{mode}: the link with {name} does not carry {shown(source.text)}", hint=hint)
    return Destination(address=address)


async def _at_url(service: RegistryService, url: str, actor: Actor) -> Destination:
    name = check_name(documents.name_for_url(url))
    address = full_address(name)
    record = await service.records.get(Key(TARGET_KIND, SYSTEM_NAMESPACE, name))
    made = documents.has_secret(record)
    if record is not None and made and record.spec.get("url") == url:
        return Destination(address=address)
    network, note = documents.network_for(check_url(url), None, admin=actor.admin)
    secret = None if made else new_secret(service.world)
    delivery = {"network": network.value, **({"secret": secret} if secret else {})}
    return Destination(
        address=address,
        declaration=documents.guarded(documents.target_document(name, url=url, delivery=delivery), record),
        secret=secret,
        notes=(note,) if note else (),
    )


def _short(address: str) -> str:
    return address.removeprefix(f"{SYSTEM_NAMESPACE}/")
