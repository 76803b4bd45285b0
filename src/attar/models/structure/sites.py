"""Where activations are quantized: the tensors of a model that get a grid each.

A *site* is one tensor, named by the module it passes and the port it passes there: a module's
`input`, its `output`, or the attention `probabilities` inside an attention module. In a post-norm
encoder block they are

    embedding (after its norm) · query · key · value · attention_probs · context · mha_norm · gelu ·
    ffn_norm

a decoder block that also looks at an encoder has, between mha_norm and gelu,

    cross_query · cross_key · cross_value · cross_probs · cross_context · cross_norm

and behind the blocks stand pooler_input · classifier_input. One tensor has one grid: a norm's
quantized output feeds the queries, keys, values or the FFN *and* the shortcut around them; the last
one of an encoder feeds the cross keys and values of every decoder block. Left in float: attention
scores (their softmax follows), the sums before a norm, tanh, and logits. The last ffn_norm is left
alone when a pooler reads one of its tokens: the grid then belongs to what the pooler reads. A
language head reads every token of it, so there the norm's own grid is the head's input.

Queries are quantized as the map gives them, before the scores are scaled by 1/√K. That is the
published site "after the scaling": for a > 0 the grid of a·x is a times the grid of x (same
integers, scale a·s), so rounding and scaling may change places. Keys and values are quantized as
their maps give them, which is before they enter a cache: a cached value is rounded once, however
often it is read.

One row a family below; nothing else asks for a family's name. Left out: heads other than sequence
classification and the language head of an encoder-decoder, whose inputs would silently stay in
float.
Source: Outlier Suppression (Wei et al. 2022), figure 8 and table 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from attar.errors import ModelError, did_you_mean

Port = Literal["input", "output", "probabilities"]
StackName = Literal["encoder", "decoder"]
SITE_KINDS = (
    "embedding",
    "query",
    "key",
    "value",
    "attention_probs",
    "context",
    "mha_norm",
    "cross_query",
    "cross_key",
    "cross_value",
    "cross_probs",
    "cross_context",
    "cross_norm",
    "gelu",
    "ffn_norm",
    "pooler_input",
    "classifier_input",
)
OF_THE_ENCODER = ("cross_key", "cross_value")
"""Kinds that lie in a decoder block and whose tokens are the encoder's."""


@dataclass(frozen=True)
class Site:
    """One activation tensor that is quantized."""

    fqn: str
    """The module it passes."""
    port: Port
    kind: str
    """One of `SITE_KINDS`."""
    block: int | None
    """Number of the block from 0 in its stack; None outside the blocks."""
    stack: StackName = "encoder"
    """Where it lies; a model of one stack has an encoder only."""

    @property
    def name(self) -> str:
        """Unique in a model, and the key of every table about sites."""
        return f"{self.fqn}:{self.port}"

    @property
    def tokens(self) -> StackName:
        """Whose texts its rows are tokens of: those of its stack, but for what cross-attention
        makes of the encoder's output. Probabilities: whose queries.
        """
        return "encoder" if self.kind in OF_THE_ENCODER else self.stack

    @property
    def keys(self) -> StackName:
        """Whose texts the last axis of probabilities runs over."""
        return "encoder" if self.kind == "cross_probs" else self.stack

    @property
    def is_causal(self) -> bool:
        """Probabilities whose pairs (query, later key) are masked: a decoder's own."""
        return self.kind == "attention_probs" and self.stack == "decoder"


BlockPorts = tuple[tuple[str, str, Port], ...]
"""(kind, module inside a block, port), in the order of the forward pass."""


@dataclass(frozen=True)
class StackSites:
    """One stack of blocks: names relative to the base model."""

    name: StackName
    embedding: str
    blocks: str
    ports: BlockPorts


@dataclass(frozen=True)
class SiteRow:
    """One family: its stacks in the order of the forward pass, and what follows them."""

    stacks: tuple[StackSites, ...]
    poolers: tuple[str, ...]
    """Modules, from the whole model ("{base}" is its prefix), the first of which that exists
    reads one token.
    """
    classifiers: tuple[str, ...]


_POST_NORM_BLOCK: BlockPorts = (
    ("query", "attention.self.query", "output"),
    ("key", "attention.self.key", "output"),
    ("value", "attention.self.value", "output"),
    ("attention_probs", "attention.self", "probabilities"),
    ("context", "attention.output.dense", "input"),
    ("mha_norm", "attention.output.LayerNorm", "output"),
    ("gelu", "output.dense", "input"),
    ("ffn_norm", "output.LayerNorm", "output"),
)
_BERT_STACK = StackSites("encoder", "embeddings.LayerNorm", "encoder.layer", _POST_NORM_BLOCK)

