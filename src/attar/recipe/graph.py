"""Steps as a graph: who reads whom, in which order to run, and where a circle closes.

The order is topological and, where the arrows leave a choice, the recipe's own, so that a reader
sees steps run as they are written.
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
    """Step → the steps it reads, each once, in the order of its settings.

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
    """Names such that each comes after all it reads, ties in the order given.

    Raises:
        ValueError: the steps go in a circle.

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
    """The steps of one circle, each reading the next, from the one written first; None: there is
    none.

    Example:
        >>> find_cycle({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})
        ['a', 'b', 'c']
    """
    try:
        TopologicalSorter(inputs).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1][:0:-1]  # each is read by the next, the first stands twice
        first = circle.index(next(name for name in inputs if name in circle))
        return circle[first:] + circle[:first]
    return None
