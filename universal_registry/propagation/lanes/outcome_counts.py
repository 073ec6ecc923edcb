"""How attempts ended, counted by class of answer since the process began."""

from __future__ import annotations

from collections import Counter

from universal_registry.propagation.lanes.outcome import Accepted, Outcome, Rejected

NO_ANSWER = "none"
CLASSES = ("2xx", "3xx", "4xx", "410", "429", "5xx", "rejected", NO_ANSWER)
"""`4xx` without those with a word of their own; `rejected`: the payload is at fault; `none`: there was no answer."""

_OWN = {410: "410", 429: "429"}


def answer_class(outcome: Outcome) -> str:
    """The class of an outcome, one of CLASSES."""
    if isinstance(outcome, Accepted):
        return "2xx"
    if isinstance(outcome, Rejected):
        return "rejected"
    if outcome.status is None or not 200 <= outcome.status < 600:
        return NO_ANSWER
    return _OWN.get(outcome.status, f"{outcome.status // 100}xx")


class Tally:
    """The counts. `seconds`: all that attempts have taken, together. `under_way`: attempts that have not ended."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.seconds = 0.0
        self.under_way = 0

    def count(self, outcome: Outcome) -> None:
        """One more has ended so."""
        self.ended[answer_class(outcome)] += 1
        self.seconds += outcome.milliseconds / 1000
