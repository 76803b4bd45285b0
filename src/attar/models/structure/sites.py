"""Where activations are quantized: the tensors of a model that get a grid each.

A *site* is one tensor, named by the module it passes and the port it passes there: a module's
`input`, its `output`, or the attention `probabilities` inside an attention module. In a post-norm
encoder block they are

    embedding (after its norm) · query · key · value · attention_probs · context · mha_norm · gelu ·
    ffn_norm

and, behind the blocks, pooler_input · classifier_input. One tensor has one grid: a norm's quantized
output feeds the queries, keys, values or the FFN *and* the shortcut around them. Left in float:
attention scores (their softmax follows), the sums before a norm, tanh, and logits. The last
ffn_norm is left alone when a pooler reads one of its tokens: the grid then belongs to what the
pooler reads.

One row a family below; nothing else asks for a family's name. Left out: heads other than sequence
classification, whose inputs would silently stay in float.
Source: Outlier Suppression (Wei et al. 2022), figure 8 and table 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from attar.errors import ModelError, did_you_mean

Port = Literal["input", "output", "probabilities"]
SITE_KINDS = (
    "embedding",
    "query",
    "key",
    "value",
    "attention_probs",
    "context",
    "mha_norm",
    "gelu",
    "ffn_norm",
    "pooler_input",
    "classifier_input",
)


@dataclass(frozen=True)
class Site:
    """One activation tensor that is quantized."""

    fqn: str
    """The module it passes."""
    port: Port
    kind: str
    """One of `SITE_KINDS`."""
    block: int | None
    """Number of the block from 0; None outside the blocks."""

    @property
    def name(self) -> str:
        """Unique in a model, and the key of every table about sites."""
        return f"{self.fqn}:{self.port}"


@dataclass(frozen=True)
class SiteRow:
    """One family: its places relative to the encoder, to a block, and to the whole model."""

    embedding: str
    blocks: str
    block_ports: tuple[tuple[str, str, Port], ...]
    """(kind, module inside a block, port), in the order of the forward pass."""
    poolers: tuple[str, ...]
    """Modules, from the whole model ("{encoder}" is its prefix), the first of which that exists
    reads one token.
    """
    classifiers: tuple[str, ...]


_POST_NORM_BLOCK: tuple[tuple[str, str, Port], ...] = (
    ("query", "attention.self.query", "output"),
    ("key", "attention.self.key", "output"),
    ("value", "attention.self.value", "output"),
    ("attention_probs", "attention.self", "probabilities"),
    ("context", "attention.output.dense", "input"),
    ("mha_norm", "attention.output.LayerNorm", "output"),
    ("gelu", "output.dense", "input"),
    ("ffn_norm", "output.LayerNorm", "output"),
)

SITE_ROWS: dict[str, SiteRow] = {
    "bert": SiteRow(
        embedding="embeddings.LayerNorm",
        blocks="encoder.layer",
        block_ports=_POST_NORM_BLOCK,
        poolers=("{encoder}pooler.dense",),
        classifiers=("classifier",),
    ),
    "roberta": SiteRow(
        embedding="embeddings.LayerNorm",
        blocks="encoder.layer",
        block_ports=_POST_NORM_BLOCK,
        poolers=("classifier.dense", "{encoder}pooler.dense"),
        classifiers=("classifier.out_proj",),
    ),
}
"""`config.model_type` → its row."""


def family_of(model: nn.Module) -> str:
    """The family's name as `SITE_ROWS` spells it.

    Raises:
        ModelError: the family has no row, or the model carries a head whose input no site covers.
    """
    config = getattr(model, "config", None)
    family = str(getattr(config, "model_type", type(model).__name__))
    known = sorted(SITE_ROWS)
    if family not in SITE_ROWS:
        raise ModelError(
            f"no quantization sites are known for family {family!r}{did_you_mean(family, known)}; "
            f"known families: {', '.join(known)}; to teach a new one, add its row to SITE_ROWS in "
            "src/attar/models/structure/sites.py"
        )
    kind = type(model).__name__
    is_encoder = not getattr(config, "is_decoder", False)
    has_known_head = kind.endswith("ForSequenceClassification") or _encoder_prefix(model) == ""
    if not (is_encoder and has_known_head):
        raise ModelError(
            f"quantization knows sequence classification models and bare encoders, got {kind}"
            f"{'' if is_encoder else ' with is_decoder = true'}; "
            "fine-tune it for classification or regression, or add its head to "
            "src/attar/models/structure/sites.py"
        )
    return family


def sites_of(model: nn.Module) -> list[Site]:
    """Every activation of `model` that is quantized, in the order of the forward pass.

    Raises:
        ModelError: the family is not known, or the model lacks a module its row names.
    """
    row = SITE_ROWS[family_of(model)]
    prefix = _encoder_prefix(model)
    modules = dict(model.named_modules())
    sites = [Site(prefix + row.embedding, "output", "embedding", None)]
    num_blocks = len(list(model.get_submodule(prefix + row.blocks).children()))
    for block in range(num_blocks):
        for kind, inner, port in row.block_ports:
            sites.append(Site(f"{prefix}{row.blocks}.{block}.{inner}", port, kind, block))
    poolers = [name.format(encoder=prefix) for name in row.poolers]
    pooler = next((name for name in poolers if name in modules), None)
    if pooler is not None:
        sites.pop()
        sites.append(Site(pooler, "input", "pooler_input", None))
        for name in row.classifiers:
            if name in modules:
                sites.append(Site(name, "input", "classifier_input", None))
    missing = [site.name for site in sites if site.fqn not in modules]
    if missing:
        raise ModelError(
            f"{type(model).__name__} lacks modules that its family's row names: "
            f"{', '.join(missing[:3])}; the row in "
            "src/attar/models/structure/sites.py does not fit it"
        )
    return sites


def quantized_weights(model: nn.Module) -> dict[str, Literal["embedding", "linear"]]:
    """Names of every embedding table and Linear weight, in module order; grids lie along axis 0."""
    found: dict[str, Literal["embedding", "linear"]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            found[f"{name}.weight"] = "embedding"
        elif isinstance(module, nn.Linear):
            found[f"{name}.weight"] = "linear"
    return found


def _encoder_prefix(model: nn.Module) -> str:
    """Nothing for a bare encoder, "bert." for a model that wraps one."""
    base = str(getattr(model, "base_model_prefix", ""))
    return f"{base}." if base and hasattr(model, base) else ""
