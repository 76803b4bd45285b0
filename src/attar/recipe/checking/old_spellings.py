"""Converts settings of earlier versions to the current ones, before any other check."""

from __future__ import annotations

from typing import Any, cast

from attar.recipe.checking.mistakes import Mistake
from attar.recipe.checking.references import table_of


def renew(content: dict[str, Any]) -> list[Mistake]:
    """Replace `data = "films"` and `augmentation = "more"` by `data = "more"`, in place.

    Returns: mistakes for augment steps whose data differs from that of the step that uses them.
    """
    mistakes: list[Mistake] = []
    steps = table_of(content.get("steps"))
    for name, step in steps.items():
        if not isinstance(step, dict) or "augmentation" not in step:
            continue
        table = cast("dict[str, Any]", step)
        word = table.pop("augmentation")
        if word is None:  # recipes saved by earlier versions contain all settings
            continue
        maker = steps.get(word) if isinstance(word, str) else None
        read, own = table_of(maker).get("data"), table.get("data")
        if own not in (None, read, word) and read is not None:
            problem = (
                f"{word!r} makes rows of data {read!r}, and this step reads {own!r}; "
                f"write data = {word!r}, which is {read!r} with the made rows"
            )
            mistakes.append(Mistake(("steps", name, "augmentation"), problem))
        table["data"] = word
    return mistakes
