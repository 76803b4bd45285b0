"""The model card (`README.md`) of an exported folder.

An export step measures parity and size; quality and latency come later from an evaluate step. So
the export writes a card without them, and the end of the run completes it with the results
(`measured_card`), as text and as the hub's `model-index`. The license must be set by the user,
because it depends on the base model and the data. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.artifacts import CARD_FILE, disk_errors_explained
from attar.data.glue import HUB_DATASET
from attar.escaping import for_markdown, for_markdown_code, for_yaml
from attar.export.fusion_audit import FOUR_BIT, FusionAudit
from attar.models.deployed.runtimes import Deployment, RuntimeName
from attar.models.sources.demo import DEMO_MODELS, PREFIX
from attar.models.sources.references import HUB_ID
from attar.numerics.statistics import most_unseen
from attar.tasks.task import Task

if TYPE_CHECKING:
    from attar.export.parity import ParityResult  # `parity` imports torch

RUNTIMES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "safetensors": "attar and torch"}
NEEDED: Mapping[RuntimeName, tuple[str, ...]] = {
    "openvino": ("openvino", "tokenizers", "numpy"),
    "onnxruntime": ("onnxruntime", "tokenizers", "numpy"),
    "safetensors": ("attar[train]",),
}
"""Format → packages that `predict.py` imports."""
LIBRARIES = {"openvino": "openvino", "onnxruntime": "onnx", "safetensors": "attar"}
"""Format → `library_name` of the Hub."""
NO_LICENSE = "- No license is stated: those of the base model and of the training data apply."
NOT_MEASURED = (
    "- Accuracy and latency were not measured; measure them on your data and machine with "
    "`attar evaluate`."
)
"""The two lines that are replaced in a completed card."""
DATA_WORDS = {
    "glue": "GLUE's {task}, under its publisher's license",
    "summarization": "{task}, under its publisher's license",
    "stdlib_docs": "docstrings of Python's standard library (PSF-2.0)",
    "stdlib_text": "sources and reference of Python (PSF-2.0)",
    "hub": "{name} of the Hugging Face Hub, under the license stated there",
    "files": "the author's files; their license is not recorded",
    "corpus": "a corpus of another run; its license is not recorded",
}
"""Data source → its description in the card."""
MOST_LABELS, MOST_NAME = 50, 100
"""Maximum number of labels to list, and of characters of a name."""
STORED = {
    "packed": "Integers below 8 bits are stored packed; ",
    "int8": "Every integer is stored in one byte; ",
    "int4_kernel": "Weights of at most 4 bits take 4 bits in the file and in memory; ",
}
COMPUTED = {
    "int8": "matrix products run in 8 bits.",
    "int4": "the runtime's 4-bit kernel multiplies them in float, which is slower than int8.",
    "simulated": "torch computes in float on the integer grid, which is slow.",
}


def write_model_card(
    folder: Path,
    *,
    name: str,
    task: Task,
    deployment: Deployment,
    parity: ParityResult,
    audit: FusionAudit,
    size_mib: float,
    numbers: str,
    lineage: Sequence[str],
    base_model: str | None,
    datasets: Sequence[str],
    data: Sequence[str] = (),
) -> None:
    """Write the card.

    Args:
        numbers: description of the number formats, such as `ModelQParams.words`.
        lineage: one line of Markdown per step that the model went through, first to last.
        base_model: hub id of the model that the first step started from, if there is one.
        datasets: hub ids of the training datasets.
        data: one line of Markdown per data table used for training.
    """
    sections = [
        _front_matter(task, deployment, base_model, datasets),
        f"# {for_markdown(name, MOST_NAME)}",
        _what_it_is(task, deployment, size_mib, numbers),
        "## Use it",
        _usage(task, deployment),
        "## How it was made",
        "\n".join(f"{number}. {line}" for number, line in enumerate(lineage, 1)) or "Not recorded.",
        "## Data",
        "\n".join(f"- {line}" for line in data) or "Not recorded.",
        "## Measured at export",
        _figures(task, parity, audit),
        "## Limits",
        _limits(task, deployment),
    ]
    with disk_errors_explained(folder):
        (folder / CARD_FILE).write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _front_matter(
    task: Task, deployment: Deployment, base_model: str | None, datasets: Sequence[str]
) -> str:
    """The metadata that the Hugging Face Hub reads."""
    library = LIBRARIES[deployment.format]
    is_quantized = bool(deployment.bits)
    tags = ["attar", library, *(["quantized", deployment.precision] if is_quantized else [])]
    fields: dict[str, str | Sequence[str]] = {
        "library_name": library,
        "pipeline_tag": task.shown.pipeline_tag,
        "tags": list(dict.fromkeys(tags)),
    }
    if base_model is not None:
        fields["base_model"] = base_model
        fields["base_model_relation"] = "quantized" if is_quantized else "finetune"
    if datasets:
        fields["datasets"] = datasets
    lines = [f"{name}: {_yaml(value)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---"])


def _yaml(value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        return for_yaml(value)
    return f"[{', '.join(map(for_yaml, value))}]"


def _what_it_is(task: Task, deployment: Deployment, size_mib: float, numbers: str) -> str:
    runtime = RUNTIMES[deployment.format]
    answer = task.shown.words.format(count=len(task.label_names), labels=_listed(task.label_names))
    asked = "a pair of texts" if task.num_texts == 2 else "a text"
    return (
        f"A text model for {runtime} on a CPU, with {numbers}. It answers {asked} with "
        f"{answer}.\n\n"
        f"{deployment.num_params:,} parameters, {size_mib:.1f} MiB of graph and weights."
        + (
            f" {STORED[deployment.weight_storage]}{COMPUTED[deployment.precision]}"
            if deployment.bits
            else ""
        )
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(for_markdown(name, MOST_NAME) for name in names[:MOST_LABELS])
    left = len(names) - MOST_LABELS
    return f"{shown} and {left:,} more (`task.json`)" if left > 0 else shown


def install_command(form: RuntimeName) -> str:
    """The command that installs what `predict.py` imports, in the versions of this export."""
    packages = (f"{name}=={version(name.partition('[')[0])}" for name in NEEDED[form])
    return "pip install " + " ".join(f'"{each}"' if "[" in each else each for each in packages)


def _usage(task: Task, deployment: Deployment) -> str:
    is_torch = deployment.format == "safetensors"
    is_pair = task.num_texts == 2
    command = install_command(deployment.format)
    arguments = '"first text" "second text"' if is_pair else '"some text"'
    row = '("first text", "second text")' if is_pair else '"some text"'
    return (
        f"```sh\n{command}\npython -P predict.py {arguments}\n```\n\n"
        + ("" if is_torch else "or with attar, without torch:\n\n")
        + f'```python\nimport attar\nattar.load("this folder").{task.shown.verb}([{row}])\n```'
    )


def _figures(task: Task, parity: ParityResult, audit: FusionAudit) -> str:
    counts = audit.as_metrics()
    lines = [
        f"- {counts['num_int8']} of {counts['num_matmuls']} matrix products run in 8 bits on the "
        f"exporting machine{_four_bit(audit)} (`fusion_audit.json` names the others, and why).",
    ]
    if parity.error_ratio is not None:  # only for quantized activations
        lines.append(
            f"- On {parity.examples} texts the outputs were compared with those of the quantized "
            "model in torch, with only the quantizers that this runtime has. They differ by "
            f"{100 * parity.relative_error:.0f} % of the quantization error of the activations "
            f"(root mean square){_flips(parity, task)}. That error is {parity.error_ratio:.2f} "
            "times as large as in torch (`parity.json`). The quantized model in torch may have "
            "other quantizers too, such as those of attention probabilities, so an evaluation of "
            "it can differ more."
        )
    else:
        lines.append(
            f"- On {parity.examples} texts the logits differ from torch's by at most "
            f"{parity.max_difference:.1e} (`parity.json`)."
        )
    return "\n".join(lines)


def _flips(parity: ParityResult, task: Task) -> str:
    """Number of label flips. None of n only shows that their share is below about 3/n."""
    if parity.vectors is not None:
        return (
            f"; the cosine between both vectors of a text is {parity.vectors['cosine']:.5f} on "
            f"average, {parity.vectors['worst_cosine']:.5f} at worst, and "
            f"{parity.vectors['neighbour_overlap']:.1%} of the ten nearest texts are the same"
        )
    if not task.kind.has_classes:
        return ""
    if parity.label_flips:
        return f"; {parity.label_flips:.1%} of the labels differ"
    most = 100 * most_unseen(parity.examples)
    return f"; no label differs (with 95 % confidence, fewer than {most:.2g} % of all do)"


def _four_bit(audit: FusionAudit) -> str:
    count = sum(product.precision == FOUR_BIT for product in audit.products)
    return f", {count} with 4-bit weights and floats" if count else ""


def _limits(task: Task, deployment: Deployment) -> str:
    reads = "read in windows of" if task.kind.answers_tokens else "cut at"
    lines = [
        NO_LICENSE,
        f"- Texts are {reads} {task.max_length} tokens.",
        "- It is only reliable on the language and the kind of text it was trained on.",
        NOT_MEASURED,
    ]
    if deployment.bits and deployment.format != "safetensors":
        lines.append(_cpu_limit(deployment))
    return "\n".join(lines)


def _cpu_limit(deployment: Deployment) -> str:
    """Note about CPUs without int8 dot products, where ONNX Runtime's kernels saturate."""
    without = "- A CPU without int8 dot products (VNNI on x86)"
    if deployment.format == "onnxruntime" and deployment.cpu.get("int8"):
        return (
            f"{without} may saturate in 8-bit sums and give wrong predictions, because the model "
            "was exported on a CPU that has them. Export it again on a machine like the one it "
            "will run on."
        )
    return f"{without} runs it, but not faster than float."