_BART_SELF: BlockPorts = (
    ("query", "self_attn.q_proj", "output"),
    ("key", "self_attn.k_proj", "output"),
    ("value", "self_attn.v_proj", "output"),
    ("attention_probs", "self_attn", "probabilities"),
    ("context", "self_attn.out_proj", "input"),
    ("mha_norm", "self_attn_layer_norm", "output"),
)
_BART_CROSS: BlockPorts = (
    ("cross_query", "encoder_attn.q_proj", "output"),
    ("cross_key", "encoder_attn.k_proj", "output"),
    ("cross_value", "encoder_attn.v_proj", "output"),
    ("cross_probs", "encoder_attn", "probabilities"),
    ("cross_context", "encoder_attn.out_proj", "input"),
    ("cross_norm", "encoder_attn_layer_norm", "output"),
)
_BART_FFN: BlockPorts = (
    ("gelu", "fc2", "input"),
    ("ffn_norm", "final_layer_norm", "output"),
)

SITE_ROWS: dict[str, SiteRow] = {
    "bert": SiteRow(
        stacks=(_BERT_STACK,),
        poolers=("{base}pooler.dense",),
        classifiers=("classifier",),
    ),
    "roberta": SiteRow(
        stacks=(_BERT_STACK,),
        poolers=("classifier.dense", "{base}pooler.dense"),
        classifiers=("classifier.out_proj",),
    ),
    "bart": SiteRow(
        stacks=(
            StackSites(
                *("encoder", "encoder.layernorm_embedding", "encoder.layers"),
                ports=(*_BART_SELF, *_BART_FFN),
            ),
            StackSites(
                *("decoder", "decoder.layernorm_embedding", "decoder.layers"),
                ports=(*_BART_SELF, *_BART_CROSS, *_BART_FFN),
            ),
        ),
        poolers=("classification_head.dense",),
        classifiers=("classification_head.out_proj",),
    ),
}
"""`config.model_type` → its row."""
HEADS = ("ForSequenceClassification", "ForConditionalGeneration")
"""Ends of the names of classes whose heads' inputs are covered."""


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
    is_decoder_alone = bool(getattr(config, "is_decoder", False))
    has_known_head = kind.endswith(HEADS) or _base_prefix(model) == ""
    if is_decoder_alone or not has_known_head:
        raise ModelError(
            "quantization knows sequence classification models, encoder-decoders that generate "
            f"text, and bare models, got {kind}"
            f"{' with is_decoder = true' if is_decoder_alone else ''}; "
            "fine-tune it for one of these, or add its head to "
            "src/attar/models/structure/sites.py"
        )
    return family


def sites_of(model: nn.Module) -> list[Site]:
    """Every activation of `model` that is quantized, in the order of the forward pass.

    Raises:
        ModelError: the family is not known, or the model lacks a module its row names.
    """
    row = SITE_ROWS[family_of(model)]
    prefix = _base_prefix(model)
    modules = dict(model.named_modules())
    sites = [site for stack in row.stacks for site in _stack_sites(model, stack, prefix)]
    poolers = [name.format(base=prefix) for name in row.poolers]
    pooler = next((name for name in poolers if name in modules), None)
    if pooler is not None:
        last = sites.pop().stack
        sites.append(Site(pooler, "input", "pooler_input", None, last))
        for name in row.classifiers:
            if name in modules:
                sites.append(Site(name, "input", "classifier_input", None, last))
    missing = [site.name for site in sites if site.fqn not in modules]
    if missing:
        raise ModelError(
            f"{type(model).__name__} lacks modules that its family's row names: "
            f"{', '.join(missing[:3])}; the row in "
            "src/attar/models/structure/sites.py does not fit it"
        )
    return sites


def _stack_sites(model: nn.Module, stack: StackSites, prefix: str) -> Iterator[Site]:
    yield Site(prefix + stack.embedding, "output", "embedding", None, stack.name)
    blocks = prefix + stack.blocks
    for block in range(len(list(model.get_submodule(blocks).children()))):
        for kind, inner, port in stack.ports:
            yield Site(f"{blocks}.{block}.{inner}", port, kind, block, stack.name)


def quantized_weights(model: nn.Module) -> dict[str, Literal["embedding", "linear"]]:
    """Names of every embedding table and Linear weight, in module order; grids lie along axis 0."""
    found: dict[str, Literal["embedding", "linear"]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            found[f"{name}.weight"] = "embedding"
        elif isinstance(module, nn.Linear):
            found[f"{name}.weight"] = "linear"
    return found


def _base_prefix(model: nn.Module) -> str:
    """Nothing for a bare model, "bert." for one that wraps a base model."""
    base = str(getattr(model, "base_model_prefix", ""))
    return f"{base}." if base and hasattr(model, base) else ""
