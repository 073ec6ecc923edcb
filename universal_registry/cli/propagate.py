"""The seven ways to propagate."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Example, command, options, result_option
from universal_registry.cli.propagating import data_word, last_is_data, names_in, next_word, only_targets, run_mode
from universal_registry.cli.waiting import DEFAULT

_SOURCE = click.option("--source", metavar="SOURCE", help="[KIND/]NAME, or a selector such as kind=alias.")
_TARGET = click.option("--target", metavar="TARGET", help="The name of a target, or a URL.")
_TARGETS = click.option("--targets", multiple=True, metavar="A,B", help="Names of targets, or URLs; may be repeated.")
_ONE_SHOT = (
    click.option("--data", metavar="DATA", help="An event to send once: JSON, text, @FILE or -."),
    click.option("--once", is_flag=True, help="Send the state as it is now, and nothing later."),
    click.option("--deadline", metavar="TIME", help="Of what is sent once: cancel what has not arrived by then."),
)
_STRICT = click.option("--strict", is_flag=True, help="Fail when the source does not exist or a target has no address.")
_OUTCOME = (
    click.option("--wait", "wait", metavar="[=any][=TIME]", help="Wait until all (any) have it, for 30s or TIME."),
    click.option("--no-wait", is_flag=True, help="Without a daemon: store it, try nothing, exit 7."),
    click.option("--idempotency-key", metavar="KEY", help="Do it once: within a day, the same key gets that answer."),
    click.option("--dry-run", is_flag=True, help="Say what it would do, and store nothing."),
    result_option(),
)


@command(
    "unidirectional",
    Example("ureg unidirectional --source myservice --target remote.service", "now, and after each change"),
    Example("ureg unidirectional --source alias/gs --target http://127.0.0.1:9000 --wait"),
    Example("ureg unidirectional --source kind=alias --target mine --once", "the state now, once"),
    Example('ureg unidirectional --source deploy --target mine --data \'{"version": "1.2"}\'', "one event"),
    Example("ureg unidirectional myservice mine @event.json", "the same without flags"),
    valued={"--wait": DEFAULT},
)
@click.argument("words", nargs=-1, metavar="[SOURCE TARGET [DATA [PROTOCOL]]]")
@options(_SOURCE, _TARGET, *_ONE_SHOT, _STRICT, *_OUTCOME)
def unidirectional(words: tuple[str, ...], source: str | None, target: str | None, **more: Any) -> None:
    """Send a source to one target.

    Without data: the state of the source now, and each later change of it, for good; the same again changes nothing.
    With data: that, once. A target without an address, or a source that does not exist yet, is waited for.
    """
    left = list(words)
    source = next_word(source, left, "source", "--source NAME --target NAME")
    target = next_word(target, left, "target", "--source NAME --target NAME")
    run_mode("unidirectional", source, [target], data_word(left, more), more)


@command(
    "bidirectional",
    Example("ureg bidirectional --source service1 --target service2"),
    Example("ureg bidirectional service1 service2", "the same without flags"),
    Example("ureg bidirectional service1 service2 '{\"n\": 1}'", "one event, to both of them"),
    valued={"--wait": DEFAULT},
)
@click.argument("words", nargs=-1, metavar="[SOURCE PEER [DATA [PROTOCOL]]]")
@options(
    _SOURCE,
    click.option("--target", metavar="PEER", help="The name of another registry; with data, of a target, or a URL."),
    _ONE_SHOT[0],
    _ONE_SHOT[2],
    _STRICT,
    *_OUTCOME,
)
def bidirectional(words: tuple[str, ...], source: str | None, target: str | None, **more: Any) -> None:
    """Keep a source the same here and at another registry.

    Edits of different fields on both sides both survive; of the same field, one value is shown on both, and the other
    is kept for review (`ureg conflict ls`). A peer that is not paired yet is waited for; what cannot write back, as a
    webhook, is refused. With data: that, once, as an event to both ends, which are targets then; a source that is a
    record here, and no target, has it by the log.
    """
    left = list(words)
    source = next_word(source, left, "source", "--source NAME --target PEER")
    target = next_word(target, left, "target", "--source NAME --target PEER")
    run_mode("bidirectional", source, [target], data_word(left, more), more)


@command(
    "multicast",
    Example('ureg multicast --source hub --targets "s1,s2,s3"', "now, and after each change"),
    Example('ureg multicast --source hub --targets "s1,s2" --data @event.json --wait=any'),
    Example("ureg multicast hub s1 s2 '{\"n\": 1}'", "without flags: the last word is the data"),
    valued={"--wait": DEFAULT},
)
@click.argument("words", nargs=-1, metavar="[SOURCE TARGET... DATA]")
@options(_SOURCE, _TARGETS, *_ONE_SHOT, _STRICT, *_OUTCOME)
def multicast(words: tuple[str, ...], source: str | None, targets: tuple[str, ...], **more: Any) -> None:
    """Send a source to some targets.

    Each is independent of the others. One that is named twice is one, and the source itself is left out; both are said.
    """
    left = list(words)
    source = next_word(source, left, "source", "--source NAME")
    named = names_in(targets)
    data = more["data"]
    if left and data is None:
        data = last_is_data(left)
    run_mode("multicast", source, [*named, *left], data, more)


@command(
    "broadcast",
    Example('ureg broadcast --source publisher --exclude "internal"', "to all targets there are now but some"),
    Example("ureg broadcast --source kind=alias --follow", "and to those that are added later"),
    Example("ureg broadcast publisher '{\"n\": 1}'", "one event, without flags"),
    valued={"--wait": DEFAULT},
)
@click.argument("words", nargs=-1, metavar="[SOURCE [DATA [PROTOCOL]]]")
@options(
    _SOURCE,
    click.option("--exclude", multiple=True, metavar="A,B", help="Names, globs, namespaces, environments or labels."),
    click.option("--follow", is_flag=True, help="Also to targets that are added later, from then on."),
    *_ONE_SHOT,
    _STRICT,
    *_OUTCOME,
)
def broadcast(words: tuple[str, ...], source: str | None, exclude: tuple[str, ...], **more: Any) -> None:
    """Send a source to all targets but some.

    To those that there are when it is run, and with --follow to those that come later. Run again, it takes in what has
    come since, and leaves out what --exclude says then.
    """
    left = list(words)
    source = next_word(source, left, "source", "--source NAME")
    run_mode("broadcast", source, [], data_word(left, more), {**more, "exclude": names_in(exclude)})


@command(
    "fanout",
    Example('ureg fanout --source hub --targets "s1,s2,s3"'),
    Example("ureg fanout hub s1 s2 s3", "the same without flags"),
    valued={"--wait": DEFAULT},
)
@click.argument("words", nargs=-1, metavar="[SOURCE TARGET...]")
@options(_SOURCE, _TARGETS, *_ONE_SHOT, _STRICT, *_OUTCOME)
def fanout(words: tuple[str, ...], source: str | None, targets: tuple[str, ...], **more: Any) -> None:
    """Send a source to many targets side by side.

    As multicast; the words are all targets, and a dead one never delays another.
    """
    left = list(words)
    source = next_word(source, left, "source", "--source NAME")
    run_mode("fanout", source, [*names_in(targets), *only_targets(left)], more["data"], more)


@command(
    "chain",
    Example('ureg chain --source release --via "staging,canary,production"', "each after the one before it has it"),
    Example("ureg chain release staging production --on-failure skip", "a hop that is given up does not stop it"),
    valued={"--wait": DEFAULT},
)
@click.argument("words", nargs=-1, metavar="[SOURCE TARGET...]")
@options(
    _SOURCE,
    click.option("--targets", "--via", multiple=True, metavar="A,B", help="Names of targets, or URLs, in order."),
    click.option("--on-failure", type=click.Choice(("stop", "skip")), help="When a hop is given up: stop if absent."),
    *_ONE_SHOT,
    _STRICT,
    *_OUTCOME,
)
def chain(words: tuple[str, ...], source: str | None, targets: tuple[str, ...], **more: Any) -> None:
    """Send a source to targets one after the other.

    Each change goes to a target once the one before it has that change. A hop that is given up stops that change there,
    until `ureg delivery redrive` tries it again; or it is skipped.
    """
    left = list(words)
    source = next_word(source, left, "source", "--source NAME")
    run_mode("chain", source, [*names_in(targets), *only_targets(left)], more["data"], more)


@command(
    "mesh",
    Example("ureg mesh north south east", "all there is, the same in each"),
    Example('ureg mesh --source kind=alias --members "north,south"'),
)
@click.argument("words", nargs=-1, metavar="[PEER...]")
@options(
    click.option("--source", metavar="SOURCE", help="[KIND/]NAME or a selector; all records if absent."),
    click.option(
        "--targets", "--members", multiple=True, metavar="A,B", help="Names of linked registries; may be repeated."
    ),
    _STRICT,
    *_OUTCOME[2:],
)
def mesh(words: tuple[str, ...], source: str | None, targets: tuple[str, ...], **more: Any) -> None:
    """Keep records the same here and at up to 16 other registries, each with each.

    Each peer passes on what it has from the others. One that is not paired yet is waited for. `ureg peer status` proves
    that all hold the same.
    """
    run_mode("mesh", source, [*names_in(targets), *words], None, more)
