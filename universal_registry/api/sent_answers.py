"""Answers that may be sent again as they are: of records, while nothing has been written since they were read. Pure."""

from __future__ import annotations

from universal_registry.api.dispatch import Admitted
from universal_registry.api.http import Request
from universal_registry.api.shell_answers import shell_type

MOST_ANSWERS = 2048
MOST_BYTES = 4096


class SentAnswers:
    """At most MOST_ANSWERS, none beyond MOST_BYTES. Each holds for one state of the store and for the second that its
    Date says: so what others do to the file of a store that is this process's alone shows as soon."""

    def __init__(self) -> None:
        self._answers: dict[str, bytes] = {}
        self._state: int | None = None
        self._date = ""

    def get(self, path: str, state: int | None, date: str) -> bytes | None:
        """What was answered in this state and second. `state` None: it cannot be told whether it would be the same."""
        if state is None or state != self._state or date != self._date:
            return None
        return self._answers.get(path)

    def keep(self, path: str, answer: bytes, state: int, date: str) -> None:
        """It was made from what the store held in that state."""
        if state != self._state or date != self._date:
            self._answers.clear()
            self._state, self._date = state, date
        if len(answer) <= MOST_BYTES and len(self._answers) < MOST_ANSWERS:
            self._answers[path] = answer


def may_be_sent_again(request: Request, admitted: Admitted) -> bool:
    """Whether the answer depends on nothing but the path and the records. On who asks it does not: he is admitted."""
    if admitted.match.route.answer != "record" or request.query or request.body:
        return False
    return "if-none-match" not in request.headers and not shell_type(request)
