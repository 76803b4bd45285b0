"""Steps as a graph: who reads whom, in which order to run, and where a circle closes.

The order is topological and, where the arrows leave a choice, the recipe's own, so that a reader
sees steps run as they are written. The work grows with the number of steps and arrows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush

from attar.config import Config
from attar.recipe.steps import STEPS, StepKind, kind_of


def inputs_of(
    steps: Mapping[str, Config], kinds: Mapping[str, StepKind] = STEPS
) -> dict[str, tuple[str, ...]]:
    """Step → the steps it reads, each once, in the order of its settings.

    A report reads all steps that are no reports.
    """
    everything = [name for name, step in steps.items() if not kind_of(step, kinds).reads_everything]
    found: dict[str, tuple[str, ...]] = {}
    for name, step in steps.items():
        kind = kind_of(step, kinds)
        words = [reference.word for reference in kind.models_in(step) if reference.word in steps]
        found[name] = tuple(everything if kind.reads_everything else dict.fromkeys(words))
    return found


def in_order(inputs: Mapping[str, Sequence[str]]) -> list[str]:
    """Names such that each comes after all it reads, ties in the order given; no circle allowed.

    Example:
        >>> in_order({"scores": ["teacher", "student"], "student": ["teacher"], "teacher": []})
        ['teacher', 'student', 'scores']
    """
    places = {name: place for place, name in enumerate(inputs)}
    missing = {name: len(set(inputs[name])) for name in inputs}
    readers: dict[str, list[str]] = {}
    for name in inputs:
        for read in set(inputs[name]):
            readers.setdefault(read, []).append(name)
    ready = [places[name] for name in inputs if not missing[name]]
    names, ordered = list(inputs), list[str]()
    while ready:
        ordered.append(names[heappop(ready)])
        for reader in readers.get(ordered[-1], ()):
            missing[reader] -= 1
            if not missing[reader]:
                heappush(ready, places[reader])
    if len(ordered) < len(names):
        raise ValueError(f"steps go in a circle: {[name for name in names if missing[name]]}")
    return ordered


def find_cycle(inputs: Mapping[str, Sequence[str]]) -> list[str] | None:
    """The steps of one circle, each reading the next; None when there is none.

    It is searched from the step written first, without recursion: a long chain is no reason to
    fail.

    Example:
        >>> find_cycle({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})
        ['a', 'b', 'c']
    """
    finished: set[str] = set()
    for start in inputs:
        path: dict[str, None] = {}  # in order, and quick to look into
        branches = [iter([start])]
        while branches:
            name = next(branches[-1], None)
            if name is None:
                branches.pop()
                if path:
                    finished.add(path.popitem()[0])
            elif name in path:
                circle = list(path)
                return circle[circle.index(name) :]
            elif name not in finished:
                path[name] = None
                branches.append(iter([i for i in inputs[name] if i in inputs]))
    return None
