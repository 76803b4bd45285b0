"""Match two sets of classes by name. Imports no torch.

The problem: another checkpoint may have the same classes in another order (MNLI is the known trap),
which shows only as a score of 10 % or a useless teacher. The idea: match names and never rely on
order. Equal names match first; then names that differ only in spelling (`spelling`:
"not_entailment", "Not entailment"), if that is unambiguous. Such matches are reported to the user.

Hugging Face's placeholders (LABEL_0, LABEL_1, …) are numbers, not names. They match classes called
0, 1, … by number, and other class names by index: LABEL_i is class i of the data, in the order of
`label_names` (if it is not set, the sorted names). That order is only a convention, so the match is
always reported, with the setting that changes it.

Not covered: meaning. "pos" does not match "positive", and "1" matches neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attar.spelling import plain_name


@dataclass(frozen=True)
class Match:
    """A mapping between two sets of names for the same classes."""

    order: tuple[int, ...]
    """For each wanted class, its index among the given ones."""
    respelled: tuple[tuple[str, str], ...]
    """(given, wanted) for names that are not equal."""
    by_index: bool = False
    """Whether the given names are placeholders that were matched by their number."""

    @property
    def said(self) -> str:
        """The respelled names in words; "" if there are none."""
        taken = ", ".join(f"{given!r} is taken for {wanted!r}" for given, wanted in self.respelled)
        if not self.by_index:
            return taken
        return (
            f"{taken}, by index, because the model does not name its classes; if its order "
            "differs, list the classes in its order in label_names of the data"
        )


def match_classes(given: Sequence[str], wanted: Sequence[str]) -> Match | None:
    """Match given classes to the wanted ones; None if they do not match, or only ambiguously.

    Example:
        >>> match_classes(["not_entailment", "Entailment"], ["entailment", "not entailment"]).order
        (1, 0)
        >>> match_classes(["a b", "a_b"], ["a-b", "c"]) is None
        True
        >>> match_classes(["LABEL_1", "LABEL_0"], ["neg", "pos"]).order
        (1, 0)
    """
    if len(given) != len(wanted) or len(set(given)) != len(given):
        return None
    numbers = _placeholders(len(given))
    if set(given) == set(numbers) != set(wanted):
        in_order = sorted(wanted) == sorted(map(str, range(len(wanted))))
        by_number = [int(name) for name in wanted] if in_order else range(len(wanted))
        named = [numbers[number] for number in by_number]
        order = tuple(list(given).index(name) for name in named)
        return Match(order, tuple(zip(named, wanted, strict=True)), by_index=not in_order)
    places = {name: place for place, name in enumerate(given)}
    rest = [name for name in given if name not in wanted]
    plain = {plain_name(name): name for name in rest}
    missing = [name for name in wanted if name not in places]
    if len(plain) != len(rest) or {plain_name(name) for name in missing} != set(plain):
        return None
    respelled = {name: plain[plain_name(name)] for name in missing}
    return Match(
        tuple(places[respelled.get(name, name)] for name in wanted),
        tuple((given_name, name) for name, given_name in respelled.items()),
    )


def why_not_matched(given: Sequence[str], wanted: Sequence[str], config: str) -> str:
    """The end of an error message: how the classes of a model and of data differ, and what to do.

    Args:
        config: path of the model's `config.json`, for the message.
    """
    only_model = [name for name in given if name not in wanted]
    only_data = [name for name in wanted if name not in given]
    # If no name is common, these are all of them.
    is_all = len(only_model) == len(given)
    known = f"; the model knows {_listed(given)}, the data {_listed(wanted)}"
    return (
        f"only the model has {_listed(only_model)}, only the data have {_listed(only_data)}"
        f"{'' if is_all else known}; use the data the model was trained for, or correct the names "
        f"in id2label of {config}"
    )


def _placeholders(count: int) -> list[str]:
    return [f"LABEL_{i}" for i in range(count)]


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join([*map(repr, names[:12]), *["…"][: len(names) > 12]]) + "]"
