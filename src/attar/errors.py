"""Errors that a user can cause or fix, each with its exit code.

A message has four parts with numbers: *what* went wrong, the value *given*, what is *allowed*, and
the *next step*: "calibration needs 256 examples, data 'sst2' has 40 after filtering; lower
calibration.examples or add data". Any other exception is a bug, shown with its traceback (exit
code 1).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


class AttarError(Exception):
    """A problem that the user can fix. Printed without a traceback.

    Args:
        message: one line; it may contain untrusted text, which is escaped when printed.
        details: additional lines.
    """

    exit_code = 2

    def __init__(self, message: object, details: Sequence[str] = ()) -> None:
        self.lines = (str(message), *details)
        super().__init__("\n".join(self.lines))


class UsageError(AttarError):
    """An invalid request: a wrong option, a wrong folder, an impossible combination."""

    exit_code = 2


class RecipeError(AttarError):
    """All mistakes of a recipe, each with its place."""

    exit_code = 2

    def __init__(self, mistakes: Sequence[str], source: str = "recipe") -> None:
        self.mistakes = tuple(mistakes)
        count = len(self.mistakes)
        heading = f"{source}: {count} mistake{'s' if count != 1 else ''}"
        super().__init__(heading, [f"  - {mistake}" for mistake in self.mistakes])


class ModelError(AttarError):
    """A model that cannot be used: unknown family, labels that do not match, blocks that do not
    exist."""

    exit_code = 2


class DataError(AttarError):
    """Data that is empty, damaged, or does not match the recipe."""

    exit_code = 3


class ArtifactError(AttarError):
    """A file or folder that is damaged, not allowed (a pickle), or of the wrong kind."""

    exit_code = 3


class ResourceError(AttarError):
    """Not enough memory or disk space."""

    exit_code = 4


class NonFiniteError(AttarError):
    """A value such as a loss or a gradient is NaN or infinite; no weights were updated with it."""

    exit_code = 5


class GateMissedError(AttarError):
    """A gate of the recipe was missed; all results are saved."""

    exit_code = 6


class StoppedError(AttarError):
    """Stopped by SIGTERM or SIGINT; everything is saved, and `attar resume` continues."""

    exit_code = 75


OUT_OF_MEMORY = ("allocate memory", "not enough memory", "bad_alloc", "bad allocation")
"""Out-of-memory messages of torch (in a plain RuntimeError), ONNX Runtime and OpenVINO."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error is an out-of-memory error, of Python or of torch on any device."""
    torch = sys.modules.get("torch")  # if it is not loaded, it cannot have raised the error
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    )


NEAR = 0.75
"""Similarity threshold for a typo in a short word, such as "sead" for "seed". With difflib's
default of 0.6, "label" would match "table", and "file" would match "title"."""


def did_you_mean(name: str, known: Sequence[str], cutoff: float = NEAR) -> str:
    """A hint with the most similar known word, one with the same letters, or one that contains
    `name`; "" if there is none.

    Args:
        cutoff: minimum similarity, 0 to 1; above NEAR, containing words do not count.

    Example:
        >>> did_you_mean("learning_rat", ["learning_rate", "epochs"])
        " (did you mean 'learning_rate'?)"
        >>> did_you_mean("warmup", ["warmup_ratio", "epochs"]), did_you_mean("file", ["title"])
        (" (did you mean 'warmup_ratio'?)", '')
    """
    from difflib import get_close_matches  # imported only for errors

    near = get_close_matches(name, known, n=1, cutoff=cutoff)
    if not near and cutoff <= NEAR:
        part = f"_{name}_".replace("-", "_")
        near = [
            word
            for word in known
            if part in f"_{word}_".replace("-", "_") or sorted(name) == sorted(word)
        ]
    return f" (did you mean {near[0]!r}?)" if near else ""
