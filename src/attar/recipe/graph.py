"""Steps as a graph: who reads whom, in which order to run, and where a circle closes.

The order is topological and, where the arrows leave a choice, the recipe's own, so that a reader
sees steps run as they are written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    ordered: list[str] = []
    waiting = list(inputs)
    while waiting:
        ready = next((name for name in waiting if all(i in ordered for i in inputs[name])), None)
        if ready is None:
            raise ValueError(f"steps go in a circle: {waiting}")
        ordered.append(ready)
        waiting.remove(ready)
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
        path: list[str] = []
        branches = [iter([start])]
        while branches:
            name = next(branches[-1], None)
            if name is None:
                branches.pop()
                if path:
                    finished.add(path.pop())
            elif name in path:
                return path[path.index(name) :]
            elif name not in finished:
                path.append(name)
                branches.append(iter([i for i in inputs[name] if i in inputs]))
    return None
