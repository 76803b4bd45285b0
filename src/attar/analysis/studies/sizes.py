"""`sizes`: what a model takes on disk at several widths, embeddings included.

    packed    Σ over quantized weights of O · ⌈I·bits/8⌉   +   4 bytes for every other parameter
    on disk   packed   +   4 bytes for each row's scale

The published sizes are the first line: packed integers, biases and norms in float32, no scales. It
reproduces the two models that are compared here, of the table's four; what really lies on a disk is
the second. Activations take no space: 4-4-8 and 4-4-4 are the same. Tied weights count once, at the
bits of embeddings.
Source: Outlier Suppression (Wei et al. 2022), table 17.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from attar.analysis.config import SizesStep
from attar.analysis.study import Finding
from attar.analysis.subject import open_model
from attar.artifacts import MIB
from attar.models.cost import cost_from_config
from attar.models.structure.sites import quantized_weights
from attar.step import StepContext

FLOAT_WIDTH = "32-32-32"
PUBLISHED: Mapping[str, tuple[Mapping[str, Any], Mapping[str, float]]] = {
    "BERT-base": (
        {"model_type": "bert"},
        {FLOAT_WIDTH: 417.6, "8-8-8": 104.8, "6-6-6": 78.7, "4-4-8": 52.6, "4-4-4": 52.6}
        | {"2-2-4": 26.5},
    ),
    "RoBERTa-base": (
        {"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514}
        | {"type_vocab_size": 1},
        {FLOAT_WIDTH: 475.5, "8-8-8": 119.2, "6-6-6": 89.5, "4-4-8": 59.8, "4-4-4": 59.8}
        | {"2-2-4": 30.1},
    ),
}
"""Model → its config (the defaults of transformers are those of the base size), and the published
MiB with a head of two classes."""


def sizes(config: SizesStep, context: StepContext) -> Finding:
    """MiB of the model and of the published ones at every width."""
    loaded = open_model(config.model, context)
    rows = [_row(config.model, loaded.model, width) for width in (FLOAT_WIDTH, *config.widths)]
    for name, (shape, published) in PUBLISHED.items():
        reference = cost_from_config(shape, num_labels=2).model
        for width in (FLOAT_WIDTH, *config.widths):
            rows.append(_row(name, reference, width) | {"published_mib": published.get(width)})
    own = {row["width"]: row["size_mib"] for row in rows if row["model"] == config.model}
    return Finding({"widths": list(config.widths)}, {"rows": rows}, {"size_mib": own})


def _row(name: str, model: nn.Module, width: str) -> dict[str, Any]:
    packed, scales = packed_bytes(model, width)
    return {
        "model": name,
        "width": width,
        "size_mib": (packed + scales) / MIB,
        "packed_mib": packed / MIB,
        "published_mib": None,
    }


def packed_bytes(model: nn.Module, width: str) -> tuple[int, int]:
    """Bytes of a model's parameters and of its weights' scales; works without weights.

    Args:
        width: bits of weights, embeddings and activations, such as "4-4-8"; "32-32-32": float.
    """
    weight_bits, embedding_bits, _ = (int(bits) for bits in width.split("-"))
    kinds = quantized_weights(model) if width != FLOAT_WIDTH else {}
    packed = scales = 0
    for name, parameter in model.named_parameters():  # names a tied weight once, the table first
        kind = kinds.get(name)
        if kind is None:
            packed += 4 * parameter.numel()
            continue
        bits = embedding_bits if kind == "embedding" else weight_bits
        rows, columns = parameter.shape
        packed += rows * -(-columns * bits // 8)
        scales += 4 * rows
    return packed, scales
