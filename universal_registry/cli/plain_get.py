"""The plain form of `ureg get`, read without click: its import takes longer than all the rest of such a command.

Whatever is not plain is left to click, which knows every option and says what is wrong. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence

from universal_registry.cli.getting import FORMS, Question

_VALUED = {"-o": "output", "--output": "output", "-n": "namespace", "--namespace": "namespace"}


def parse(words: Sequence[str]) -> Question | None:
    """What `get KIND [NAME] [-o FORM] [-n NAMESPACE]` asks; None for any other form."""
    operands: list[str] = []
    options: dict[str, str] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            operands += left
            break
        if word in _VALUED:
            if not left:
                return None
            options[_VALUED[word]] = left.pop(0)
        elif word.startswith("-") and word != "-":
            return None
        else:
            operands.append(word)
    if not 1 <= len(operands) <= 2 or options.get("output", FORMS[0]) not in FORMS:
        return None
    name = operands[1] if len(operands) > 1 else None
    return Question(operands[0], name, options.get("namespace"), options.get("output", FORMS[0]))
