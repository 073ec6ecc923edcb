"""The links with other registries, put together: versions in the store, sessions over them, peers and meshes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from universal_registry.kernel.world import World
from universal_registry.registry.service import RegistryService
from universal_registry.security.cipher import Sealer
from universal_registry.security.pairing import PURPOSE, MachineKey
from universal_registry.storage.sync_books import Books, Store
from universal_registry.storage.sync_reviews import Reviews
from universal_registry.storage.sync_store import Replica
from universal_registry.storage.writer import GroupWriter
from universal_registry.transports.peer import Links, Mesh


async def links_of(
    service: RegistryService,
    store: Store,
    writer: GroupWriter,
    sealer: Sealer,
    world: World,
    *,
    marker: Path,
    opens_links: Callable[[], Awaitable[bool]] | None,
    read_only: bool,
) -> Links:
    """The links of a registry that has just been opened. `opens_links`: see stores.py; None where it has one owner.

    Before anything is written under an old name, it is seen whether the store was rolled back (`Links.renewal`).
    """
    books = Books(store, writer, service.catalogue, world)
    replica = Replica(books)
    writer.keep_versions(replica)
    replica.keep_marker(marker)
    links = Links(service, replica, Reviews(books), lambda: MachineKey(sealer.derived_key(PURPOSE)), world)
    links.mesh = Mesh(links)
    links.holds = opens_links
    if not read_only and await links.identity() is not None:
        links.renewal = await replica.start(marker, shared=opens_links is not None)
    return links


def marker_in(folder: Path, home: Path) -> Path:
    """Where the marker of a home stands: not in it, so that it is not restored or copied with it."""
    return folder / f"{sha256(bytes(home)).hexdigest()[:16]}.marker"
