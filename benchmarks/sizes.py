"""What does a model take on disk at several bit widths, embeddings included?

    python benchmarks/sizes.py MODEL ...          # folders with model/, or hub ids

    packed    Σ over quantized weights of O · ⌈I·bits/8⌉   +   4 bytes for every other parameter
    on disk   packed   +   4 bytes for each row's scale

Published sizes are the first line: packed integers, biases and norms in float32, no scales.
BERT, RoBERTa and BART are counted from their configs and stand beside the published figures.
Activations take no space. A tied weight counts once, at the bits of embeddings.
Source: Outlier Suppression (Wei et al. 2022), table 17.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from attar.artifacts import MIB
from attar.models.cost import Head, cost_from_config
from attar.models.load import load_model
from attar.models.sources.references import resolve_model
from attar.models.structure.sites import quantized_weights
from record import table, write_page

FLOAT = "32-32-32"
WIDTHS = (FLOAT, "8-8-8", "6-6-6", "4-4-8", "4-4-4", "2-2-4")
"""Bits of weights, embeddings and activations."""
BART = {
    **{"model_type": "bart", "d_model": 768, "vocab_size": 50265, "max_position_embeddings": 1024},
    **{f"{stack}_layers": 6 for stack in ("encoder", "decoder")},
    **{f"{stack}_ffn_dim": 3072 for stack in ("encoder", "decoder")},
    **{f"{stack}_attention_heads": 12 for stack in ("encoder", "decoder")},
}
PUBLISHED: Mapping[str, tuple[Mapping[str, Any], tuple[float, ...]]] = {
    "BERT-base": ({"model_type": "bert"}, (417.6, 104.8, 78.7, 52.6, 52.6, 26.5)),
    "RoBERTa-base": (
        {"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514}
        | {"type_vocab_size": 1},
        (475.5, 119.2, 89.5, 59.8, 59.8, 30.1),
    ),
    "BART-base": (BART, (534.1, 134.0, 100.6, 67.3, 67.3, 34.0)),
    "BART-base, XSum": (
        BART | {"architectures": ["BartForConditionalGeneration"]},
        (531.8, 133.4, 100.2, 67.0, 67.0, 33.8),
    ),
}
"""Model → its config (of BERT and RoBERTa the defaults of transformers are those of the base size),
and the published MiB with a head of two classes, or none, in the order of `WIDTHS`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="folders, hub ids or demo models")
    arguments = parser.parse_args()
    rows: list[tuple[str, ...]] = []
    for word in arguments.models:
        model = load_model(resolve_model(word, {}, Path.cwd())).model
        rows += [row(word, model, width) for width in WIDTHS]
    for name, (config, published) in PUBLISHED.items():
        classes = None if "architectures" in config else 2
        model = cost_from_config(config, Head(classes)).model
        for width, mib in zip(WIDTHS, published, strict=True):
            rows.append((*row(name, model, width)[:-1], str(mib)))
    head = ("model", "W-E-A", "on disk, MiB", "without scales", "published")
    write_page("sizes", "What does a model take on disk?", table(head, rows))


def row(name: str, model: nn.Module, width: str) -> tuple[str, ...]:
    packed, scales = packed_bytes(model, width)
    return name, width, f"{(packed + scales) / MIB:,.1f}", f"{packed / MIB:,.2f}", "–"


def packed_bytes(model: nn.Module, width: str) -> tuple[int, int]:
    """Bytes of a model's parameters and of its weights' scales; works on the meta device."""
    weight_bits, embedding_bits, _ = (int(bits) for bits in width.split("-"))
    kinds = quantized_weights(model) if width != FLOAT else {}
    packed = scales = 0
    for name, parameter in model.named_parameters():  # names a tied weight once, the table first
        kind = kinds.get(name)
        if kind is None:
            packed += 4 * parameter.numel()
            continue
        bits = embedding_bits if kind == "embedding" else weight_bits
        num_rows, columns = parameter.shape
        packed += num_rows * -(-columns * bits // 8)
        scales += 4 * num_rows
    return packed, scales


if __name__ == "__main__":
    main()
