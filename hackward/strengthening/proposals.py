"""Inputs made by type, within the bounds that a statement names: edge cases first, then at random.

A place that values stand at is called a slot: `nums.length`, `nums[_]`, `edges[_][0]`, `k`. What the
statement says of a slot may depend on others (`1 <= k <= nums.length`), so parameters are made one after the
other and a bound is computed from what is made already. What that does not settle is left to the check of the
whole input (strengthening.py).
"""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from hackward.strengthening.arguments import Input, Shape
from hackward.strengthening.constraints import Constraints, OneOf, Relation
from hackward.strengthening.forms import form_of
from hackward.strengthening.terms import Scope, Unreadable
from hackward.tasks.problems import Linked, Tree

Interval = tuple[float, float]
ANY: Interval = (-math.inf, math.inf)
FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "=": "="}
SIZES = ((1, 3), (2, 6), (4, 10), (8, 20), (20, 40))  # of lists and texts, as ranges
SIZE_WEIGHTS = (3, 6, 5, 2, 1)
CELLS = 60  # most values that a list of lists gets
COLUMNS = range(2, 6)  # rows of one such width have a meaning for each place, as edges have
LONGEST = 400  # no list of an input has more items
DEPTH = 2  # of bounds that depend on bounds
EDGES = ("least", "single", "greatest", "equal", "two values", "ascending", "descending", "low and high")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class TooLarge(Exception):
    """What was made so far asks for more values than a test should have."""


