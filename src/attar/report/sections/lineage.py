"""The lineage of models: each is a child of the model that it started from.

A model has one parent (`model = …` in its step), so the steps form trees whose roots are weights
from outside the recipe. The teacher of a distillation is mentioned on the student's line. All runs
of a sweep are one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attar.progress import counted
from attar.report.quantities import clipped, metric_text
from attar.report.reading import Made, base_name, number, table
from attar.report.sections.comparison import Comparison
from attar.report.sections.measured import DEPLOYED, FORM_WORDS

MODEL_STEPS = ("train", "fold", "quantize", "export")
MOST_BITS = 8
"""Maximum bits of quantized weights; more means float."""
FLOAT = "float32"
"""Number format of models that were not quantized."""
LONGEST_NAME = 48
"""Maximum length of a name in a sentence; folders and hub ids can be much longer."""


@dataclass(frozen=True)
class Node:
    name: str
    verb: str
    """Description of its step: "fine-tuned", "trained from random weights", "distilled from
    teacher", "int8, percentile", "OpenVINO"; "start" for a root."""
    facts: str
    """Depth, number of runs, and results of the first evaluation, if known."""
    children: tuple[Node, ...] = ()


def lineage(made: Sequence[Made], comparison: Comparison | None = None) -> tuple[Node, ...]:
    """The trees of models, roots first, in the recipe's order.

    Args:
        comparison: the comparison of the headline, whose figures are shown.
    """
    families: dict[str, list[Made]] = {}
    for step in made:
        if step.run in MODEL_STEPS:
            families.setdefault(base_name(step.name), []).append(step)
    parents = {name: base_name(steps[0].parent or "") for name, steps in families.items()}
    roots = dict.fromkeys(parent or name for name, parent in parents.items())
    tops = [root for root in roots if root not in families or not parents[root]]
    return tuple(_node(top, families, parents, comparison) for top in tops)


def _node(
    name: str,
    families: Mapping[str, Sequence[Made]],
    parents: Mapping[str, str],
    comparison: Comparison | None,
) -> Node:
    """A model and all below it; one parent each, so what is reached from a root has no circle."""
    below = [child for child, parent in parents.items() if parent == name]
    children = tuple(_node(child, families, parents, comparison) for child in below)
    steps = families.get(name)
    if not steps:
        return Node(name, "start", "starting weights", children)
    blocks = steps[0].blocks
    depth = counted(blocks, "block") if blocks else ""
    runs = f"{len(steps)} runs" if len(steps) > 1 else ""
    facts = ", ".join(filter(None, [depth, runs, _quality(name, comparison)]))
    return Node(name, verb(steps[0]), facts, children)


def _quality(name: str, comparison: Comparison | None) -> str:
    if comparison is None or (row := comparison.family(name)) is None:
        return ""
    metric = comparison.metric
    quality = row.qualities.get(metric)
    return f"{metric} {metric_text(metric, quality.value)}" if quality else ""


def verb(step: Made) -> str:
    """Description of what a step did to its model, in one or two words."""
    if step.run == "train":
        teacher = step.settings.get("teacher")
        if isinstance(teacher, str):
            return f"distilled from {teacher}"
        is_new = isinstance(step.settings.get("model"), Mapping) and step.parent is None
        return "trained from random weights" if is_new else "fine-tuned"
    if step.run == "fold":
        return f"folded to {table(step.metrics.get('variant')).get('to', 'fewer maps')}"
    if step.run == "quantize":
        return f"{bits_word(step)}, {step.metrics.get('method', 'quantized')}"
    form = str(step.metrics.get("format", "exported"))
    return FORM_WORDS.get(form, form)


def bits_word(step: Made) -> str:
    """`int8` for 8-bit weights and activations, otherwise `W4A8` etc.

    With a budget, the mean of the weights that it covers, `W4.9A8`, or with float tensors `int8 and
    float`, or `E8 and float` if only embeddings are quantized.
    """
    budget = table(step.metrics.get("budget"))
    floats = " and float" if budget.get("float_tensors") else ""
    weight, activation = (
        number(step.metrics.get(name)) for name in ("weight_bits", "activation_bits")
    )
    if weight is None or activation is None:
        return "quantized"
    covered = None if floats else number(budget.get("average_bits"))
    weight = weight if covered is None else covered
    embedding = number(step.metrics.get("embedding_bits"))
    if weight > MOST_BITS and embedding is not None:
        return f"E{_bits(embedding)}{floats}"
    word = "int8" if weight == activation == 8 else f"W{_bits(weight)}A{_bits(activation)}"
    return word + floats


def _bits(mean: float) -> str:
    """A whole number as such, a mean with its tenth."""
    return f"{mean:.0f}" if mean == round(mean) else f"{mean:.1f}"


def ancestors(name: str, made: Sequence[Made]) -> list[Made]:
    """The model's step and its ancestors within the recipe."""
    by_name = {base_name(step.name): step for step in made} | {step.name: step for step in made}
    chain: list[Made] = []
    step = by_name.get(name, by_name.get(base_name(name)))
    while step is not None and step.run in MODEL_STEPS and step not in chain:
        chain.append(step)
        step = by_name.get(step.parent or "")
    return chain


def descends(name: str, ancestor: str, made: Sequence[Made]) -> bool:
    """Whether a model descends from another one, by its weights or with it as a teacher."""
    by_name = {base_name(step.name): step for step in made} | {step.name: step for step in made}
    waiting, seen = [name], set[str]()
    while waiting:
        word = waiting.pop()
        if base_name(word) == base_name(ancestor) and word != name:
            return True
        step = by_name.get(word, by_name.get(base_name(word)))
        if step is None or word in seen:
            continue
        seen.add(word)
        behind = (step.parent, step.settings.get("teacher"))
        waiting += [each for each in behind if isinstance(each, str)]
    return False


def described(name: str, made: Sequence[Made]) -> str:
    """A noun phrase for a model: "6-block teacher", "3-block int8 student"."""
    chain = ancestors(name, made)
    if not chain:
        return clipped(name, LONGEST_NAME)
    trained = next((base_name(step.name) for step in chain if step.run == "train"), name)
    depth = next((step.blocks for step in chain if step.blocks), None)
    return " ".join(filter(None, [f"{depth}-block" if depth else "", _bits_of(chain), trained]))


def _bits_of(chain: Sequence[Made]) -> str:
    return next((bits_word(step) for step in chain if step.run == "quantize"), "")


def runtime_of(name: str, form: str, made: Sequence[Made]) -> str:
    """A model's runtime and, if known, number format: "PyTorch, float32", "OpenVINO, int8"."""
    chain = ancestors(name, made) if form in DEPLOYED else []
    is_float = any(step.run == "train" for step in chain)
    number_format = _bits_of(chain) or (FLOAT if is_float else "")
    return ", ".join(filter(None, [FORM_WORDS.get(form, form), number_format]))