def lineage_of(model: str, recipe: Mapping[str, Any]) -> list[str]:
    """One line of Markdown per step since the first model, oldest first."""
    *made, first = _chain(model, recipe)
    steps = recipe.get("steps", {})
    lines = [f"{for_markdown_code(word)}: {_described(steps[word])}" for word in made]
    if first is not None:
        lines.append(f"{for_markdown_code(_public(first))}: the initial model")
    return lines[::-1]


def base_model_of(model: str, recipe: Mapping[str, Any], recipe_folder: Path) -> str | None:
    """The hub id of the first model; None if it is not from the hub."""
    *_, first = _chain(model, recipe)
    if first is None or (recipe_folder / first).exists():
        return None
    if first.startswith(PREFIX):
        demo = DEMO_MODELS.get(first.removeprefix(PREFIX))
        return demo.hub_id if demo else None
    return first if HUB_ID.fullmatch(first) else None


def datasets_of(model: str, recipe: Mapping[str, Any]) -> list[str]:
    """Hub ids of the training datasets of the lineage."""
    *made, _ = _chain(model, recipe)
    tables, steps = recipe.get("data", {}), recipe.get("steps", {})
    sources = {tables.get(steps[word].get("data"), {}).get("source") for word in made}
    return [HUB_DATASET] if "glue" in sources else []


