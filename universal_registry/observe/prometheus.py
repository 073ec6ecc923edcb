"""`GET /metrics`: the figures in the form that Prometheus reads. Its library is loaded when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from universal_registry import __version__
from universal_registry.observe.figures import Figures, PeerFigures, Stored, TargetFigures
from universal_registry.propagation.lanes.lane import Breaker
from universal_registry.propagation.lanes.outcome_counts import CLASSES

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Sample = tuple[tuple[str, ...], float]


class Exposed(NamedTuple):
    """One metric: its kind, its meaning, its labels."""

    kind: str
    doc: str
    labels: tuple[str, ...] = ()


_TARGET, _WORKER, _PEER = ("target",), ("worker",), ("peer",)

EXPOSED: dict[str, Exposed] = {
    "ureg_build_info": Exposed("gauge", "Always 1; its labels say what runs.", ("version", "store")),
    "ureg_health_db": Exposed("gauge", "1 when both databases answer and can be written, else 0."),
    "ureg_health_ready": Exposed("gauge", "1 when the daemon does its whole work, else 0."),
    "ureg_revision": Exposed("gauge", "The newest revision of the registry."),
    "ureg_queue_depth": Exposed(
        "gauge", "Deliveries that are not finished: pending and retry, and changes not yet planned."
    ),
    "ureg_webhooks_pending": Exposed("gauge", "Deliveries to webhooks that were never tried."),
    "ureg_dead_deliveries": Exposed("gauge", "Deliveries given up that nobody has dealt with."),
    "ureg_deliveries_executed_total": Exposed("counter", "Deliveries that ended well, since the store was made."),
    "ureg_webhooks_delivered_total": Exposed(
        "counter", "Webhooks accepted by their targets, since the store was made."
    ),
    "ureg_webhooks_retried_total": Exposed(
        "counter", "Attempts that failed and are repeated, since the store was made."
    ),
    "ureg_webhooks_failed_total": Exposed("counter", "Webhooks given up, since the store was made."),
    "ureg_stream_messages_total": Exposed(
        "counter", "Messages that streams have carried, both ways, since the store was made."
    ),
    "ureg_attempts_total": Exposed("counter", "Attempts that ended, by class of answer, since the start.", ("class",)),
    "ureg_attempt_seconds_total": Exposed("counter", "Time that all these attempts took, since the start."),
    "ureg_in_flight": Exposed("gauge", "Attempts under way."),
    "ureg_target_lag_revisions": Exposed("gauge", "Revisions that the target's lane has not looked at.", _TARGET),
    "ureg_target_lag_seconds": Exposed("gauge", "Age of the oldest change that the target does not have.", _TARGET),
    "ureg_target_oldest_pending_seconds": Exposed(
        "gauge", "Age of the oldest delivery to the target that has not ended.", _TARGET
    ),
    "ureg_target_in_flight": Exposed("gauge", "Attempts to the target under way.", _TARGET),
    "ureg_target_waiting": Exposed("gauge", "Deliveries to the target that wait in a row.", _TARGET),
    "ureg_target_dead": Exposed("gauge", "Deliveries to the target that were given up.", _TARGET),
    "ureg_target_held": Exposed("gauge", "1 when nothing is sent to the target now, for whatever reason.", _TARGET),
    "ureg_target_breaker": Exposed("gauge", "1 for the state that the target's breaker is in.", ("target", "state")),
    "ureg_target_delivered_total": Exposed("counter", "Deliveries that the target accepted.", _TARGET),
    "ureg_worker_up": Exposed("gauge", "1 while the worker runs, 0 between two lives of it.", _WORKER),
    "ureg_worker_stuck": Exposed("gauge", "1 when the worker has not moved for half a minute.", _WORKER),
    "ureg_worker_deaths_total": Exposed("counter", "How often the worker died, since the start.", _WORKER),
    "ureg_streams_open": Exposed("gauge", "Streams (WebSockets) that are open."),
    "ureg_watchers": Exposed("gauge", "Watches that are open."),
    "ureg_watch_lag_revisions": Exposed("gauge", "Revisions that the slowest of them has not taken."),
    "ureg_watch_events_total": Exposed("counter", "Events handed to watchers, since the start."),
    "ureg_watch_dropped_total": Exposed("counter", "Watches ended for being too slow, since the start."),
    "ureg_consumer_lag_revisions": Exposed(
        "gauge", "Revisions that the named consumer has not acknowledged.", ("consumer",)
    ),
    "ureg_history_values_revision": Exposed("gauge", "Values that changes replaced are kept from this revision on."),
    "ureg_history_lines_revision": Exposed("gauge", "The change log is whole from this revision on."),
    "ureg_history_values_dropped_total": Exposed("counter", "Values that compaction dropped, since the start."),
    "ureg_history_lines_removed_total": Exposed("counter", "Lines that compaction removed, since the start."),
    "ureg_peer_linked": Exposed("gauge", "1 while there is a link with the peer, else 0.", _PEER),
    "ureg_peer_in_sync": Exposed(
        "gauge", "1 while this registry and the peer hold the same, shown by one root.", _PEER
    ),
    "ureg_peer_behind": Exposed("gauge", "Changes that are here, and that the peer has not acknowledged.", _PEER),
    "ureg_peer_conflicts": Exposed("gauge", "Records in the peer's scope that somebody should look at.", _PEER),
    "ureg_origin_lag": Exposed(
        "gauge", "Changes made at the node that some peer has and this registry has not.", ("node",)
    ),
    "ureg_backup_age_seconds": Exposed(
        "gauge", "Age of the newest of the backups made by the clock; missing while there is none."
    ),
    "ureg_denials_total": Exposed("counter", "Requests refused for who sent them, since the start."),
}
"""Every metric of ours, in the order of the answer. Beside them stand the usual ones of the process (`process_...`)."""


def exposition(figures: Figures, accept: str) -> tuple[bytes, str]:
    """The answer to a scraper that accepts so, and its content type."""
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.process_collector import ProcessCollector
    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(figures))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector:
    """Hands the figures over."""

    def __init__(self, figures: Figures) -> None:
        self._samples = samples(figures)

    def collect(self) -> Iterator[Metric]:
        """As the library asks."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, exposed in EXPOSED.items():
            if name in self._samples:
                family: Any = CounterMetricFamily if exposed.kind == "counter" else GaugeMetricFamily
                metric = family(name, exposed.doc, labels=exposed.labels)
                for labels, value in self._samples[name]:
                    metric.add_metric(labels, value)
                yield metric


