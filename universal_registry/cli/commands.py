"""Every command: its name, the module that holds it, and one line of help. No command is imported to show this."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """`module`: below `universal_registry.cli`; `attribute`: the click command in it."""

    name: str
    section: str
    help: str
    module: str
    attribute: str


SECTIONS = ("The registry", "Records", "Propagation", "This machine")
_HOUSE, _RECORDS, _SENDING, _MACHINE = SECTIONS

ENTRIES: tuple[Entry, ...] = (
    Entry("init", _HOUSE, "Make the stores, the key and the admin token; twice does no harm", "daemon", "init"),
    Entry("status", _HOUSE, "What runs, what waits, what failed", "status", "status"),
    Entry("up", _HOUSE, "Start the daemon in the background", "daemon", "up"),
    Entry("down", _HOUSE, "Stop the daemon", "daemon", "down"),
    Entry("serve", _HOUSE, "Run the daemon here, until a signal ends it", "daemon", "serve"),
    Entry("db", _HOUSE, "The stores themselves: check, migrate", "db", "db"),
    Entry("demo", _HOUSE, "See it work, on a registry that is removed afterwards", "demo", "demo"),
    Entry("get", _RECORDS, "Show a record, or list those of a kind", "get", "get"),
    Entry("set", _RECORDS, "Create a record, or change fields of it", "set", "set_"),
    Entry("delete", _RECORDS, "Remove records", "delete", "delete"),
    Entry("apply", _RECORDS, "Create or replace records from files, all or nothing", "apply", "apply"),
    Entry("patch", _RECORDS, "Change a record by a JSON patch or a merge patch", "patch", "patch"),
    Entry("history", _RECORDS, "What was done to a record, when, by whom and why", "history", "history"),
    Entry("export", _RECORDS, "Write records out, to apply them elsewhere", "export", "export"),
    Entry("import", _RECORDS, "Put exported records back, all or nothing", "import_", "import_"),
    Entry("kinds", _RECORDS, "List the kinds of record", "kinds", "kinds"),
    Entry("classes", _RECORDS, "List the classifications", "kinds", "classes"),
    Entry("explain", _RECORDS, "What a kind, or one field of it, means", "explain", "explain"),
    Entry("target", _SENDING, "Where changes are sent: add, ls, get, test", "target", "target"),
    Entry("route", _SENDING, "What is sent where: add, ls", "route", "route"),
    Entry(
        "unidirectional", _SENDING, "Send a record and each later change, or one event", "propagate", "unidirectional"
    ),
    Entry("where", _SENDING, "Which targets have a record, and why not", "where", "where"),
    Entry("session", _SENDING, "Propagations and how far they are: ls, get", "sessions", "session_group"),
    Entry("delivery", _SENDING, "Deliveries not done yet: ls, attempts", "deliveries", "delivery"),
    Entry("listen", _SENDING, "Receive events here, and print them", "listen", "listen"),
    Entry("bidirectional", _SENDING, "(not built yet)", "propagate", "bidirectional"),
    Entry("multicast", _SENDING, "(not built yet)", "propagate", "multicast"),
    Entry("broadcast", _SENDING, "(not built yet)", "propagate", "broadcast"),
    Entry("enable-stream", _SENDING, "(not built yet)", "propagate", "enable_stream"),
    Entry("scan", _MACHINE, "Register what this machine has", "scan", "scan"),
)

BY_NAME = {entry.name: entry for entry in ENTRIES}
