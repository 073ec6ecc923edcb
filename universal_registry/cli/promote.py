"""`ureg promote`: what an environment has, to the next one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from universal_registry.cli.command import Example, command, result_option
from universal_registry.cli.foretelling import EFFECTS, dry_run_option, foretell, operation
from universal_registry.cli.output import Item, json_text, tell, write
from universal_registry.cli.own_secrets import with_own_secrets
from universal_registry.cli.records import fetch, key_text, kind_of
from universal_registry.cli.references import names_in
from universal_registry.cli.session import Session, note, session, warn
from universal_registry.kernel.errors import NotFound, Refused, UsageError
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, check_namespace
from universal_registry.registry.words import shell_word

_OWN = ("environment", "env_var", "secret")
_CONTENT = ("classification", "title", "description", "labels", "annotations", "spec", "lifecycle")
_ITS_OWN = ("health", "expires_at")
_MOST_LISTED = 20

_Named = tuple[str, str]
"""The kind and the name of a record."""


@command(
    "promote",
    Example("ureg promote staging production --dry-run", "what would change there"),
    Example("ureg promote staging production -m 'release 7'"),
    Example("ureg promote staging --select kind=service", "to where its record says: promotes_to"),
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="[TO]", required=False)
@click.option("--select", "selectors", multiple=True, metavar="SELECTOR", help="Only what this selects.")
@click.option("--approved-by", metavar="NAME", help="Who agreed, for the log; needed where TO is protected.")
@click.option("-m", "--message", metavar="TEXT", help="Why, for the log.")
@dry_run_option()
@result_option()
def promote(
    source: str,
    target: str | None,
    selectors: tuple[str, ...],
    approved_by: str | None,
    message: str | None,
    dry_run: bool,
    output: str,
) -> None:
    """Make the records of environment TO what they are in FROM: all of them, as one revision, or none.

    The records of an environment stand in the namespace of its name. What each environment has of its own stays as it
    is: environments, env_vars and secrets, unless --select names their kind; health; records that only TO has; and a
    secret within a record. A field that refers to environment FROM refers to TO there. What was changed in TO later
    than in FROM, and what a record names that TO does not have, is said. `ureg undo` takes it back.
    """
    with session() as asked:
        check_namespace(source)
        target = check_namespace(_next(asked, source) if target is None else target)
        if target == source or SYSTEM_NAMESPACE in (source, target):
            raise UsageError(f"{source} cannot be promoted to {target}", hint="two environments of yours, FROM and TO")
        _check_known(asked, source)
        _check_target(asked, target, approved_by, dry_run=dry_run)
        chosen = _chosen(asked, source, selectors)
        there = {_named(item): item for item in asked.items("/v1/-/records", {"namespace": target})}
        operations = list(_operations(asked, chosen, there, source, target))
        if not operations:
            raise NotFound(f"nothing in namespace {source} can be promoted yet")
        warn(
            [*_newer_there(chosen, operations, there, target), *_left_behind(asked, operations, there, source, target)]
        )
        if dry_run:
            foretell(asked, operations, output)
            return
        body = {"operations": operations, "message": _message(source, target, approved_by, message)}
        answer = asked.write("/v1/batch", body)
    _show(answer, output)


def _next(asked: Session, source: str) -> str:
    """Where the environment's record says that it is promoted to."""
    found = _check_known(asked, source)
    named = found["spec"].get("promotes_to") if found else None
    if not named:
        raise UsageError(
            f"environment {source} does not say where it is promoted to",
            hint=f"ureg promote {source} TO, or ureg set environment {source} promotes_to=TO",
        )
    return str(named)


def _environment(asked: Session, name: str) -> Item | None:
    try:
        return fetch(asked, "environment", name, None)
    except NotFound:
        return None


def _check_known(asked: Session, name: str) -> Item | None:
    """The environment's record, if it has one. Raises NotFound for an environment of which nothing is known."""
    found = _environment(asked, name)
    if found is None and not asked.read("/v1/-/records", namespace=name, limit=1)["items"]:
        hint = f"ureg create environment {name}"
        raise NotFound(f"there is no environment {name}, and nothing in namespace {name}", hint=hint)
    return found


def _check_target(asked: Session, target: str, approved_by: str | None, *, dry_run: bool) -> None:
    """Raises NotFound for an environment of which nothing is known, Refused for a protected one."""
    found = _check_known(asked, target)
    if found is not None and found["spec"].get("protected") and not approved_by and not dry_run:
        hint = "--approved-by NAME says who agreed"
        raise Refused(f"environment {target} is protected: changes need a second person", hint=hint)


