"""Settings of earlier versions, rewritten as today's before anything else is looked at."""

from __future__ import annotations

from typing import Any, cast

from attar.recipe.checking.mistakes import Mistake
from attar.recipe.checking.references import table_of


def renew(content: dict[str, Any]) -> list[Mistake]:
    """Rewrite `augmentation = "more"` beside `data = "films"` as `data = "more"`, in place.

    Returns: augment steps that read other data than the step that names them.
    """
    mistakes: list[Mistake] = []
    steps = table_of(content.get("steps"))
    for name, step in steps.items():
        if not isinstance(step, dict) or "augmentation" not in step:
            continue
        table = cast("dict[str, Any]", step)
        word = table.pop("augmentation")
        if word is None:  # a recipe that an earlier version saved names every setting
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
