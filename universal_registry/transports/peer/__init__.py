"""Links with other registries: sessions of the sync protocol, carried by HTTP long polls, sealed from end to end."""

from universal_registry.transports.peer.links import Links
from universal_registry.transports.peer.mesh import Mesh
from universal_registry.transports.peer.pairing import Pairing
from universal_registry.transports.peer.status import Status

__all__ = ["Links", "Mesh", "Pairing", "Status"]
