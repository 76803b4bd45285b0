"""The dependency graph of steps: inputs, execution order and cycles.

The order is topological; where it is not determined, steps run in the order of the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush

from attar.config import Config
from attar.recipe.steps import STEPS, StepKind, kind_of, steps_read


def inputs_of(
    steps: Mapping[str, Config], kinds: Mapping[str, StepKind] = STEPS
) -> dict[str, tuple[str, ...]]:
    """Step → distinct steps that it reads, in the order of its settings.

    A report reads all steps that are not reports.
    """
    everything = [name for name, step in steps.items() if not kind_of(step, kinds).reads_everything]
    found: dict[str, tuple[str, ...]] = {}
    for name, step in steps.items():
        words = [reference.word for reference in steps_read(step, steps, kinds)]
        reads_everything = kind_of(step, kinds).reads_everything
        found[name] = tuple(everything if reads_everything else dict.fromkeys(words))
    return found


def upstream(name: str, inputs: Mapping[str, Sequence[str]]) -> list[str]:
    """All steps that a step depends on, directly or through others.

    Example:
        >>> upstream("scores", {"scores": ["student"], "student": ["teacher"], "teacher": []})
        ['student', 'teacher']
    """
    found = dict.fromkeys(inputs[name])
    waiting = list(found)
    while waiting:
        new = [read for read in inputs[waiting.pop()] if read not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return list(found)


def in_order(inputs: Mapping[str, Sequence[str]]) -> list[str]:
    """Topological order: each step comes after those it reads; ties in the given order.

    Raises:
        ValueError: the steps form a cycle.

    Example:
        >>> in_order({"scores": ["teacher", "student"], "student": ["teacher"], "teacher": []})
        ['teacher', 'student', 'scores']
    """
    sorter = TopologicalSorter(inputs)
    sorter.prepare()
    places = {name: place for place, name in enumerate(inputs)}
    ready, ordered = list[tuple[int, str]](), list[str]()
    while sorter.is_active():
        for name in sorter.get_ready():
            heappush(ready, (places[name], name))
        ordered.append(heappop(ready)[1])
        sorter.done(ordered[-1])
    return ordered


def find_cycle(inputs: Mapping[str, Sequence[str]]) -> list[str] | None:
    """The steps of one cycle, each reading the next, starting with the first in the recipe; None if
    there is none.

    Example:
        >>> find_cycle({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})
        ['a', 'b', 'c']
    """
    try:
        TopologicalSorter(inputs).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1][:0:-1]  # each is read by the next; the first is repeated
        first = circle.index(next(name for name in inputs if name in circle))
        return circle[first:] + circle[:first]
    return None
