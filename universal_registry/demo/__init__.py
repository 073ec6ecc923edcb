"""The demonstration: this machine's records, delivered to five real receivers, through failures and a kill."""

from __future__ import annotations

from universal_registry.demo.script import Demo, run

__all__ = ["Demo", "run"]
