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
    Entry("top", _HOUSE, "Watch how it goes, until q or Ctrl-C", "top", "top"),
    Entry("up", _HOUSE, "Start the daemon in the background", "daemon", "up"),
    Entry("down", _HOUSE, "Stop the daemon", "daemon", "down"),
    Entry("restart", _HOUSE, "Stop the daemon, and start it with the settings of now", "daemon", "restart"),
    Entry("logs", _HOUSE, "What the daemon wrote to its log; -f goes on", "logs", "logs"),
    Entry("serve", _HOUSE, "Run the daemon here, until a signal ends it", "daemon", "serve"),
    Entry("health", _HOUSE, "Look now whether all is well, and say what is not", "health", "health"),
    Entry("metrics", _HOUSE, "The figures, as Prometheus reads them", "health", "metrics"),
    Entry("audit", _HOUSE, "Who did or was refused what; prove that none of it was altered", "audit", "audit"),
    Entry("token", _HOUSE, "Access for scripts and scrapers: add, ls, revoke", "token", "token"),
    Entry("db", _HOUSE, "The stores themselves: check, migrate", "db", "db"),
    Entry("key", _HOUSE, "The keys that seal: ls, rotate, retire, verify, backup, restore", "key", "key"),
    Entry("doctor", _HOUSE, "What is not well, why, and the one right command", "doctor", "doctor"),
    Entry("checklist", _HOUSE, "The ten things to do before it is relied upon", "checklist", "checklist"),
    Entry("backup", _HOUSE, "Write the whole registry into one sealed file, while it runs", "backup", "backup"),
    Entry("restore", _HOUSE, "Put the registry of a backup where there is none", "backup", "restore"),
    Entry("drill", _HOUSE, "Prove that a backup comes back: restored elsewhere, and compared", "backup", "drill"),
    Entry("config", _HOUSE, "The settings in force, and where each comes from", "config", "config"),
    Entry("api", _HOUSE, "Any request of the HTTP API, with a daemon or without", "api", "api"),
    Entry("service", _HOUSE, "The daemon as a service: install, status, uninstall", "service", "service"),
    Entry("shell", _HOUSE, "The line that brings the functions into zsh or sh", "shell", "shell"),
    Entry("context", _HOUSE, "Several registries by name: ls, add, use, rm", "context", "context"),
    Entry("completion", _HOUSE, "What zsh, bash or fish need to complete commands", "completion", "completion"),
    Entry("selftest", _HOUSE, "Proofs that run here, and touch no registry: sync", "selftest", "selftest"),
    Entry("demo", _HOUSE, "See it work, on a registry that is removed afterwards", "demo", "demo"),
    Entry("get", _RECORDS, "Show a record, or list those of a kind", "get", "get"),
    Entry("search", _RECORDS, "Find records that hold some words", "search", "search"),
    Entry("graph", _RECORDS, "Which records refer to which", "graph", "graph"),
    Entry("impact", _RECORDS, "What a change of a record would reach", "impact", "impact"),
    Entry("set", _RECORDS, "Create a record, or change fields of it", "set", "set_"),
    Entry("create", _RECORDS, "Create a record that is not there yet", "set", "create"),
    Entry("edit", _RECORDS, "Change a record in an editor", "edit", "edit"),
    Entry("delete", _RECORDS, "Remove records", "delete", "delete"),
    Entry("undelete", _RECORDS, "Bring a deleted record back", "reverting", "undelete"),
    Entry("apply", _RECORDS, "Create or replace records from files, all or nothing", "apply", "apply"),
    Entry("promote", _RECORDS, "Make the records of one environment those of the next", "promote", "promote"),
    Entry("diff", _RECORDS, "What apply would change; exit 1 when anything", "diff", "diff"),
    Entry("patch", _RECORDS, "Change a record by a JSON patch or a merge patch", "patch", "patch"),
    Entry("history", _RECORDS, "What was done to a record, when, by whom and why", "history", "history"),
    Entry("rollback", _RECORDS, "Make a record again what it was", "reverting", "rollback"),
    Entry("undo", _RECORDS, "Put all that a revision changed back as it was", "reverting", "undo"),
    Entry("export", _RECORDS, "Write records out, to apply them elsewhere", "export", "export"),
    Entry("import", _RECORDS, "Put exported records back, all or nothing", "import_", "import_"),
    Entry("consumer", _RECORDS, "Readers whose place is kept: add, ls, get, ack, rm", "consumer", "consumer"),
    Entry("kinds", _RECORDS, "List the kinds of record", "kinds", "kinds"),
    Entry("classes", _RECORDS, "List the classifications", "kinds", "classes"),
    Entry("explain", _RECORDS, "What a kind, or one field of it, means", "explain", "explain"),
    Entry("target", _SENDING, "Where changes are sent: add, set, ls, get, test, secret, key", "target", "target"),
    Entry("route", _SENDING, "What is sent where: add, ls, explain", "route", "route"),
    Entry(
        "unidirectional", _SENDING, "Send a record and each later change, or one event", "propagate", "unidirectional"
    ),
    Entry("multicast", _SENDING, "The same to some targets", "propagate", "multicast"),
    Entry("broadcast", _SENDING, "The same to all targets but some", "propagate", "broadcast"),
    Entry("fanout", _SENDING, "The same to many targets side by side", "propagate", "fanout"),
    Entry("chain", _SENDING, "The same to targets one after the other", "propagate", "chain"),
    Entry(
        "bidirectional",
        _SENDING,
        "Keep a record the same here and at a peer, both ways",
        "propagate",
        "bidirectional",
    ),
    Entry("mesh", _SENDING, "Keep records the same at many peers, each with each", "propagate", "mesh"),
    Entry("peer", _SENDING, "Registries paired with this one: invite, join, ls, status", "peer", "peer"),
    Entry("conflict", _SENDING, "Fields changed in two places at once: ls, show, resolve", "conflict", "conflict"),
    Entry("where", _SENDING, "Which targets have a record, and why not", "where", "where"),
    Entry(
        "session",
        _SENDING,
        "Propagations: ls, get, watch, waterfall, retry, pause, resume, cancel",
        "sessions",
        "session_group",
    ),
    Entry(
        "delivery",
        _SENDING,
        "Deliveries not done yet: ls, get, why, attempts, retry, redrive, skip",
        "deliveries",
        "delivery",
    ),
    Entry(
        "webhook", _SENDING, "Webhooks: ls, add, test, rotate-secret; verify a captured request", "webhook", "webhook"
    ),
    Entry("listen", _SENDING, "Receive events here, and print them", "listen", "listen"),
    Entry("stream", _SENDING, "Over a WebSocket: tail, publish, send, receive, status", "stream", "stream"),
    Entry("follow", _SENDING, "Follow the changes of a registry elsewhere", "follow", "follow"),
    Entry("nexus", _SENDING, "Studios that keep a copy: bind, sync, stream, history", "nexus", "nexus"),
    Entry("studio", _SENDING, "The registry for AI clients, over MCP: serve, install", "studio", "studio"),
    Entry("enable-stream", _SENDING, "Make a stream for data of your own", "stream", "enable_stream"),
    Entry("run", _MACHINE, "Run a command with the variables of an environment", "run", "run"),
    Entry("scan", _MACHINE, "Register what this machine has", "scan", "scan"),
)

BY_NAME = {entry.name: entry for entry in ENTRIES}
