from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from universal_registry.kernel.errors import ReadOnlyStore
from universal_registry.observe.metrics import METRICS, Gauges, render, write
from universal_registry.propagation.lanes.lane import Counters

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
GAUGES = Gauges(
    db=True,
    queue_depth=3,
    webhooks_pending=2,
    counters=Counters(executed=15, delivered=45, retried=3, failed=1, messages=128),
)


def test_the_file_is_that_of_the_seed() -> None:
    assert render(GAUGES, AT) == (
        "health.db=1\n"
        "health.queue_depth=3\n"
        "health.webhooks_pending=2\n"
        "propagation.executed=15\n"
        "webhook.delivered=45\n"
        "webhook.retry=3\n"
        "webhook.failed=1\n"
        "stream.messages=128\n"
        "metrics.updated_at=2026-01-02T03:04:05.678Z\n"
    )


def test_a_database_that_is_gone_shows_and_counters_stay() -> None:
    lines = render(GAUGES.down(), AT).splitlines()
    assert lines[0] == "health.db=0"
    assert lines[1:] == render(GAUGES, AT).splitlines()[1:]


def test_every_line_can_be_read_by_a_shell() -> None:
    for line in render(GAUGES, AT).splitlines():
        key, equals, value = line.partition("=")
        assert equals
        assert key in METRICS
        assert value
        assert " " not in line


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "registry.metrics"
    write(path, GAUGES, AT)
    seen: set[int] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(len(path.read_text(encoding="utf-8").splitlines()))

    reader = threading.Thread(target=read)
    reader.start()
    for second in range(300):
        write(path, GAUGES, AT + timedelta(seconds=second))
    done.set()
    reader.join()
    assert seen == {len(METRICS)}
    assert [each.name for each in tmp_path.iterdir()] == ["registry.metrics"]


def test_a_folder_that_is_gone_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ReadOnlyStore, match=r"registry\.metrics cannot be written"):
        write(tmp_path / "gone" / "registry.metrics", GAUGES, AT)


def test_a_name_that_is_taken_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "registry.metrics"
    path.mkdir()
    (path / "x").touch()
    with pytest.raises(ReadOnlyStore):
        write(path, GAUGES, AT)
    assert [each.name for each in tmp_path.iterdir()] == ["registry.metrics"]
