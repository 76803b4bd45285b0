"""Parity check: compares the exported model with the simulated model, on real texts.

A deployed model never matches its simulation bit for bit: summation in a different order moves an
activation across a rounding boundary, and later layers amplify this. (On MiniLM with 3 blocks, the
*same* simulated model in float64 differs by 0.36 of the quantization error.) So differences are
measured relative to the quantization error:

    relative_error = rms(deployed − simulated) / rms(simulated − float)
    label_flips    = share of texts whose predicted label differs

Embeddings have no label. Their agreement is recorded as cosines, and as the share of each text's
ten nearest neighbours that stay the same (`attar.scoring.vectors`).

A relative error of √2 is expected if the runtime is as accurate as the simulation but rounds
independently. An export with a mistake (a wrong grid, a lost mask) gives several times as much.
`error_ratio` = rms(deployed − float) / rms(simulated − float) does not depend on this randomness: 1
means that deployment added no error.

"Simulated" has the same quantizers as the runtime, and "float" has the same weights and no
quantizers. A model whose activations are all float is compared with torch directly: the largest
difference of a logit, relative to max(1, largest |logit|), must be within `FLOAT_TOLERANCE`.

The float side does not use attar's code: transformers loads the tokenizer of the source folder and,
for a float model, the network. Token ids are compared before logits.
Shapes: B texts (or tokens, for token classification), C classes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from attar.data.tokenize import Encoded, TextEncoder
from attar.errors import GateMissedError, NonFiniteError
from attar.export.config import Parity
from attar.export.float_sites import FLOAT_SITES
from attar.export.lowering import is_quantized
from attar.models.deployed.runtimes import Runtime
from attar.models.ffn_variants import settings_in
from attar.models.load import load_model, quiet_transformers
from attar.models.simulated.qparams import ModelQParams
from attar.models.simulated.quantized import load_simulated, quantizing
from attar.models.sources.safe_files import read_model_files
from attar.models.structure.site_kinds import SITE_KINDS
from attar.scoring.in_memory import head_logits
from attar.scoring.rows import Scorer, score_rows, score_tokens
from attar.scoring.vectors import vector_agreement
from attar.special_tokens import open_tokenizer, padding_id
from attar.tasks.task import Task

FLOAT_TOLERANCE = 1e-4
"""Tolerance for logits of a float export: float32 rounding with a different summation order, with a
margin."""
BATCH_SIZE = 16


@dataclass(frozen=True)
class ParityResult:
    """`parity.json`."""

    examples: int
    against: str
    """"simulated", or "float" for a model that is not quantized."""
    relative_error: float
    label_flips: float
    """Share of texts, or of tokens for token classification, whose label differs; 0 for regression,
    embeddings and extractive answers."""
    max_relative_error: float
    max_label_flips: float
    max_difference: float
    """Largest absolute difference of a logit."""
    error_ratio: float | None = None
    quantization_error: float | None = None
    """rms(simulated − float), in logits."""
    all_sites_error: float | None = None
    """relative_error with respect to the simulated model with all quantizers, including those that
    no runtime has."""
    vectors: dict[str, float | None] | None = None
    """Embedding models: `VectorAgreement` with the reference model."""
    vectors_to_float: dict[str, float | None] | None = None
    """Embedding models: the same for the reference without activation quantizers."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def encoded_texts(
    texts: Sequence[tuple[str, ...]], model_folder: Path, folder: Path, task: Task, what: str
) -> Encoded:
    """Tokenize the texts with the exported folder.

    Args:
        model_folder: the source model.
        what: name of the export in messages.
    Raises:
        GateMissedError: transformers gives different tokens for a text with the tokenizer of
            `model_folder`.
    """
    encoded = TextEncoder.from_folder(folder, task.max_length, task.input_names).encode(texts)
    _require_same_tokens(texts, encoded, model_folder, task, what)
    return encoded