def samples(figures: Figures) -> dict[str, list[Sample]]:
    """The values of each metric. Those of the stores are left out while these do not answer."""
    tally = figures.tally
    found: dict[str, list[Sample]] = {
        "ureg_build_info": [((__version__, figures.store), 1)],
        "ureg_health_db": [((), figures.db)],
        "ureg_health_ready": [((), figures.ready)],
        "ureg_attempts_total": [((each,), tally.ended[each]) for each in CLASSES],
        "ureg_attempt_seconds_total": [((), tally.seconds)],
        "ureg_in_flight": [((), tally.under_way)],
        "ureg_worker_up": [((each.name,), each.running) for each in figures.workers],
        "ureg_worker_stuck": [((each.name,), each.stuck) for each in figures.workers],
        "ureg_worker_deaths_total": [((each.name,), each.deaths) for each in figures.workers],
        "ureg_streams_open": [((), figures.streams)],
        "ureg_watchers": [((), figures.watches.watchers)],
        "ureg_watch_events_total": [((), figures.watches.sent)],
        "ureg_watch_dropped_total": [((), figures.watches.dropped)],
        "ureg_history_values_dropped_total": [((), figures.compacted.values)],
        "ureg_history_lines_removed_total": [((), figures.compacted.lines)],
        "ureg_denials_total": [((), figures.denials)],
    }
    if figures.backup_age is not None:
        found["ureg_backup_age_seconds"] = [((), figures.backup_age)]
    if figures.stored is not None:
        slowest = figures.watches.slowest
        lag = 0 if slowest is None else max(0, figures.stored.revision - slowest)
        found["ureg_watch_lag_revisions"] = [((), lag)]
        found |= _stored(figures.stored)
    return found


def _stored(stored: Stored) -> dict[str, list[Sample]]:
    gauges, counters = stored.gauges, stored.gauges.counters
    totals: dict[str, float] = {
        "ureg_revision": stored.revision,
        "ureg_history_values_revision": stored.horizon.values,
        "ureg_history_lines_revision": stored.horizon.lines,
        "ureg_queue_depth": gauges.queue_depth,
        "ureg_webhooks_pending": gauges.webhooks_pending,
        "ureg_dead_deliveries": stored.dead,
        "ureg_deliveries_executed_total": counters.executed,
        "ureg_webhooks_delivered_total": counters.delivered,
        "ureg_webhooks_retried_total": counters.retried,
        "ureg_webhooks_failed_total": counters.failed,
        "ureg_stream_messages_total": counters.messages,
    }
    found: dict[str, list[Sample]] = {name: [((), value)] for name, value in totals.items()}
    if stored.consumers:
        found["ureg_consumer_lag_revisions"] = [((name,), lag) for name, lag in sorted(stored.consumers.items())]
    if stored.origins:
        found["ureg_origin_lag"] = [((node,), lag) for node, lag in sorted(stored.origins.items())]
    for peer in stored.peers:
        for name, value in _peer(peer):
            found.setdefault(name, []).append(((peer.peer,), value))
    for target in stored.targets:
        for name, labels, value in _target(target):
            found.setdefault(name, []).append((labels, value))
    return found


def _peer(figures: PeerFigures) -> Iterator[tuple[str, float]]:
    yield "ureg_peer_linked", figures.linked
    yield "ureg_peer_in_sync", figures.in_sync
    yield "ureg_peer_behind", figures.behind
    yield "ureg_peer_conflicts", figures.conflicts


def _target(figures: TargetFigures) -> Iterator[tuple[str, tuple[str, ...], float]]:
    target = (figures.target,)
    yield "ureg_target_lag_revisions", target, figures.lag_revisions
    yield "ureg_target_lag_seconds", target, figures.lag_seconds
    yield "ureg_target_oldest_pending_seconds", target, figures.oldest_seconds
    yield "ureg_target_in_flight", target, figures.in_flight
    yield "ureg_target_waiting", target, figures.waiting
    yield "ureg_target_dead", target, figures.dead
    yield "ureg_target_held", target, figures.held
    yield "ureg_target_delivered_total", target, figures.delivered
    for state in Breaker:
        yield "ureg_target_breaker", (*target, state.value), state.value == figures.breaker
