"""Two sets of classes, matched by name. Imports no torch.

The problem: the same classes stand in another order in another checkpoint (MNLI is the known trap),
and a score of 10 % or a teacher that teaches nonsense is all one sees of it. The idea: order never
counts, names do. Names that are equal match first; of the others, those that differ in case, or in
what stands between two words ("not_entailment", "Not entailment"), and only where that leaves no
choice. Whoever matches so says it.

Left out: meaning. "pos" is not "positive", and "1" is neither.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

BETWEEN_WORDS = re.compile(r"(?<=[^\W_])[\s_-]+(?=[^\W_])")


@dataclass(frozen=True)
class Match:
    """The same classes under two sets of names."""

    order: tuple[int, ...]
    """Of each wanted class, its place among the given ones."""
    respelled: tuple[tuple[str, str], ...]
    """(given, wanted) where the names are not equal."""

    @property
    def said(self) -> str:
        """The respelled names in words; "" if there are none."""
        return ", ".join(f"{given!r} is taken for {wanted!r}" for given, wanted in self.respelled)


def match_classes(given: Sequence[str], wanted: Sequence[str]) -> Match | None:
    """How given classes are the wanted ones; None where they are not, or where that is a guess.

    Example:
        >>> match_classes(["not_entailment", "Entailment"], ["entailment", "not entailment"]).order
        (1, 0)
        >>> match_classes(["a b", "a_b"], ["a-b", "c"]) is None
        True
    """
    if len(given) != len(wanted) or len(set(given)) != len(given):
        return None
    places = {name: place for place, name in enumerate(given)}
    rest = [name for name in given if name not in wanted]
    plain = {_plain(name): name for name in rest}
    missing = [name for name in wanted if name not in places]
    if len(plain) != len(rest) or {_plain(name) for name in missing} != set(plain):
        return None
    respelled = {name: plain[_plain(name)] for name in missing}
    return Match(
        tuple(places[respelled.get(name, name)] for name in wanted),
        tuple((given_name, name) for name, given_name in respelled.items()),
    )


def _plain(name: str) -> str:
    """A name without what writers disagree on: case, and what parts two words."""
    return BETWEEN_WORDS.sub(" ", name.strip()).casefold()
