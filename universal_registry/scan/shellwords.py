"""Where a word of shell source ends, and what it says: quotes, escapes, expansions. The lower half of `shellparse`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from universal_registry.kernel.errors import Malformed

_DEPTH = 48
_ARITHMETIC = 4096  # characters of one ((...)); a bound, so that a file of parentheses does not take for ever
_PARENTHESES = 8  # and of its depth
_NEAR = 256
_PLAIN = re.compile(r"[^\s;&|<>(){}'\"\\$`]+")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "v": "\v"}


def unfinished(what: str, position: int) -> Malformed:
    """The source ends inside something, or nests too deeply; `data["position"]` is where that began."""
    return Malformed(what, position=position)


class Words(ABC):
    """A position in shell source that moves over one word at a time."""

    def __init__(self, text: str, zsh: bool) -> None:
        self.text = text
        self.zsh = zsh
        self.at = 0
        self.depth = 0
        self.heredocs: list[tuple[str, bool]] = []
        self._in_double = False

    @abstractmethod
    def commands(self, closer: str, *, report: bool = True) -> int:
        """Moves over a list of commands; returns where `closer` stands, with `at` behind it."""

    def deeper(self) -> None:
        """One more level of nesting; raises Malformed when that is too many."""
        self.depth += 1
        if self.depth > _DEPTH:
            raise unfinished("nested too deeply", self.at)

    def skip_word(self) -> str:
        """Moves over one word; returns its source text. In zsh, a `}` that nothing in the word opened ends it."""
        start, text, braces = self.at, self.text, 0
        while self.at < len(text):
            char = text[self.at]
            if char in "<>" and self.text.startswith("(", self.at + 1):
                self.at += 1
                self.group()
            elif char in " \t\r\f\v\n;&|<>)" or (char == "(" and not self._goes_on(start)):
                break
            elif char == "(":
                self.group()
            elif self.zsh and char in "{}":
                braces += 1 if char == "{" else -1
                if braces < 0:
                    break
                self.at += 1
            elif not self._quoted(char):
                plain = _PLAIN.match(text, self.at)
                self.at = plain.end() if plain else self.at + 1
        if self.at == start:
            self.at += 1  # never stand still
        return text[start : self.at]

    def _goes_on(self, start: int) -> bool:
        """Whether a `(` belongs to the word: an array assignment, or a pattern such as `@(a|b)`."""
        if self.at == start:
            return False
        before = self.text[self.at - 1]
        expands = self.text.find("$", max(start, self.at - _NEAR), self.at) >= 0
        return before in "@?*+!=" or (self.zsh and before in "/^~])") or expands

    def group(self) -> None:
        """Moves over a parenthesis that holds words or patterns, not commands."""
        start, depth = self.at, 0
        while self.at < len(self.text):
            char = self.text[self.at]
            if not self._quoted(char):
                self.at += 1
                depth += {"(": 1, ")": -1}.get(char, 0)
                if not depth:
                    return
        raise unfinished("'(' is not closed", start)

    def _quoted(self, char: str) -> bool:
        """Moves over a quotation, an escape or an expansion that begins here; False when none does."""
        if char == "\\":
            self.at = min(self.at + 2, len(self.text))
        elif char == "'":
            self._until("'", "a ' is not closed", 1)
        elif char == '"':
            self._double()
        elif char == "`":
            self._escaped("`", "a ` is not closed", 1)
        elif char == "$":
            self._dollar()
        else:
            return False
        return True

    def _until(self, closer: str, what: str, skip: int) -> None:
        end = self.text.find(closer, self.at + skip)
        if end < 0:
            raise unfinished(what, self.at)
        self.at = end + 1

    def _escaped(self, closer: str, what: str, skip: int) -> None:
        pattern = re.compile(rf"(?:[^\\{closer}]|\\.)*+{closer}", re.DOTALL)
        match = pattern.match(self.text, self.at + skip)
        if not match:
            raise unfinished(what, self.at)
        self.at = match.end()

    def _double(self) -> None:
        start, outside = self.at, self._in_double
        self._in_double = True
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                self._in_double = outside
                return
            if char not in "\\`$" or self.text.startswith("$'", self.at) or not self._quoted(char):
                self.at += 1
        raise unfinished('a " is not closed', start)

    def _dollar(self) -> None:
        following = self.text[self.at + 1 : self.at + 2]
        if following == "'":
            self._escaped("'", "a $' is not closed", 2)
        elif following == "(":
            self._substitution()
        elif following == "{":
            self._parameter()
        else:
            self.at += 2 if following == "#" else 1

    def _substitution(self) -> None:
        self.at += 2
        if self.text.startswith("(", self.at) and (end := self.arithmetic()) >= 0:
            self.at = end
            return
        waiting, self.heredocs = self.heredocs, []
        outside, self._in_double = self._in_double, False
        self.commands(")", report=False)
        self.heredocs, self._in_double = waiting, outside

    def _parameter(self) -> None:
        start = self.at
        self.deeper()
        self.at += 2
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "}":
                self.at += 1
                self.depth -= 1
                return
            if (char == "'" and self._in_double) or not self._quoted(char):
                self.at += 1
        raise unfinished("'${' is not closed", start)

    def arithmetic(self) -> int:
        """The end of `((...))` that began one character before, or -1 when these are two subshells."""
        depth, position = 1, self.at
        end = min(len(self.text), position + _ARITHMETIC)
        while 0 < depth <= _PARENTHESES and position < end and self.text[position] not in "'\"`\n":
            depth += {"(": 1, ")": -1}.get(self.text[position], 0)
            position += 1
        return position if not depth and self.text[position - 2] == ")" else -1

    def value(self) -> str:
        """The word that the text is, with its quotes undone.

        Expansions stay as they are written, with the quotes inside them: they happen when the alias is used.
        """
        parts: list[str] = []
        while self.at < len(self.text):
            self._in_double = False
            start, char = self.at, self.text[self.at]
            if char == '"':
                self.at += 1
                self._double_value(parts)
            elif char == "\\":
                self.at += 2
                parts.append("" if self.text.startswith("\\\n", start) else self.text[start + 1 : start + 2])
            elif self._quoted(char):
                raw = self.text[start : self.at]
                parts.append(_literal(raw))
            else:
                plain = _PLAIN.match(self.text, start)
                self.at = plain.end() if plain else start + 1
                parts.append(self.text[start : self.at])
        return "".join(parts)

    def _double_value(self, parts: list[str]) -> None:
        self._in_double = True
        while self.at < len(self.text) and self.text[self.at] != '"':
            start, char = self.at, self.text[self.at]
            if char == "\\":
                self.at += 2
                following = self.text[start + 1 : start + 2]
                parts.append("" if following == "\n" else following if following in '$`"\\' else char + following)
                continue
            if char not in "$`" or self.text.startswith("$'", start) or not self._quoted(char):
                self.at += 1
            parts.append(self.text[start : self.at])
        self.at += 1


def _literal(raw: str) -> str:
    """What a quotation says; an expansion stays as it is."""
    if raw.startswith("'"):
        return raw[1:-1]
    if raw.startswith("$'"):
        return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), raw[2:-1], flags=re.DOTALL)
    return raw
