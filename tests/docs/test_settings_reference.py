"""docs/reference/settings.md and metrics.md say what the code does."""

from __future__ import annotations

import re
from dataclasses import Field, fields
from pathlib import Path

import pytest

from universal_registry.environment import OTHER_VARIABLES, PREFIX
from universal_registry.kernel.settings import GROUPS as SETTING_GROUPS
from universal_registry.kernel.settings import Places, Settings
from universal_registry.observe.metrics import METRICS
from universal_registry.observe.prometheus import EXPOSED

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
SETTINGS = (REFERENCE / "settings.md").read_text(encoding="utf-8")
GROUPS = {prefix.rstrip("."): group for prefix, _, group in SETTING_GROUPS}
ROWS = re.findall(r"^\| `([a-z_.]+)` \| `(REGISTRY_\w+)` \| (.*?) \| (.*?) \| (.*) \|$", SETTINGS, re.MULTILINE)


def expected(prefix: str, item: Field) -> tuple[str, str, str, str, str]:
    low, high, default = item.metadata.get("low"), item.metadata.get("high"), item.default
    shown = (
        str(default).lower() if isinstance(default, bool) else f"{default:g}" if isinstance(default, float) else default
    )
    variable = "REGISTRY_" + (prefix + item.name).replace(".", "_").upper()
    return (
        prefix + item.name,
        variable,
        "" if default in (None, "") else f"`{shown}`",
        "" if low is None else f"{low:g} to {high:.10g}",
        item.metadata["doc"],
    )


def test_every_setting_is_documented_as_it_is_and_no_other() -> None:
    wanted = [expected("", item) for item in fields(Settings) if item.name not in ("home", *GROUPS, "database")]
    wanted += [expected(f"{name}.", item) for name, group in GROUPS.items() for item in fields(group)]
    found = [tuple(cell.strip() for cell in row) for row in ROWS if row[0] != "home"]
    assert found == wanted


def test_every_other_variable_is_documented() -> None:
    for name in OTHER_VARIABLES:
        assert f"`{PREFIX}{name}`" in SETTINGS


@pytest.mark.parametrize("place", [name for name in vars(Places) if isinstance(vars(Places)[name], property)])
def test_every_place_in_a_home_is_documented(place: str) -> None:
    assert f"`{getattr(Places(Path('/h')), place).relative_to('/h')}`" in SETTINGS


def test_every_metric_is_documented_as_it_is_and_no_other() -> None:
    text = (REFERENCE / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+\.[\w.]+)` \| (?:gauge|counter|time) \| (.*) \|$", text, re.MULTILINE)
    assert rows == list(METRICS.items())


def test_every_metric_for_prometheus_is_documented_as_it_is_and_no_other() -> None:
    text = (REFERENCE / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(ureg_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", text, re.MULTILINE)
    wanted = [
        (name, each.kind, ", ".join(f"`{label}`" for label in each.labels) or "\u2013", each.doc)
        for name, each in EXPOSED.items()
    ]
    assert rows == wanted