def data_of_lineage(model: str, recipe: Mapping[str, Any]) -> list[str]:
    """A line of Markdown for each data table used for training in the lineage."""
    *made, _ = _chain(model, recipe)
    steps, tables = recipe.get("steps", {}), recipe.get("data", {})
    names = [name for word in made if isinstance(name := steps[word].get("data"), str)]
    lines: list[str] = []
    for name in dict.fromkeys(names):
        table = tables.get(name, {})
        words = DATA_WORDS.get(table.get("source", ""), "rows made by another step")
        shown = {key: for_markdown(value, MOST_NAME) for key, value in table.items()}
        lines.append(f"{for_markdown_code(name)}: {words.format_map(shown)}")
    return lines


def _chain(model: str, recipe: Mapping[str, Any]) -> Iterator[Any]:
    """The steps from last to first, followed by the name of the model they started from, or None
    for random weights."""
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
    """Description of one step, in terms of the recipe."""
    kind = for_markdown(step.get("run"))
    told = [f"{kind} on data {for_markdown_code(step['data'])}" if "data" in step else kind]
    reference = step.get("model")
    if isinstance(reference, dict) and "from" in reference:
        told.append(_changes(reference))
    if step.get("teacher"):
        told.append(f"distilled from {for_markdown_code(_public(str(step['teacher'])))}")
    if step.get("run") == "quantize":
        data = for_markdown_code(step.get("calibration", {}).get("data"))
        told.append(f"method {for_markdown(step.get('method'))}, calibrated on data {data}")
    return ", ".join(told)


def _changes(reference: Mapping[str, Any]) -> str:
    """Description of how a student was derived from another model before training."""
    source = for_markdown_code(_public(str(reference["from"])))
    told = [f"starting from {source}"]
    if reference.get("keep_blocks"):
        kept = ", ".join(map(str, reference["keep_blocks"]))
        told = [f"keeping blocks {kept} of {source}"]
    for size in ("hidden_size", "intermediate_size", "num_attention_heads"):
        if reference.get(size):
            told.append(f"narrowed to {size} {reference[size]}")
    return ", ".join([*told, *(["with a new head"] if reference.get("new_head") else [])])
