"""Templates of webhook bodies: a small part of Jinja that reads data and nothing else, in bounded time and space.

Jinja's sandbox keeps a template from Python. What it does not bound (products of strings, nested loops, values that
double) is not in the part of the language that is taken here: output, `if`, `for`, comparisons, and the filters below,
with constant arguments. Names lead to data only, never to methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, nodes, pass_context
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import SandboxedEnvironment

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.kernel.world import World

MOST_SOURCE = 16 << 10
MOST_TEXT = 256 << 10
MOST_TURNS = 10_000
MOST_SECONDS = 0.5
_MOST_FILTERS = 4
_MOST_ARGUMENT = 100
FILTERS = frozenset(
    {"tojson", "default", "upper", "lower", "title", "capitalize", "trim", "string", "int", "float", "abs", "round"}
    | {"length", "first", "last", "join", "sort", "truncate", "urlencode", "escape"}
)
_GROWING = frozenset({"tojson", "urlencode", "escape"})
_TESTS = frozenset({"defined", "undefined", "none", "string", "number", "mapping", "sequence", "boolean"})
_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.CondExpr,
    nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand,
    nodes.And, nodes.Or, nodes.Not, nodes.Tuple, nodes.List, nodes.Neg,
)  # fmt: skip
_LOOP = frozenset({"index", "index0", "first", "last", "length"})
_TURNS = "turns of loops"


class _Environment(SandboxedEnvironment):
    """Names and subscripts read objects and arrays of JSON, and nothing of the values that stand for them."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A field of an object; of `loop`, where it stands."""
        if isinstance(obj, LoopContext) and attribute in _LOOP:
            return getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """A field, or an item by its place."""
        if isinstance(obj, dict) and argument in obj:
            return obj[argument]
        if isinstance(obj, list) and isinstance(argument, int) and -len(obj) <= argument < len(obj):
            return obj[argument]
        return self.undefined(obj=obj, name=argument)


def _text(value: Any) -> Any:
    """How a value stands in the text: texts and numbers as they are, all else as JSON."""
    return canonical(value).decode() if isinstance(value, dict | list | bool) or value is None else value


class _Budget:
    """What one expansion may still do."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._turns = MOST_TURNS
        self._until = world.monotonic() + MOST_SECONDS

    def turn(self) -> None:
        """One more turn of a loop. Raises Invalid."""
        self._turns -= 1
        if self._turns < 0:
            raise Invalid(f"the template's loops make more than {MOST_TURNS} turns")
        self.look()

    def look(self) -> None:
        """Raises Invalid when the time is up."""
        if self._world.monotonic() > self._until:
            raise Invalid(f"the template takes longer than {MOST_SECONDS:g} s")


def check_template(source: str) -> None:
    """Raises Invalid, naming the line, for a template that cannot be used."""
    _compiled(source)


def expand(source: str, names: dict[str, Any], world: World) -> str:
    """The text. Raises Invalid for an event that the template does not fit: a missing field, too long, too slow."""
    budget = _Budget(world)
    pieces: list[str] = []
    size = 0
    try:
        for piece in _compiled(source).generate({**names, _TURNS: budget}):
            size += len(piece)
            if size > MOST_TEXT:
                raise Invalid(f"the template makes more than {MOST_TEXT >> 10} KiB of it")
            pieces.append(piece)
            budget.look()
        text = "".join(pieces)
        text.encode()
    except TemplateError as error:
        raise Invalid(f"the template does not fit this event: {error.message}") from None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise Invalid(f"the template does not fit this event: {error}") from None
    return text


@pass_context
def _walked(context: Context, items: Any) -> Iterator[Any]:
    """What stands after `in`: an array item by item, an object by its names, with the turns counted."""
    if not isinstance(items, list | dict | tuple):
        raise Invalid(f"the template walks over {type(items).__name__}, not over an array or an object")
    budget = context.resolve(_TURNS)
    found: Iterable[Any] = items
    for item in found:
        budget.turn()
        yield item


def _environment() -> _Environment:
    made = _Environment(undefined=StrictUndefined, autoescape=False, finalize=_text)
    made.filters = {name: made.filters[name] for name in FILTERS} | {_TURNS: _walked}
    made.tests = {name: made.tests[name] for name in _TESTS}
    made.globals = {}
    return made


@lru_cache(maxsize=256)
def _compiled(source: str) -> Any:
    if not source:
        raise Invalid("format template needs a template", hint="--template @FILE")
    if len(source.encode(errors="replace")) > MOST_SOURCE:
        raise Invalid(f"the template is longer than {MOST_SOURCE >> 10} KiB")
    environment = _environment()
    try:
        tree = environment.parse(source)
        _check(tree)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, _TURNS, [], [], None, None, lineno=loop.lineno)
        return environment.from_string(tree)
    except TemplateSyntaxError as error:
        raise Invalid(f"the template, line {error.lineno}: {error.message}") from None
    except (RecursionError, MemoryError, UnicodeError):
        raise Invalid("the template is nested too deeply, or is no UTF-8") from None


def _check(tree: nodes.Template) -> None:
    """Raises TemplateSyntaxError for whatever is not in our part of the language."""
    for node in tree.find_all(nodes.Node):
        if not isinstance(node, _NODES):
            what = type(node).__name__.lower()
            raise TemplateSyntaxError(f"{what} is not for templates here; {_LANGUAGE}", node.lineno)
        if isinstance(node, nodes.For) and node.recursive:
            raise TemplateSyntaxError("recursive loops are not for templates here", node.lineno)
        if isinstance(node, nodes.Name) and (node.name in ("self", "super") or node.name.startswith("_")):
            raise TemplateSyntaxError(f"{node.name!r} is not for templates here", node.lineno)
        if isinstance(node, nodes.Filter):
            _check_filter(node)
        if isinstance(node, nodes.Test) and (node.name not in _TESTS or node.args or node.kwargs):
            raise TemplateSyntaxError(f"there is no test {node.name!r}; {', '.join(sorted(_TESTS))}", node.lineno)


_LANGUAGE = "output, if, for, comparisons and filters are"


def _check_filter(node: nodes.Filter) -> None:
    if node.name not in FILTERS or node.node is None:
        raise TemplateSyntaxError(f"there is no filter {node.name!r}; {', '.join(sorted(FILTERS))}", node.lineno)
    given = [*node.args, *(each.value for each in node.kwargs)]
    if node.dyn_args is not None or node.dyn_kwargs is not None or not all(_is_small(each) for each in given):
        raise TemplateSyntaxError(f"arguments of {node.name} must be short constants", node.lineno)
    chain: list[str] = []
    each: nodes.Expr | None = node
    while isinstance(each, nodes.Filter):
        chain.append(each.name)
        each = each.node
    if len(chain) > _MOST_FILTERS or sum(name in _GROWING for name in chain) > 1:
        raise TemplateSyntaxError(f"at most {_MOST_FILTERS} filters in a row, one that escapes among them", node.lineno)


def _is_small(node: nodes.Node) -> bool:
    if not isinstance(node, nodes.Const):
        return False
    if isinstance(node.value, str):
        return len(node.value) <= _MOST_ARGUMENT
    return node.value is None or isinstance(node.value, bool) or abs(node.value) <= 100_000