def _chosen(asked: Session, source: str, selectors: tuple[str, ...]) -> list[Item]:
    """What is promoted. Raises NotFound when that is nothing."""
    if any(term.startswith("namespace") for text in selectors for term in text.split(",")):
        raise UsageError("--select names a namespace", hint=f"what is promoted is of namespace {source}")
    found = list(asked.items("/v1/-/records", {"namespace": source, "select": list(selectors)}))
    if any(term.startswith("kind=") for text in selectors for term in text.split(",")):
        chosen = found
    else:
        chosen = [item for item in found if item["kind"] not in _OWN]
        left = Counter(item["kind"] for item in found if item["kind"] in _OWN)
        if left:
            told = ", ".join(f"{count} of kind {kind}" for kind, count in sorted(left.items()))
            note(f"left out: {told}; --select kind=KIND takes them")
    if not chosen:
        raise NotFound(f"nothing in namespace {source} is to be promoted", hint=f"ureg search -n {source}")
    return chosen


def _named(item: Item) -> _Named:
    """Which record it is, in either environment."""
    return item["kind"], item["name"]


def _operations(
    asked: Session, chosen: Iterable[Item], there: Mapping[_Named, Item], source: str, target: str
) -> Iterable[Item]:
    """Each of them as a write of the record in TO, if that is still as it was looked at."""
    references: dict[str, set[str]] = {}
    for item in chosen:
        kind = item["kind"]
        if kind not in references:
            references[kind] = _references(kind_of(asked, kind))
        before = there.get(_named(item), {})
        lacking: list[str] = []
        spec = with_own_secrets(item["spec"], before.get("spec"), lacking)
        if lacking:
            way = f"ureg set {kind} {shell_word(item['name'])} {lacking[0]}=- -n {target}"
            note(f"left out: {kind} {item['name']}, whose secret {lacking[0]} is to be there first: {way}")
            continue
        document = {field: item[field] for field in _CONTENT if field in item}
        document |= {field: before[field] for field in _ITS_OWN if field in before}
        document["spec"] = {
            name: target if name in references[kind] and value == source else value for name, value in spec.items()
        }
        yield operation("put", kind, item["name"], target, document, before["meta"]["revision"] if before else 0)


def _newer_there(
    chosen: Iterable[Item], operations: Iterable[Item], there: Mapping[_Named, Item], target: str
) -> Iterator[str]:
    """What was changed in TO after it was in FROM, as by a hotfix, and is replaced."""
    revisions = {_named(item): item["meta"]["revision"] for item in chosen}
    for document in operations:
        before, revision = there.get(_named(document)), revisions[_named(document)]
        if before is None or before["meta"]["revision"] < revision:
            continue
        if any(before.get(field) != document.get(field) for field in _CONTENT):
            kind, name = _named(document)
            yield (
                f"{kind} {name} was changed in {target} (revision {before['meta']['revision']}) after what replaces it "
                f"(revision {revision}): ureg history {kind} {shell_word(name)} -n {target}"
            )


def _left_behind(
    asked: Session, operations: Iterable[Item], there: Mapping[_Named, Item], source: str, target: str
) -> Iterator[str]:
    """What is named by a record that goes to TO, stands in FROM, and neither goes too nor is there."""
    known = there.keys() | {_named(document) for document in operations}
    missing = [
        (document, field, kinds, name)
        for document in operations
        for field, kinds, name in names_in(document, kind_of(asked, document["kind"]))
        if not any((kind, name) in known for kind in kinds)
    ]
    if not missing:
        return
    behind = {_named(item) for item in asked.items("/v1/-/records", {"namespace": source})}
    for document, field, kinds, name in missing:
        if kind := next((kind for kind in kinds if (kind, name) in behind), None):
            yield f"{field} of {' '.join(_named(document))} names {kind} {name}, which {target} does not have"


def _references(kind: Mapping[str, Any]) -> set[str]:
    """The fields of a kind that name an environment."""
    return {field["name"] for field in kind.get("fields", ()) if "environment" in field.get("ref", ())}


def _message(source: str, target: str, approved_by: str | None, message: str | None) -> str:
    text = f"promote {source} to {target}"
    text += f", approved by {approved_by}" if approved_by else ""
    return f"{text}: {message}" if message else text


def _show(answer: Item, output: str) -> None:
    warn(answer["warnings"])
    changed = [result for result in answer["results"] if result["effect"] != "unchanged"]
    if output == "json":
        write(json_text(answer, indent=2))
    elif len(changed) <= _MOST_LISTED:
        for result in changed:
            tell(f"{key_text(result)} {result['effect']}, revision {answer['revision']}")
    counts = Counter(result["effect"] for result in answer["results"])
    said = ", ".join(f"{counts[word]} {word}" for word in EFFECTS if counts[word])
    note(f"{said}, revision {answer['revision']}")
