"""`/metrics`, the alert rules and the board: they parse, they agree, and promtool accepts them where it is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from universal_registry.observe.figures import Figures, PeerFigures, Stored, TargetFigures
from universal_registry.observe.health import WorkerState
from universal_registry.observe.metrics import METRICS, Gauges
from universal_registry.observe.prometheus import EXPOSED, exposition
from universal_registry.propagation.lanes.lane import Counters
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Rejected
from universal_registry.propagation.lanes.outcome_counts import CLASSES, Tally, answer_class

FOLDER = files("universal_registry.observe") / "monitoring"
RULES = (FOLDER / "alerts.yml").read_text(encoding="utf-8")
BOARD = (FOLDER / "grafana.json").read_text(encoding="utf-8")
NAMED = re.compile(r"\b((?:ureg|process)_[a-z_]+)")
OF_PROCESS = {"process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"}


def failed(status: int | None) -> Failed:
    return Failed(reason="x", status=status, milliseconds=250.0)


def figures(**changed: Any) -> Figures:
    tally = Tally()
    for outcome in (Accepted(status=204, milliseconds=500.0), failed(503), failed(None)):
        tally.count(outcome)
    target = TargetFigures(
        target='system/a"b\\c', lag_revisions=7, lag_seconds=12.5, oldest_seconds=3.0, breaker="half-open", held=True,
        waiting=4, dead=2, delivered=90,
    )  # fmt: skip
    counters = Counters(executed=15, delivered=45, retried=3, failed=1, messages=128)
    gauges = Gauges(db=True, queue_depth=3, webhooks_pending=2, counters=counters)
    peer = PeerFigures(peer="laptop", linked=True, in_sync=False, behind=9, conflicts=1)
    stored = Stored(
        gauges=gauges, revision=936, dead=2, targets=(target,), consumers={"audit": 12}, peers=(peer,),
        origins={"laptop": 4},
    )  # fmt: skip
    worker = WorkerState(name="webhook", running=True, stuck=False, deaths=3, silent=0.1, last_error="x")
    said: dict[str, Any] = {
        "store": "sqlite", "db": True, "ready": True, "stored": stored, "tally": tally, "workers": [worker],
        "denials": 5, "backup_age": 90.0,
    }  # fmt: skip
    return Figures(**{**said, **changed})


def values(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in parse(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_every_metric_is_there_with_its_kind_and_meaning() -> None:
    body, content_type = exposition(figures(), "text/plain")
    assert content_type.startswith("text/plain; version=")
    families = {family.name: family for family in parse(body.decode())}
    for name, exposed in EXPOSED.items():
        family = families[name.removesuffix("_total")]
        assert (family.type, family.documentation) == (exposed.kind, exposed.doc)
        assert all(set(sample.labels) == set(exposed.labels) for sample in family.samples if sample.name == name)
        assert (exposed.kind == "counter") == name.endswith("_total")
    ours = {name for name in families if name.startswith("ureg_")}
    assert ours == {name.removesuffix("_total") for name in EXPOSED}


def test_the_values_are_those_of_the_figures() -> None:
    found = values(exposition(figures(), "")[0].decode())
    target = ('system/a"b\\c',)
    assert found["ureg_queue_depth"] == {(): 3}
    assert found["ureg_webhooks_delivered_total"] == {(): 45}
    assert found["ureg_target_lag_seconds"] == {target: 12.5}
    breaker = {"closed": 0, "open": 0, "half-open": 1}
    assert found["ureg_target_breaker"] == {(state, *target): value for state, value in breaker.items()}
    assert found["ureg_attempts_total"] == {(each,): float(each in ("2xx", "5xx", "none")) for each in CLASSES}
    assert found["ureg_attempt_seconds_total"] == {(): 1.0}
    assert found["ureg_worker_deaths_total"] == {("webhook",): 3}
    assert found["ureg_denials_total"] == {(): 5}
    assert found["ureg_backup_age_seconds"] == {(): 90.0}
    none = values(exposition(figures(backup_age=None), "")[0].decode())
    assert "ureg_backup_age_seconds" not in none
    assert (found["ureg_peer_linked"], found["ureg_peer_in_sync"]) == ({("laptop",): 1}, {("laptop",): 0})
    assert (found["ureg_peer_behind"], found["ureg_peer_conflicts"]) == ({("laptop",): 9}, {("laptop",): 1})
    assert found["ureg_origin_lag"] == {("laptop",): 4}
    assert found.keys() >= OF_PROCESS


def test_the_keys_of_the_file_stand_there_under_proper_names() -> None:
    found = values(exposition(figures(), "")[0].decode())
    file = {
        "health.db": "ureg_health_db",
        "health.queue_depth": "ureg_queue_depth",
        "health.webhooks_pending": "ureg_webhooks_pending",
        "propagation.executed": "ureg_deliveries_executed_total",
        "webhook.delivered": "ureg_webhooks_delivered_total",
        "webhook.retry": "ureg_webhooks_retried_total",
        "webhook.failed": "ureg_webhooks_failed_total",
        "stream.messages": "ureg_stream_messages_total",
    }
    assert file.keys() == METRICS.keys() - {"metrics.updated_at"}
    assert [found[name][()] for name in file.values()] == [1, 3, 2, 15, 45, 3, 1, 128]


def test_without_a_database_the_rest_is_still_told() -> None:
    found = values(exposition(figures(stored=None, db=False, ready=False), "")[0].decode())
    assert found["ureg_health_db"] == {(): 0}
    assert found["ureg_worker_up"] == {("webhook",): 1}
    assert "ureg_queue_depth" not in found
    assert "ureg_target_held" not in found


def test_a_scraper_that_asks_for_openmetrics_gets_it() -> None:
    body, content_type = exposition(figures(), "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(body.decode())}
    assert {name.removesuffix("_total") for name in EXPOSED} <= names


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (Accepted(status=200, milliseconds=0.0), "2xx"),
        (Rejected(reason="x", status=422, milliseconds=0.0), "rejected"),
        *[
            (failed(status), word)
            for status, word in (
                (301, "3xx"), (404, "4xx"), (410, "410"), (429, "429"), (500, "5xx"), (None, "none"), (99, "none"),
            )
        ],
    ],
)  # fmt: skip
def test_every_outcome_has_a_class(outcome: Any, word: str) -> None:
    assert answer_class(outcome) == word
    assert word in CLASSES


# --- rules and board ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [RULES, BOARD], ids=["rules", "board"])
def test_each_metric_named_is_one_that_there_is(text: str) -> None:
    named = set(NAMED.findall(text))
    assert named
    assert named - EXPOSED.keys() - OF_PROCESS == set()


def test_the_board_is_one_that_can_be_imported() -> None:
    board = json.loads(BOARD)
    assert {"title", "uid", "panels", "templating", "schemaVersion"} <= board.keys()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["description"]
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    return found


def run(*words: str, given: bytes = b"") -> str:
    done = subprocess.run(words, input=given, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return (done.stdout + done.stderr).decode()


def test_promtool_accepts_the_metrics(promtool: str) -> None:
    assert run(promtool, "check", "metrics", given=exposition(figures(), "")[0]) == ""


def test_promtool_accepts_the_rules_and_they_fire(promtool: str, tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(RULES, encoding="utf-8")
    assert "12 rules found" in run(promtool, "check", "rules", str(tmp_path / "alerts.yml"))
    cases = Path(__file__).with_name("alerts_cases.yml").read_text(encoding="utf-8")
    (tmp_path / "cases.yml").write_text(cases, encoding="utf-8")
    assert "SUCCESS" in run(promtool, "test", "rules", str(tmp_path / "cases.yml"))


def test_each_rule_has_a_case_in_which_it_fires() -> None:
    cases = Path(__file__).with_name("alerts_cases.yml").read_text(encoding="utf-8")
    rules = re.findall(r"- alert: (\w+)", RULES)
    assert len(rules) == len(set(rules)) == 12
    assert set(re.findall(r"alertname: (\w+)", cases)) == set(rules)
