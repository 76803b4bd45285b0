"""Where an exported model comes from, as far as the recipe says: for its card.

Words of a recipe are escaped here, since they become Markdown. A model or data set that lies in a
folder is told by the folder's own name: where it lay on this machine helps nobody else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attar.data.glue import HUB_DATASET
from attar.escaping import for_markdown, for_markdown_code
from attar.models.sources.demo import DEMO_MODELS, PREFIX
from attar.models.sources.references import HUB_ID


def lineage_of(model: str, recipe: Mapping[str, Any]) -> list[str]:
    """One line of Markdown for each step back to the first model, oldest first."""
    *made, first = _chain(model, recipe)
    steps = recipe.get("steps", {})
    lines = [f"{for_markdown_code(word)}: {_described(steps[word])}" for word in made]
    if first is not None:
        lines.append(f"{for_markdown_code(_public(first))}: the model everything started from")
    return lines[::-1]


def base_model_of(model: str, recipe: Mapping[str, Any], recipe_folder: Path) -> str | None:
    """The hub id of the first model; None for one that is not from the hub."""
    *_, first = _chain(model, recipe)
    if first is None or (recipe_folder / first).exists():
        return None
    if first.startswith(PREFIX):
        demo = DEMO_MODELS.get(first.removeprefix(PREFIX))
        return demo.hub_id if demo else None
    return first if HUB_ID.fullmatch(first) else None


def datasets_of(model: str, recipe: Mapping[str, Any]) -> list[str]:
    """Hub ids of the data sets that the steps of the lineage learned from."""
    *made, _ = _chain(model, recipe)
    tables, steps = recipe.get("data", {}), recipe.get("steps", {})
    sources = {tables.get(steps[word].get("data"), {}).get("source") for word in made}
    return [HUB_DATASET] if "glue" in sources else []


def _chain(model: str, recipe: Mapping[str, Any]) -> Iterator[Any]:
    """The steps from the last to the first, then the word for the model they started from; None
    where that is none, such as one of random weights."""
    steps = recipe.get("steps", {})
    seen: set[str] = set()
    word: Any = model
    while isinstance(word, str) and word in steps and word not in seen:
        seen.add(word)
        yield word
        reference = steps[word].get("model")
        word = reference.get("from") if isinstance(reference, dict) else reference
    yield word if isinstance(word, str) and word not in steps else None


def _public(word: str) -> str:
    is_name = word.startswith(PREFIX) or HUB_ID.fullmatch(word)
    return word if is_name else Path(word).name or word


def _described(step: Mapping[str, Any]) -> str:
    """What one step does, in the recipe's own words."""
    kind = for_markdown(step.get("run"))
    told = [f"{kind} on data {for_markdown_code(step['data'])}" if "data" in step else kind]
    reference = step.get("model")
    if isinstance(reference, dict) and "from" in reference:
        told.append(_changes(reference))
    if step.get("teacher"):
        told.append(f"taught by {for_markdown_code(_public(str(step['teacher'])))}")
    if step.get("run") == "quantize":
        data = for_markdown_code(step.get("calibration", {}).get("data"))
        told.append(f"method {for_markdown(step.get('method'))}, calibrated on data {data}")
    return ", ".join(told)


def _changes(reference: Mapping[str, Any]) -> str:
    """What was made of another model before it was trained."""
    source = for_markdown_code(_public(str(reference["from"])))
    told = [f"starting from {source}"]
    if reference.get("keep_blocks"):
        kept = ", ".join(map(str, reference["keep_blocks"]))
        told = [f"keeping blocks {kept} of {source}"]
    for size in ("hidden_size", "intermediate_size", "num_attention_heads"):
        if reference.get(size):
            told.append(f"narrowed to {size} {reference[size]}")
    return ", ".join([*told, *(["with a new head"] if reference.get("new_head") else [])])
