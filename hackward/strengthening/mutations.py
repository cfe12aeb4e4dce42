"""Inputs made from given ones by small changes: a number more or less, an item gone, twice, or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from hackward.strengthening.arguments import Input, Shape
from hackward.strengthening.properties import node_values, with_values
from hackward.tasks.problems import Linked, Tree

MOST_ITEMS = 60  # a list that has more is not made longer


class Mutator:
    """Changes inputs of one problem. `dice` is its only source of chance."""

    def __init__(self, shapes: Mapping[str, Shape], together: Sequence[tuple[str, ...]], dice: Random):
        self._shapes = shapes
        self._together = together
        """Parameters whose lists have the same length."""
        self._dice = dice

    def mutated(self, values: Input) -> dict[str, Any]:
        """The input with one to three changes."""
        changed = dict(values)
        for _ in range(self._dice.choice((1, 1, 2, 3))):
            name = self._dice.choice(list(self._shapes))
            group = next((names for names in self._together if name in names), (name,))
            if len(group) > 1 and self._dice.random() < 0.5:
                changed |= self._reordered({each: changed[each] for each in group})
            else:
                changed[name] = self._changed(changed[name], self._shapes[name])
        return changed

    def _reordered(self, lists: dict[str, Any]) -> dict[str, Any]:
        """Lists of one length with the same places dropped, repeated or moved."""
        size = min(map(len, lists.values()))
        places = self._arranged(list(range(size)))
        made: dict[str, Any] = {}
        for name, items in lists.items():
            moved = [items[place] for place in places]
            made[name] = "".join(moved) if isinstance(items, str) else moved
        return made

    def _arranged(self, items: list[Any]) -> list[Any]:
        """A list with its items in another number or order."""
        ways: tuple[Callable[[list[Any]], list[Any]], ...] = (
            self._drop,
            self._drop,
            self._repeat,
            self._swap,
            self._shuffle,
            self._turn,
            self._half,
            self._double,
        )
        return self._dice.choice(ways)(items) if items else items

    def _drop(self, items: list[Any]) -> list[Any]:
        at = self._dice.randrange(len(items))
        return items[:at] + items[at + 1 :]

    def _repeat(self, items: list[Any]) -> list[Any]:
        at = self._dice.randrange(len(items) + 1)
        return [*items[:at], self._dice.choice(items), *items[at:]]

    def _swap(self, items: list[Any]) -> list[Any]:
        items = list(items)
        one, two = self._dice.randrange(len(items)), self._dice.randrange(len(items))
        items[one], items[two] = items[two], items[one]
        return items

    def _shuffle(self, items: list[Any]) -> list[Any]:
        return self._dice.sample(items, len(items))

    def _turn(self, items: list[Any]) -> list[Any]:
        return items[::-1]

    def _half(self, items: list[Any]) -> list[Any]:
        start = self._dice.randrange(len(items))
        return items[start : start + max(1, len(items) // 2)]

    def _double(self, items: list[Any]) -> list[Any]:
        return items if len(items) * 2 > MOST_ITEMS else items + items

    def _changed(self, value: Any, shape: Shape) -> Any:
        match shape.kind:
            case "int":
                return self._number(value)
            case "float":
                return round(value + self._dice.choice((-1, -0.5, 0.25, 1)), 5)
            case "bool":
                return not value
            case "str":
                return self._text(value)
            case "linked":
                items = self._list(list(node_values(value)), Shape("int"))
                return Linked(tuple(items)) if items else None
            case "tree":
                return self._tree(value)
        assert shape.item is not None
        return self._list(list(value), shape.item)

    def _number(self, value: int) -> int:
        near = (
            value - 1,
            value + 1,
            value + 2,
            value * 2,
            value // 2,
            0,
            1,
            -value,
            value + self._dice.randint(-10, 10),
        )
        return self._dice.choice(near)

    def _text(self, value: str) -> str:
        if not value:
            return value
        if self._dice.random() < 0.4:
            at = self._dice.randrange(len(value))
            return value[:at] + self._dice.choice(value) + value[at + 1 :]
        if " " in value and self._dice.random() < 0.5:
            return " ".join(self._arranged(value.split(" ")))
        return "".join(self._arranged(list(value)))

    def _list(self, items: list[Any], shape: Shape) -> list[Any]:
        if not items or self._dice.random() < 0.4:
            return self._arranged(items)
        at = self._dice.randrange(len(items))
        if self._dice.random() < 0.3:
            return [*items[:at], self._dice.choice(items), *items[at + 1 :]]
        return [*items[:at], self._changed(items[at], shape), *items[at + 1 :]]

    def _tree(self, value: Tree | None) -> Tree | None:
        if value is None:
            return value
        values = node_values(value)
        if self._dice.random() < 0.5:
            changed = with_values(value, self._list_of_same_length(values))
            return changed if isinstance(changed, Tree) else None
        order = list(value.values)
        if self._dice.random() < 0.5 and len(values) > 1:
            order.pop()
            while order[-1] is None:
                order.pop()
        else:
            order.append(self._dice.choice(values))
        return Tree(tuple(order))

    def _list_of_same_length(self, values: list[Any]) -> list[Any]:
        if self._dice.random() < 0.4:
            return self._shuffle(values)
        at = self._dice.randrange(len(values))
        return [*values[:at], self._number(values[at]), *values[at + 1 :]]