def _require_same_tokens(
    texts: Sequence[tuple[str, ...]], ours: Encoded, model_folder: Path, task: Task, what: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(
        model_folder, local_files_only=True, trust_remote_code=False
    )
    for row, text in enumerate(texts):
        theirs = tokenizer(*text, truncation=True, max_length=task.max_length)
        for name, values in ours.batch([row]).items():
            expected = theirs.get(name)
            if expected is not None and list(expected) != values[0].tolist():
                raise GateMissedError(
                    f"{what} reads text {row} as other {name} than transformers reads it in "
                    f"{model_folder}; nothing was published. Text: {text!r}; exported: "
                    f"{values[0].tolist()}; transformers: {list(expected)}. The tokenizer's files "
                    "contradict each other, or attar reads them wrongly: save the tokenizer again "
                    "with transformers (AutoTokenizer.from_pretrained(…).save_pretrained(…)), and "
                    "report it if that does not help"
                )


def measure_parity(
    model_folder: Path,
    runtime: Runtime,
    encoded: Encoded,
    task: Task,
    limits: Parity,
    float_sites: Collection[str] = FLOAT_SITES,
) -> ParityResult:
    """Compare the open runtime with the torch model of `model_folder`.

    Args:
        float_sites: kinds of sites that stay float in the runtime.
    Raises:
        GateMissedError: a logit of the runtime is NaN or infinite.
    """
    try:
        deployed = _logits(runtime.logits, encoded, task, "the exported model")
    except NonFiniteError as error:
        raise GateMissedError(f"{error}; nothing was published") from error
    if not is_quantized(model_folder):
        expected = _logits(head_logits(_of_transformers(model_folder, task)), encoded, task)
        return _without_grids("float", expected, deployed, task, limits)
    model = load_simulated(model_folder, skip_kinds=SITE_KINDS).model
    sites = ModelQParams.read(model_folder).sites
    unquantized = _logits(head_logits(model), encoded, task)
    given = [site for site in sites if site.kind not in float_sites]
    if not given:  # only weights are quantized, or a budget leaves all Linears float
        return _without_grids("simulated", unquantized, deployed, task, limits)
    with quantizing(model, given):
        simulated = _logits(head_logits(model), encoded, task)
    with quantizing(model, sites):
        complete = _logits(head_logits(model), encoded, task)
    return compare(deployed, simulated, unquantized, complete, task, limits)


def compare(
    deployed_BC: np.ndarray,
    simulated_BC: np.ndarray,
    unquantized_BC: np.ndarray,
    complete_BC: np.ndarray,
    task: Task,
    limits: Parity,
) -> ParityResult:
    """Compute the figures of a quantized model from logits.

    Args:
        simulated_BC: with the quantizers that the runtime has.
        unquantized_BC: without quantizers.
        complete_BC: with all quantizers.
    """
    error = _rms(simulated_BC - unquantized_BC)
    return ParityResult(
        examples=len(deployed_BC),
        against="simulated",
        relative_error=_ratio(_rms(deployed_BC - simulated_BC), error),
        label_flips=_flips(deployed_BC, simulated_BC, task),
        max_relative_error=limits.max_relative_error,
        max_label_flips=limits.max_label_flips,
        max_difference=float(np.abs(deployed_BC - simulated_BC).max()),
        error_ratio=_ratio(_rms(deployed_BC - unquantized_BC), error),
        quantization_error=error,
        all_sites_error=_ratio(_rms(deployed_BC - complete_BC), _rms(complete_BC - unquantized_BC)),
        vectors=_agreement(deployed_BC, simulated_BC, task),
        vectors_to_float=_agreement(deployed_BC, unquantized_BC, task),
    )


def _of_transformers(model_folder: Path, task: Task) -> PreTrainedModel:
    """Load the source model with transformers. Padding, needed for batches, is set by attar. attar
    also opens models with its own feed-forward variants, and does the pooling of embedding models.
    """
    files = read_model_files(model_folder)
    if settings_in(files.config, str(model_folder)) is not None or not task.kind.heads:
        return load_model(model_folder).model
    heads: Any = getattr(transformers, task.kind.classes)
    with quiet_transformers():
        config = AutoConfig.from_pretrained(
            model_folder, local_files_only=True, trust_remote_code=False
        )
        model = heads[type(config)].from_pretrained(
            model_folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
        )
    model.config.pad_token_id = padding_id(model_folder, open_tokenizer(model_folder))
    return model.eval()


def check_parity(result: ParityResult, what: str) -> None:
    """Check the parity result against its limits.

    Raises:
        GateMissedError: a limit is exceeded, or a logit is not finite.
    """
    within = (
        result.relative_error <= result.max_relative_error
        and result.label_flips <= result.max_label_flips
    )
    if within:  # False for NaN
        return
    raise GateMissedError(
        f"{what} differs from its {result.against} model on {result.examples} texts: "
        f"relative_error {result.relative_error:.3g} (at most {result.max_relative_error:g}), "
        f"label_flips {result.label_flips:.3g} (at most {result.max_label_flips:g}), "
        f"error_ratio {result.error_ratio if result.error_ratio is not None else 1:.3g} "
        "(near 1: the runtime only rounds elsewhere; well above: the export is wrong); nothing was "
        "published. Raise parity.max_relative_error or parity.max_label_flips if you accept that, "
        "use more parity.examples, or quantize to more bits"
    )


def _without_grids(
    against: str, expected: np.ndarray, deployed: np.ndarray, task: Task, limits: Parity
) -> ParityResult:
    """Result for float activations on both sides; relative_error is max |difference| of the logits,
    relative to max(1, largest |logit|)."""
    difference = float(np.abs(deployed - expected).max())
    return ParityResult(
        examples=len(deployed),
        against=against,
        relative_error=difference / max(1.0, float(np.abs(expected).max())),
        label_flips=_flips(deployed, expected, task),
        max_relative_error=FLOAT_TOLERANCE,
        max_label_flips=limits.max_label_flips,
        max_difference=difference,
        vectors=_agreement(deployed, expected, task),
    )


def _logits(
    scorer: Scorer, encoded: Encoded, task: Task, model: str = "the torch model"
) -> np.ndarray:
    """Logits (B, C), or (tokens, C) for token classification. Texts are batched in the given order,
    so that batches have mixed lengths."""
    batches = np.split(np.arange(len(encoded)), range(BATCH_SIZE, len(encoded), BATCH_SIZE))
    score = score_tokens if task.kind.answers_tokens else score_rows
    return score(scorer, encoded, batches, model)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _ratio(part: float, whole: float) -> float:
    """part / whole, where 0/0 is 0 and a nonzero part of 0 is infinite."""
    if whole > 0:
        return part / whole
    return 0.0 if part == 0 else 1e9


def _flips(ours: np.ndarray, theirs: np.ndarray, task: Task) -> float:
    if not task.kind.has_labels:
        return 0.0
    if task.kind.gives_sets:
        cuts = np.array(task.cuts)
        return float(((ours >= cuts) != (theirs >= cuts)).any(axis=1).mean())
    return float((ours.argmax(axis=1) != theirs.argmax(axis=1)).mean())


def _agreement(ours: np.ndarray, theirs: np.ndarray, task: Task) -> dict[str, float | None] | None:
    return vector_agreement(ours, theirs).as_json() if task.kind.embeds else None
