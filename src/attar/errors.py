"""What can go wrong that a user can cause or cure, each with the exit code the command line gives
it.

A message has four parts: *what* went wrong, what was *got*, what is *allowed*, and the *next step*,
with the numbers: "calibration needs 256 examples, data 'sst2' has 40 after filtering; lower
calibration.examples or add data". Anything that is not an `AttarError` is a bug of ours and keeps
its traceback (exit code 1).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


class AttarError(Exception):
    """A mistake or a shortage that a user can fix. Printed without a traceback.

    Args:
        message: one line; it may quote strangers' text, which is escaped where it is printed.
        details: lines below it.
    """

    exit_code = 2

    def __init__(self, message: object, details: Sequence[str] = ()) -> None:
        self.lines = (str(message), *details)
        super().__init__("\n".join(self.lines))


class UsageError(AttarError):
    """The request itself does not make sense: a wrong flag, a wrong folder, a combination that
    cannot be."""

    exit_code = 2


class RecipeError(AttarError):
    """Every mistake found in one recipe, each with its place, reported together."""

    exit_code = 2

    def __init__(self, mistakes: Sequence[str], source: str = "recipe") -> None:
        self.mistakes = tuple(mistakes)
        count = len(self.mistakes)
        heading = f"{source}: {count} mistake{'s' if count != 1 else ''}"
        super().__init__(heading, [f"  - {mistake}" for mistake in self.mistakes])


class ModelError(AttarError):
    """A model that cannot be used as asked: unknown family, labels that do not match, blocks
    that do not exist."""

    exit_code = 2


class DataError(AttarError):
    """Data that is empty, damaged, or not what the recipe says it is."""

    exit_code = 3


class ArtifactError(AttarError):
    """A file or folder that is damaged, refused (a pickle), or is not what it claims to be."""

    exit_code = 3


class ResourceError(AttarError):
    """Memory or disk is short."""

    exit_code = 4


class NonFiniteError(AttarError):
    """A loss or a gradient became NaN or infinite; nothing was updated with it."""

    exit_code = 5


class GateMissedError(AttarError):
    """A quality gate of the recipe was missed; everything that was made is saved."""

    exit_code = 6


class StoppedError(AttarError):
    """SIGTERM or SIGINT arrived; everything is saved and `attar resume` continues from here."""

    exit_code = 75


OUT_OF_MEMORY = ("allocate memory", "not enough memory", "bad_alloc", "bad allocation")
"""What torch (in a plain RuntimeError), ONNX Runtime and OpenVINO say where memory is short."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short: Python's own, or torch's on any device."""
    torch = sys.modules.get("torch")  # not loaded, it cannot have raised
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    )


NEAR = 0.75
"""Likeness of a slip in a short word: "sead" for "seed". At difflib's own 0.6, "label" was near
"table" and "file" near "title"."""


def did_you_mean(name: str, known: Sequence[str], cutoff: float = NEAR) -> str:
    """A hint naming the nearest known word, one of the same letters, or one that has `name` as a
    part; "" when none is near.

    Args:
        cutoff: likeness from which a word is near, 0 to 1; above NEAR, parts do not count.

    Example:
        >>> did_you_mean("learning_rat", ["learning_rate", "epochs"])
        " (did you mean 'learning_rate'?)"
        >>> did_you_mean("warmup", ["warmup_ratio", "epochs"]), did_you_mean("file", ["title"])
        (" (did you mean 'warmup_ratio'?)", '')
    """
    from difflib import get_close_matches  # only a mistake needs it

    near = get_close_matches(name, known, n=1, cutoff=cutoff)
    if not near and cutoff <= NEAR:
        part = f"_{name}_".replace("-", "_")
        near = [
            word
            for word in known
            if part in f"_{word}_".replace("-", "_") or sorted(name) == sorted(word)
        ]
    return f" (did you mean {near[0]!r}?)" if near else ""
