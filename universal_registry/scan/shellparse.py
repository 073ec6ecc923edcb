"""Reads aliases and functions out of shell source, without running any of it.

A scanner of words and operators that follows what changes the meaning of a brace, a parenthesis or a line: quotes,
escapes, comments, here-documents, `$(...)`, `${...}`, backquotes and `case` patterns, for sh, bash and zsh. What can
only be known by running the source (a name with `$` in it, an alias made by `eval`) is reported, never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from universal_registry.kernel.errors import Malformed
from universal_registry.scan.shellwords import Words, unfinished

# A word that puts the next one in command position again.
_LEADERS = frozenset(["!", "if", "then", "elif", "else", "while", "until", "do", "time", "{"])
_PREFIXES = frozenset({"builtin", "command", "noglob", "nocorrect"})
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_OPERATORS = re.compile(
    r";;&|;;|;&|;\||;|&&|&>>|&>\||&>|&\||&!|&|\|\||\|&|\||<<<|<<-|<<|<&|<>|<|>>|>&|>\||>!|>|\(|\)|\n"
)
_HEREDOCS = ("<<", "<<-")
_REDIRECTIONS = re.compile(r"&?[<>]")
_BLANKS = " \t\r\f\v"
_FUNCTION_NAME = re.compile(r"[^\s$`'\"\\=;&|<>(){}]+")


@dataclass(frozen=True, slots=True)
class AliasDefinition:
    """`alias [-g|-s] name=command`, quotes undone."""

    name: str
    command: str
    line: int
    is_global: bool = False
    is_suffix: bool = False


@dataclass(frozen=True, slots=True)
class FunctionDefinition:
    """A function with the source text between its braces."""

    name: str
    body: str
    line: int


@dataclass(slots=True)
class ShellFile:
    """What a file defines, in order; `notes` are (line, what was not taken)."""

    aliases: list[AliasDefinition] = field(default_factory=list)
    functions: list[FunctionDefinition] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)


def parse(text: str, *, zsh: bool) -> ShellFile:
    """Every alias and function that the source defines outside of other functions. Never raises.

    `zsh` decides whether a lone `}` closes a block anywhere (zsh) or only where a command may stand (sh, bash).
    """
    scanner = _Scanner(text, zsh)
    try:
        scanner.commands("")
    except Malformed as stopped:
        line = scanner.line_of(stopped.data["position"])
        scanner.result.notes.append((line, f"{stopped.message}; the rest of the file is not read"))
    return scanner.result


@dataclass(slots=True)
class _Block:
    """A list of commands being read: what opened inside it, and what the next word would be."""

    closer: str
    report: bool
    open: list[str] = field(default_factory=list)  # of "{", "(", "case-word", "case-pattern", "case-body"
    opened: list[int] = field(default_factory=list)  # where each of them began
    at_command: bool = True
    words: list[tuple[str, int]] = field(default_factory=list)  # the simple command so far: raw text, position

    def push(self, what: str, position: int) -> None:
        """Something opens that a later word or operator closes; a command follows."""
        self.open.append(what)
        self.opened.append(position)
        self.at_command = True

    def pop(self) -> None:
        """It is closed."""
        self.open.pop()
        self.opened.pop()
        self.at_command = False


class _Scanner(Words):
    def __init__(self, text: str, zsh: bool) -> None:
        super().__init__(text, zsh)
        self.result = ShellFile()
        self._lines = [match.start() for match in re.finditer("\n", text)]

    def line_of(self, position: int) -> int:
        """The line of a position, counted from 1."""
        low, high = 0, len(self._lines)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._lines[middle] < position else (low, middle)
        return low + 1

    # --- lists of commands ------------------------------------------------------------------------------------------

    def commands(self, closer: str, *, report: bool = True) -> int:
        """Reads until `closer` stands alone (or the end for ""). Returns where it stands; `at` is behind it."""
        self.deeper()
        start, block = self.at, _Block(closer, report)
        while True:
            self._blanks()
            if self.at >= len(self.text):
                if closer or block.open:
                    what = (block.open[-1] if block.open else closer).partition("-")[0]
                    raise unfinished(f"{what!r} is not closed", block.opened[-1] if block.open else start)
                self._end(block)
                self.depth -= 1
                return self.at
            position = self.at
            if (operator := _OPERATORS.match(self.text, position)) and not self._is_process(operator[0]):
                done = self._operator(block, operator[0])
            else:
                done = self._word(block)
            if done:
                self.depth -= 1
                return position

    def _blanks(self) -> None:
        text, length = self.text, len(self.text)
        while self.at < length:
            if text[self.at] in _BLANKS:
                self.at += 1
            elif text.startswith("\\\n", self.at):
                self.at += 2
            elif text[self.at] == "#":
                end = text.find("\n", self.at)
                self.at = length if end < 0 else end
            else:
                return

    def _is_process(self, operator: str) -> bool:
        return operator in "<>" and self.text.startswith("(", self.at + 1)

    def _operator(self, block: _Block, operator: str) -> bool:
        """One operator. True when it closes the block."""
        self.at += len(operator)
        if operator == "(":
            return self._parenthesis(block)
        if operator == ")":
            self._end(block)
            return self._close_parenthesis(block)
        if _REDIRECTIONS.match(operator):
            self._redirect(operator)
            return False
        self._end(block)
        if operator == "\n":
            self._bodies()
        if operator in (";;", ";&", ";;&", ";|") and block.open and block.open[-1] == "case-body":
            block.open[-1] = "case-pattern"
        return False

    def _parenthesis(self, block: _Block) -> bool:
        opened = self.at - 1
        if block.open and block.open[-1] == "case-pattern":
            return False
        name = [word for word in block.words if word[0] != "function"] if len(block.words) <= 2 else []
        if len(name) == 1 and re.compile(r"\s*\)").match(self.text, self.at):
            self.at = self.text.index(")", self.at) + 1
            self._function(block, *name[0])
        elif self.text.startswith("(", self.at) and block.at_command and (end := self.arithmetic()) >= 0:
            self.at = end
        elif block.words and not block.at_command:
            self.at = opened  # an array, or a glob qualifier of zsh
            self.group()
        else:
            block.push("(", opened)
        return False

    def _close_parenthesis(self, block: _Block) -> bool:
        top = block.open[-1] if block.open else ""
        if top == "case-pattern":
            block.open[-1] = "case-body"
        elif top == "(":
            block.pop()
        elif not block.open and block.closer == ")":
            return True
        return False

    def _redirect(self, operator: str) -> None:
        self._blanks()
        start = self.at
        if start < len(self.text) and (self.text[start] not in ";&|<>()\n" or self._is_process(self.text[start])):
            raw = self.skip_word()
            if operator in _HEREDOCS:
                self.heredocs.append((self._value(raw), operator == "<<-"))

    def _bodies(self) -> None:
        """Skips the here-documents that were announced on the line that ends here."""
        for delimiter, strips in self.heredocs:
            begun = self.at
            while True:
                if self.at >= len(self.text):
                    raise unfinished(f"here-document {delimiter[:40]!r} is not closed", max(begun - 1, 0))
                end = self.text.find("\n", self.at)
                end = len(self.text) if end < 0 else end
                line = self.text[self.at : end]
                self.at = min(end + 1, len(self.text))
                if (line.lstrip("\t") if strips else line) == delimiter:
                    break
        self.heredocs = []

    # --- words ------------------------------------------------------------------------------------------------------

    def _word(self, block: _Block) -> bool:
        """One word. True when it is the `}` that closes the block."""
        position = self.at
        raw = self._brace(block) or self.skip_word()
        top = block.open[-1] if block.open else ""
        if top == "case-word":
            if raw == "in":
                block.open[-1] = "case-pattern"
            return False
        if top == "case-pattern":
            if raw == "esac":
                block.pop()
            return False
        if raw == "}" and (block.at_command or self.zsh) and (top == "{" or (not block.open and block.closer == "}")):
            self._end(block)
            if top != "{":
                return True
            block.pop()
            return False
        if self.zsh and raw == "{" and not block.at_command:  # `if [[ x ]] {`
            self._end(block)
            block.push("{", position)
            return False
        if block.at_command and not block.words and self._reserved(block, raw, top, position):
            return False
        block.words.append((raw, position))
        block.at_command = block.at_command and (_ASSIGNMENT.match(raw) is not None or raw in _PREFIXES)
        return self._function_word(block)

    def _brace(self, block: _Block) -> str:
        """`{` where a command may stand: in zsh, no blank need follow it."""
        if not (self.zsh and block.at_command and not block.words and self.text.startswith("{", self.at)):
            return ""
        self.at += 1
        return "{"

    def _reserved(self, block: _Block, raw: str, top: str, position: int) -> bool:
        if raw == "case":
            block.push("case-word", position)
        elif raw == "esac" and top == "case-body":
            block.pop()
        elif raw == "[[":
            self._test()
            block.at_command = False
        elif raw == "{":
            block.push("{", position)
        elif raw not in _LEADERS:
            return False
        return True

    def _test(self) -> None:
        """Skips to the `]]`: parentheses and `<` mean something else in between."""
        start = self.at
        while self.at < len(self.text):
            self._blanks()
            if self.text[self.at : self.at + 1] in ("(", ")", "|", "&", "<", ">", ";", "\n"):
                self.at += 1
            elif self.at < len(self.text) and self.skip_word() == "]]":
                return
        raise unfinished("'[[' is not closed", start)

    def _function_word(self, block: _Block) -> bool:
        """`function name {`: the head without parentheses ends where its brace begins."""
        if len(block.words) == 2 and block.words[0][0] == "function":
            self._blanks()
            if not re.compile(r"\(\s*\)").match(self.text, self.at):
                self._function(block, *block.words[1])
        elif len(block.words) == 1 and block.words[0][0] == "function":
            self._blanks()
            if self.zsh and self.text.startswith("{", self.at):  # an anonymous function runs at once
                block.words.clear()
                block.at_command = True
        return False

    def _function(self, block: _Block, raw: str, position: int) -> None:
        """The body behind a head. What is defined inside it is not there until it runs, so it is not reported."""
        block.words.clear()
        while True:
            self._blanks()
            if not self.text.startswith("\n", self.at):
                break
            self.at += 1
            self._bodies()
        opened = self.at
        if re.compile(r"\{(?=\s)" if not self.zsh else r"\{").match(self.text, opened):
            self.at += 1
            body = self.text[opened + 1 : self.commands("}", report=False)].strip()
        elif self.text.startswith("(", opened):
            self.at += 1
            body = self.text[opened : self.commands(")", report=False) + 1]
        else:
            block.at_command = True
            self._note(block, position, f"function {raw[:60]!r} has a body without braces")
            return
        block.at_command = False
        name = self._value(raw)
        if not _FUNCTION_NAME.fullmatch(name) or re.search(r"[$`]", raw):
            self._note(block, position, f"function {raw[:60]!r} has a name that is only known when it runs")
        elif block.report:
            self.result.functions.append(FunctionDefinition(name, body, self.line_of(position)))

    def _value(self, raw: str) -> str:
        return _Scanner(raw, self.zsh).value()

    def _note(self, block: _Block, position: int, text: str) -> None:
        if block.report:
            self.result.notes.append((self.line_of(position), text))

    def _end(self, block: _Block) -> None:
        """A simple command is complete."""
        words = [word for word in block.words if not _ASSIGNMENT.match(word[0]) or word is not block.words[0]]
        while words and words[0][0] in _PREFIXES:
            del words[0]
        if block.report and words and re.sub(r"['\"\\]", "", words[0][0]) == "alias":
            self._alias(block, words[1:])
        block.words.clear()
        block.at_command = True

    def _alias(self, block: _Block, words: list[tuple[str, int]]) -> None:
        flags = ""
        while words and re.fullmatch(r"[-+][A-Za-z]*-?", words[0][0]):
            flag = words.pop(0)[0]
            if flag == "--":
                break
            flags += flag if flag[0] == "-" else ""
        for raw, position in words:
            name, equals, command = self._value(raw).partition("=")
            if not equals:
                continue  # only asks what the alias is
            if not name or _is_dynamic(_head_of(raw)):
                self._note(block, position, f"alias {_head_of(raw)[:60]!r} has a name that is only known when it runs")
                continue
            line = self.line_of(position)
            self.result.aliases.append(AliasDefinition(name, command, line, "g" in flags, "s" in flags))


def _is_dynamic(head: str) -> bool:
    return re.search("[$`]", head) is not None and not re.search(r"['\\]", head)


def _head_of(raw: str) -> str:
    """The part of an alias word before its value, which may be private."""
    return raw.partition("=")[0]