class _Letters(ast.NodeTransformer):
    """Writes every index letter as _."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.Subscript:
        inner = self.visit(node.value)
        index = node.slice if isinstance(node.slice, ast.Constant) else ast.Name("_")
        return ast.Subscript(inner, index)


def slot_of(node: ast.expr, known: Constraints) -> str:
    """The slot that a term names."""
    if isinstance(node, ast.Name) and node.id in known.columns:
        holder, at = known.columns[node.id]
        return f"{holder}[_][{at}]" if known.shapes[holder].depth == 2 else f"{holder}[{at}]"
    return ast.unparse(_Letters().visit(copy.deepcopy(node)))


class Maker:
    """Makes inputs of one problem. `dice` is its only source of chance."""

    def __init__(self, constraints: Constraints, inputs: Sequence[Input], dice: Random):
        self.known = constraints
        self.shapes = constraints.shapes
        self.dice = dice
        self._bounds: dict[str, list[tuple[str, ast.expr]]] = {}
        for rule in constraints.relations:
            self._note(rule)
        self._choices = {slot_of(rule.term, constraints): rule for rule in constraints.choices}
        self._seen: dict[str, list[Any]] = {}
        for values in inputs:
            for name, shape in self.shapes.items():
                self._note_seen(name, shape, values[name])
        self._order = self._ordered()
        self._mode = ""
        self._spread = ""
        self._sizes: dict[str, int] = {}
        self._known_bounds: dict[tuple[str, int, int], Interval] = {}
        """By slot, parameters made, and depth: of the input that is being made."""

    def edge_cases(self) -> Iterable[dict[str, Any]]:
        """One input for each kind of edge, and for each number at its least and its greatest."""
        for mode in EDGES:
            yield from self.proposals(mode)
        scalars = [name for name, shape in self.shapes.items() if shape.kind in ("int", "float")]
        for name in scalars:
            for end in ("least", "greatest"):
                yield from self.proposals("", fixed={name: end})

    def proposals(self, mode: str = "", fixed: dict[str, str] | None = None) -> list[dict[str, Any]]:
        """One input, or none where it would be too large."""
        try:
            return [self.proposal(mode, fixed)]
        except TooLarge:
            return []

    def proposal(self, mode: str = "", fixed: dict[str, str] | None = None) -> dict[str, Any]:
        """One input, perhaps outside the constraints. `mode` is a kind of edge, or "" for chance.

        Raises TooLarge.
        """
        self._mode = mode
        self._spread = self.dice.choice(("tiny", "small", "small", "sized", "seen", "wide"))
        self._sizes = {}
        self._known_bounds = {}
        values: dict[str, Any] = {}
        scope = self.known.scope(values)
        for name in self._order:
            self._mode = (fixed or {}).get(name, mode)
            if name in self._early:
                values[name] = self._count(name, scope)
            else:
                values[name] = self._value(name, self.shapes[name], scope)
        return {name: values[name] for name in self.shapes}

    # --- what is known of a slot ---

    def _note(self, rule: Relation) -> None:
        if rule.sign in FLIPPED:
            self._bounds.setdefault(slot_of(rule.left, self.known), []).append((rule.sign, rule.right))
            self._bounds.setdefault(slot_of(rule.right, self.known), []).append(
                (FLIPPED[rule.sign], rule.left)
            )

    def _note_seen(self, slot: str, shape: Shape, value: Any) -> None:
        if shape.item is not None:
            self._seen.setdefault(f"{slot}.length", []).append(len(value))
            for at, item in enumerate(value):
                self._note_seen(f"{slot}[_]", shape.item, item)
                if len(value) < 6:
                    self._note_seen(f"{slot}[{at}]", shape.item, item)
        elif shape.kind in ("tree", "linked"):
            nodes = [] if value is None else [item for item in value.values if item is not None]
            self._seen.setdefault(f"{slot}.nodes", []).append(len(nodes))
            self._seen.setdefault("Node.val", []).extend(nodes)
        else:
            self._seen.setdefault(slot, []).append(value)
            if shape.kind == "str":
                self._seen.setdefault(f"{slot}.length", []).append(len(value))

    def _ordered(self) -> list[str]:
        """Parameters whose value bounds what stands in a list come before the others, plain numbers last."""
        inside = {slot.partition("[")[0] for slot in self._bounds if "[" in slot}
        first: set[str] = set()
        for slot, bounds in self._bounds.items():
            if "[" in slot and ".length" not in slot:
                for _, term in bounds:
                    first |= {node.id for node in ast.walk(term) if isinstance(node, ast.Name)}
        plain = [
            name for name, shape in self.shapes.items() if not shape.depth and shape.kind in ("int", "float")
        ]
        early = [name for name in plain if name in first and inside]
        self._early = {name for name in early if self.shapes[name].kind == "int"}
        late = [name for name in plain if name not in early]
        return [*early, *(name for name in self.shapes if name not in plain), *late]

    def bounds(self, slot: str, scope: Scope, depth: int = 0) -> Interval:
        """Least and greatest value that the statement allows at a slot, as far as that is known yet."""
        if scope.row:
            return self._bounds_at(slot, scope, depth)
        key = (slot, len(scope.values), depth)
        if key not in self._known_bounds:
            self._known_bounds[key] = self._bounds_at(slot, scope, depth)
        return self._known_bounds[key]

    def _bounds_at(self, slot: str, scope: Scope, depth: int) -> Interval:
        low, high = ANY
        general = (
            slot
            if slot in self._bounds
            else slot.replace("[0]", "[_]").replace("[1]", "[_]").replace("[2]", "[_]")
        )
        for sign, term in self._bounds.get(slot, []) or self._bounds.get(general, []):
            least, greatest = self._interval(term, scope, depth)
            if sign in (">", ">=", "==", "="):
                low = max(low, least + (sign == ">"))
            if sign in ("<", "<=", "==", "="):
                high = min(high, greatest - (sign == "<"))
        return low, high

    def _interval(self, term: ast.expr, scope: Scope, depth: int) -> Interval:
        try:
            found = scope.evaluate(term)
            values = list(found.values()) if isinstance(found, dict) else [found]
            if values and all(isinstance(value, (int, float)) for value in values):
                return min(values), max(values)
        except Unreadable:
            pass
        if depth >= DEPTH:
            return ANY
        match term:
            case ast.BinOp(left=left, op=op, right=right):
                return _combined(
                    self._interval(left, scope, depth + 1), op, self._interval(right, scope, depth + 1)
                )
            case ast.Call(func=ast.Name(id="min"), args=arguments):
                parts = [self._interval(argument, scope, depth + 1) for argument in arguments]
                return min(part[0] for part in parts), min(part[1] for part in parts)
            case ast.Name(id=name) if name in self.known.sizes:
                inner = self.bounds(slot_of(self.known.sizes[name], self.known), scope, depth + 1)
                own = self.bounds(name, scope, depth + 1)
                return max(inner[0], own[0]), min(inner[1], own[1])
        return self.bounds(slot_of(term, self.known), scope, depth + 1)

    # --- values ---

    def _value(self, slot: str, shape: Shape, scope: Scope) -> Any:
        match shape.kind:
            case "list":
                return self._list(slot, shape, scope)
            case "str":
                return self._text(slot, scope)
            case "bool":
                return self.dice.random() < 0.5
            case "tree":
                return self._tree(slot, scope)
            case "linked":
                count = self._size(f"{slot}.nodes", scope, 1)
                return Linked(tuple(self._numbers("Node.val", "int", count, scope))) if count else None
        return self._number(slot, shape.kind, scope)

    def _list(self, slot: str, shape: Shape, scope: Scope) -> list[Any]:
        assert shape.item is not None
        rows = 1 + shape.item.depth
        size = self._size(f"{slot}.length", scope, rows)
        if shape.item.kind in ("int", "float"):
            return self._numbers(f"{slot}[_]", shape.item.kind, size, scope, slot)
        seen = set(self._seen.get(f"{slot}[_].length", ()))
        if shape.item.item is not None and len(seen) == 1 and max(seen) in COLUMNS:
            return [self._row(slot, shape.item.item, max(seen), scope) for _ in range(size)]
        return [self._value(f"{slot}[_]", shape.item, scope) for _ in range(size)]

    def _row(self, slot: str, shape: Shape, width: int, scope: Scope) -> list[Any]:
        """A row whose parts have bounds of their own, each perhaps depending on those before it."""
        names = {at: name for name, (holder, at) in self.known.columns.items() if holder == slot}
        row: list[Any] = []
        made: dict[str, Any] = {}
        for at in range(width):
            scope.row = made
            place = f"{slot}[_][{at}]"
            row.append(self._value(place, shape, scope))
            if at in names:
                made[names[at]] = row[-1]
        scope.row = {}
        return row

    def _size(self, slot: str, scope: Scope, rows: int) -> int:
        """A length. Lists of one slot, such as the rows of a grid, get the same one mostly."""
        if "[" in slot and slot in self._sizes and self.dice.random() < 0.9:
            return self._sizes[slot]
        size = self._sizes[slot] = self._drawn_size(slot, rows, *self.bounds(slot, scope))
        return size

    def _count(self, name: str, scope: Scope) -> int:
        """A number that says how many of something there are: as small as the lists are short."""
        return self._drawn_size(name, 1, *self.bounds(name, scope))

    def _drawn_size(self, slot: str, rows: int, low: float, high: float) -> int:
        seen = self._seen.get(slot, [1])
        low = min(seen) if low == -math.inf else max(0, math.ceil(low))
        high = max(*seen, low + 4) if high == math.inf else math.floor(high)
        if low > LONGEST:
            raise TooLarge
        size = low
        if self._mode == "single":
            size = max(low, 1)
        elif self._mode != "least" and high > low:
            least, greatest = self.dice.choices(SIZES, SIZE_WEIGHTS)[0]
            greatest = greatest if rows == 1 else max(2, int(CELLS ** (1 / rows)))
            least = max(low, min(least, greatest, high))
            size = self.dice.randint(least, max(least, min(greatest, high)))
        return size

    def _range(self, slot: str, kind: str, scope: Scope) -> Interval:
        low, high = self.bounds(slot, scope)
        seen = [value for value in self._seen.get(slot, ()) if isinstance(value, (int, float))] or [0, 1]
        low = min(seen) if low == -math.inf else low
        high = max(max(seen), low) if high == math.inf else high
        if kind == "int":
            low, high = math.ceil(low), math.floor(high)
        return low, max(low, high)

    def _number(self, slot: str, kind: str, scope: Scope, window: Interval | None = None) -> Any:
        if slot in self._choices:
            return self.dice.choice(sorted(self._choices[slot].values, key=repr))
        low, high = self._range(slot, kind, scope)
        if self._mode in ("least", "greatest"):
            return low if self._mode == "least" else high
        if window is not None:
            low, high = max(low, window[0]), min(high, window[1])
        elif self._mode == "" and self.dice.random() < 0.15:
            return self.dice.choice((low, high, *self._seen.get(slot, [low])))
        else:
            low, high = self._window(slot, low, high, scope)
        if kind == "float":
            return round(self.dice.uniform(low, high), self.dice.choice((1, 2, 5)))
        return self.dice.randint(int(low), int(max(low, high)))

    def _window(self, slot: str, low: float, high: float, scope: Scope) -> Interval:
        """A part of the range: values that lie close together collide, and meet each other's sums."""
        if high - low <= 10:
            return low, high
        seen = [value for value in self._seen.get(slot, [low]) if isinstance(value, (int, float))]
        sizes = [len(value) for value in scope.values.values() if isinstance(value, (list, str))]
        width = {"tiny": 2, "small": 12, "sized": 2 * max(sizes, default=8), "wide": high - low}.get(
            self._spread
        )
        if width is None:
            least, greatest = max(low, min(seen)), min(high, max(seen))
            return (least, greatest) if least < greatest else (low, min(high, low + 20))
        middle = [at for at in (low, 0, 1, *seen) if low <= at <= high]
        start = self.dice.choice(middle) if self._spread != "wide" else low
        if low < 0 < high and self._spread in ("small", "sized"):
            start = -width // 2
        return max(low, start), min(high, start + width)

    def _numbers(self, slot: str, kind: str, count: int, scope: Scope, holder: str = "") -> list[Any]:
        """The items of a list of numbers."""
        mode = self._mode
        if mode == "low and high":
            low, high = self._range(slot, kind, scope)
            return [self.dice.choice((low, high)) if kind == "int" else float(low) for _ in range(count)]
        low, high = self._range(slot, kind, scope)
        window = self._window(slot, low, high, scope)
        distinct = {"equal": 1, "two values": 2}.get(mode, count)
        items = [self._number(slot, kind, scope, window) for _ in range(min(count, distinct))]
        items = (
            (items * count)[:count]
            if distinct == 1
            else items + [self.dice.choice(items) for _ in range(count - len(items))]
        )
        if mode in ("ascending", "descending"):
            items.sort(reverse=mode == "descending")
        return items

    def _text(self, slot: str, scope: Scope) -> str:
        choice = self._choices.get(slot)
        seen = self._seen.get(slot, [""])
        form = form_of(seen)
        if form is not None:
            return form.make(self.dice)
        if choice is not None and not choice.inside:
            return self.dice.choice(sorted(map(str, choice.values)))
        letters = self.letters(slot)
        if letters is None or self._mode == "" and self.dice.random() < 0.15:
            return self.dice.choice(seen)
        count = self._size(f"{slot}.length", scope, 1) if "[" not in slot else self._word_size(slot, scope)
        few = {"equal": 1, "two values": 2}.get(self._mode) or self.dice.choice((1, 2, 2, 3, 5, len(letters)))
        common = [letter for letter in letters if any(letter in text for text in seen)] or list(letters)
        pool = self.dice.sample(common, min(few, len(common))) if self.dice.random() < 0.6 else list(letters)
        if few < len(pool):
            pool = self.dice.sample(pool, few)
        return "".join(self.dice.choice(pool) for _ in range(count))

    def _word_size(self, slot: str, scope: Scope) -> int:
        low, high = self.bounds(f"{slot}.length", scope)
        seen = self._seen.get(f"{slot}.length", [1])
        least = min(seen) if low == -math.inf else max(0, math.ceil(low))
        greatest = max(seen) if high == math.inf else math.floor(high)
        return self.dice.randint(least, max(least, min(greatest, max(max(seen), 3), 12)))

    def letters(self, slot: str) -> str | None:
        """The characters of the texts at a slot; None where texts are words of a vocabulary."""
        for name in (slot, f"{slot}[_]"):
            choice = self._choices.get(name)
            if isinstance(choice, OneOf):
                return "".join(sorted(map(str, choice.values)))
        seen = self._seen.get(slot, [])
        if "[" in slot and max(map(len, seen), default=0) > 1:
            return None
        return "".join(sorted(set("".join(map(str, seen))))) or LETTERS

    def _tree(self, slot: str, scope: Scope) -> Tree | None:
        count = self._size(f"{slot}.nodes", scope, 1)
        if not count:
            return None
        values = self._numbers("Node.val", "int", count, scope)
        bushy = self.dice.choice((0.95, 0.7, 0.4))
        return grown(self.dice, values, bushy)


def grown(dice: Random, values: Sequence[Any], bushy: float) -> Tree:
    """A tree with these values in level order. `bushy`: how likely each child is there."""
    order: list[Any] = [values[0]]
    left, open_nodes = list(values[1:]), 1
    while left:
        following = 0
        for at in range(open_nodes):
            for side in range(2):
                last = at == open_nodes - 1 and side == 1 and not following
                if left and (last or dice.random() < bushy):
                    order.append(left.pop(0))
                    following += 1
                else:
                    order.append(None)
        open_nodes = following
    while order[-1] is None:
        order.pop()
    return Tree(tuple(order))


def _combined(left: Interval, op: ast.operator, right: Interval) -> Interval:
    """The range of a sum, difference or product of values in two ranges."""
    match op:
        case ast.Add():
            return left[0] + right[0], left[1] + right[1]
        case ast.Sub():
            return left[0] - right[1], left[1] - right[0]
        case ast.Mult() if min(left[0], right[0]) >= 0:
            return left[0] * right[0], left[1] * right[1]
    return ANY
