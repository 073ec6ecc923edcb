"""What every transport over sockets shares: names, connections to checked addresses only, and the client that POSTs."""

from universal_registry.transports.net.connection import BrokeOff, Connection, Exchange, HungUp, NotHttp, Stage, Unfit
from universal_registry.transports.net.names import Resolve, SystemNames
from universal_registry.transports.net.post import Poster
from universal_registry.transports.net.reasons import plain, trouble
from universal_registry.transports.net.way import Unresolved, Way, addresses_of

__all__ = [
    "BrokeOff",
    "Connection",
    "Exchange",
    "HungUp",
    "NotHttp",
    "Poster",
    "Resolve",
    "Stage",
    "SystemNames",
    "Unfit",
    "Unresolved",
    "Way",
    "addresses_of",
    "plain",
    "trouble",
]
