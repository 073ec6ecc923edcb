"""docs/reference/doctor.md names each check, as it says itself."""

from __future__ import annotations

import re
from pathlib import Path

from universal_registry.care.doctor import CHECKS

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "doctor.md").read_text(encoding="utf-8")


def test_every_check_is_documented_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z/-]+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [(f"{each.group}/{each.name}", " ".join((each.look.__doc__ or "").split())) for each in CHECKS]
