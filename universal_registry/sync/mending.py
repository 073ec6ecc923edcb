"""From unequal roots to the records that differ, and those exchanged: three round trips for a few differences."""

from __future__ import annotations

from collections.abc import Sequence

from universal_registry.kernel.ids import Key
from universal_registry.sync.digest import Tree, different_keys
from universal_registry.sync.ports import SyncStore
from universal_registry.sync.protocol import BATCH_BYTES, Digest, Frame, Items, StateOf, record_of, size_of
from universal_registry.sync.version import Known

_MOST_ITEMS = 2000
"""Told of in one frame. What is left is found when the roots are compared again."""


def narrowed(tree: Tree, theirs: Digest) -> list[Frame]:
    """What to say to sums that are not ours: those one level down, and at the lowest the records themselves."""
    if theirs.buckets:
        sums = {int(number): list(each) for number, each in theirs.buckets.items()}
        return [_items(tree, tree.different_buckets(sums))]
    if theirs.groups:
        groups = tree.different_groups(list(theirs.groups))
        buckets = {str(number): tuple(sums) for number, sums in tree.buckets(groups).items()}
        return [Digest(root=tree.root, buckets=buckets)] if buckets else []
    return [Digest(root=tree.root, groups=tuple(tree.groups()))]


def _items(tree: Tree, buckets: Sequence[int]) -> Items:
    told: dict[str, tuple[tuple[str, str, str, str], ...]] = {}
    count = 0
    for bucket in buckets:
        items = tree.items(bucket)
        if told and count + len(items) > _MOST_ITEMS:
            break
        told[str(bucket)] = tuple((*key, digest) for key, digest in sorted(items.items()))
        count += len(items)
    return Items(buckets=told)


async def states_for(store: SyncStore, tree: Tree, theirs: Items) -> list[Frame]:
    """Our states of the records in some buckets that differ, with the wish for theirs."""
    keys: list[Key] = []
    for number, items in theirs.buckets.items():
        told = {Key(kind, namespace, name): digest for kind, namespace, name, digest in items}
        keys += different_keys(tree.items(int(number)), told)
    return await states_of(store, keys, answer=True) if keys else []


async def states_of(store: SyncStore, keys: Sequence[Key], *, answer: bool) -> list[Frame]:
    """Our states of some records, as many as fit; one that we have not is told of, too."""
    known, vector = await store.states(keys)
    recs: list[Known] = []
    size = 0
    for each in known:
        size += size_of(each)
        if recs and size > BATCH_BYTES:
            break
        recs.append(each)
    return [StateOf(recs=tuple(map(record_of, recs)), vv=vector, answer=answer)] if recs else []
