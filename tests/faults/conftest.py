"""Lets the tests here import `killing.py`, `pressure.py` and `judging.py`, which `scripts/kill_test.py` uses too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
