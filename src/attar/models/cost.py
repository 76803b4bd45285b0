"""Cost of a model: its number of parameters and the FLOPs of one forward pass, both exact.

A multiply-add counts as 2 operations. Only matrix products count, as in torch's own counter, with
which the formulas agree exactly; norms, activations and softmax are ignored by both.

    linear map, B texts of T tokens       2 · B·T · I·O
    attention, scores and context         2 · 2 · B·H·T·T·K, with no discount for a causal mask
    cross-attention of W target tokens    keys and values of T tokens, queries and outputs of W,
                                          2 · 2 · B·H·W·T·K

A plan needs only a config: the model is then built on torch's meta device, without weights. A
family without a row has no formula, so torch's counter is run there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from attar.errors import ModelError
from attar.models.architecture import class_of, config_of
from attar.models.structure.anatomy import Anatomy, anatomy_of
from attar.models.structure.blocks import Block
from attar.models.structure.families import FAMILIES
from attar.models.structure.sites import reads_one_token
from attar.models.structure.views import AttentionView, FfnView, LinearView
from attar.tasks.embedding import Embedding
from attar.tasks.table import CLASSIFICATION, REGRESSION, SENTENCE_EMBEDDING, Kind
from attar.tasks.task import Generation, Task

TOKEN_BY_TOKEN = ("mamba", "falcon_mamba")
"""Types of models that process a text in a Python loop: each further token adds the same cost, so
two short texts give that of any length."""
BLOCK_BY_BLOCK = ("mamba2",)
"""Types of models that attend within blocks of `chunk_size` tokens; the last block is padded."""


@dataclass(frozen=True)
class Cost:
    """Size of a model, and its cost."""

    model: PreTrainedModel
    """The model, on the meta device if it was built from a config."""

    @property
    def num_params(self) -> int:
        return num_params(self.model)

    def flops(self, batch: int, tokens: int, written: int | None = None) -> int:
        """FLOPs of one forward pass; see the function `flops`."""
        return flops(self.model, batch, tokens, written)

    def kept_floats(self, tokens: int) -> int:
        """Approximate number of values stored for the backward pass of one text."""
        config = self.model.config
        if config.model_type in FAMILIES:
            return sum(_kept_by_block(block, tokens) for block in anatomy_of(self.model).blocks)
        count = KEPT_FLOATS.get(config.model_type, _kept_by_transformer)
        return config.num_hidden_layers * count(config.to_dict(), tokens)


def _kept_by_block(block: Block, tokens: int) -> int:
    """For an attention and its norm: 12 tensors of the hidden size, and 2 of tokens × tokens per
    head. For a feed-forward and its norm: 4 of the hidden size, and 4 of the intermediate size; for
    a simpler one, the inputs of its maps and activation."""
    hidden = block.attention.out.out_features
    pairs = sum(2 * attention.heads * tokens for attention in block.attentions)
    kept = 12 * hidden * len(block.attentions) + pairs
    ffn = block.ffn
    if isinstance(ffn, FfnView):
        kept += 4 * hidden + 4 * ffn.up.out_features
    elif ffn.maps:
        kept += 4 * hidden + sum(view.in_features for view in ffn.inner) + hidden * ffn.has_relu
    return tokens * kept


def _kept_by_transformer(config: Mapping[str, Any], tokens: int) -> int:
    """The same for a family without views: one attention and one feed-forward."""
    hidden = config.get("hidden_size") or config.get("d_model") or config["n_embd"]
    wide = config.get("intermediate_size") or config.get("d_ff") or 4 * hidden
    names = ("num_attention_heads", "num_heads", "encoder_attention_heads", "n_head")
    heads = next((config[name] for name in names if config.get(name)), 0)
    return tokens * (16 * hidden + 4 * wide + 2 * heads * tokens)


def _kept_by_mamba(config: Mapping[str, Any], tokens: int) -> int:
    """12 tensors of the inner size, and 3 with a state for each of its channels."""
    inner = config["expand"] * config["hidden_size"]
    return tokens * inner * (12 + 3 * config["state_size"])


def _kept_by_mamba2(config: Mapping[str, Any], tokens: int) -> int:
    """16 tensors of the inner size and 8 of the state size per head, and 2 of tokens × tokens
    within a block."""
    inner, block = config["expand"] * config["hidden_size"], config["chunk_size"]
    a_token = 16 * inner + config["num_heads"] * (8 * config["state_size"] + 2 * block)
    return block * math.ceil(tokens / block) * a_token


KEPT_FLOATS = {"mamba": _kept_by_mamba, "mamba2": _kept_by_mamba2}
"""model_type → count for one block, for transformers' torch code; all other types count as
transformers."""


def non_embedding_params(model: PreTrainedModel) -> int:
    """Number of parameters without embedding tables and language head: the N in papers'
    6·N·tokens."""
    head: Any = model.get_output_embeddings()
    modules = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    modules += [] if head is None else [head]
    left_out = {id(parameter) for module in modules for parameter in module.parameters()}
    return sum(p.numel() for p in model.parameters() if id(p) not in left_out)


def num_params(model: nn.Module) -> int:
    """Number of parameters of a model; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters())


ATTENTIONS = {"attention": False, "cross_attention": True}
"""Part of a block → whether its keys and values come from the encoder's output."""


def params_by_part(model: PreTrainedModel) -> dict[str, int]:
    """Parameters of the embeddings, of each stack's attention, cross-attention, ffn and norms, and
    of the head. Tied weights count once, in the first part that has them. The sum is `num_params`.

    Raises:
        ModelError: the family has no row.
    """
    parts: dict[str, list[Any]] = {
        "embeddings": [m for m in model.modules() if isinstance(m, nn.Embedding)]
    }
    for stack in anatomy_of(model).stacks:
        attentions = [a for block in stack.blocks for a in block.attentions]
        heads = [norm for a in attentions for norm in a.head_norms]
        norms = [n for block in stack.blocks for n in (*block.norms, *block.post_norms)] + heads
        norms += [norm for norm in (stack.embedding_norm, stack.final_norm) if norm is not None]
        seen = {id(view) for a in attentions for view in (a.q, a.k, a.v, a.out)}
        ffns = [v for block in stack.blocks for v in block.linears if id(v) not in seen]
        tables = [] if stack.shared_bias is None else [model.get_submodule(stack.shared_bias)]
        maps = [] if stack.embedding_map is None else [stack.embedding_map.module]
        parts["embeddings"] = [m for m in parts["embeddings"] if m not in tables] + maps
        for part, is_cross in ATTENTIONS.items():
            own = [a for a in attentions if a.is_cross is is_cross]
            maps = [view.module for a in own for view in (a.q, a.k, a.v, a.out)]
            if own:
                parts[f"{stack.name}.{part}"] = maps if is_cross else maps + tables
        parts[f"{stack.name}.ffn"] = [view.module for view in ffns]
        parts[f"{stack.name}.norms"] = [norm.module for norm in norms]
    parts["head"] = [model]
    counted: set[int] = set()
    found: dict[str, int] = {}
    for part, modules in parts.items():
        own = {id(p): p.numel() for module in modules for p in module.parameters()}
        found[part] = sum(count for key, count in own.items() if key not in counted)
        counted |= own.keys()
    return found


def flops(model: PreTrainedModel, batch: int, tokens: int, written: int | None = None) -> int:
    """FLOPs of one forward pass, exactly.

    Args:
        batch: number of texts.
        tokens: number of tokens of each text, including padding, because it is computed too.
        written: number of decoder input tokens, in an encoder-decoder; None: as many as `tokens`.

    Raises:
        ModelError: the family has no row, and torch cannot count its operations.
    """
    return sum(flops_by_part(model, batch, tokens, written).values())


def has_parts(model: PreTrainedModel) -> bool:
    """Whether the FLOPs of each part are known, and not only those of the whole model."""
    if model.config.model_type not in FAMILIES:
        return False
    return all(a.is_plain for block in anatomy_of(model).blocks for a in block.attentions)


def flops_by_part(
    model: PreTrainedModel, batch: int, tokens: int, written: int | None = None
) -> dict[str, int]:
    """FLOPs of each stack of blocks, "encoder" and "decoder", and of the "head"; for a family
    without a row, only of the whole "model".
    """
    if not has_parts(model):
        return {"model": counted_flops(model, batch, tokens, written)}
    anatomy = anatomy_of(model)
    found: dict[str, int] = {}
    own = tokens
    for place, stack in enumerate(anatomy.stacks):
        own = tokens if place == 0 or written is None else written
        widening = 0 if stack.embedding_map is None else _linear_flops(stack.embedding_map, own)
        blocks = sum(_block_flops(block, own, tokens) for block in stack.blocks)
        found[stack.name] = batch * (blocks + widening)
    found["head"] = _head_flops(model, anatomy, batch, own)
    return found


def _linear_flops(linear: LinearView | nn.Linear, rows: int) -> int:
    return 2 * rows * linear.in_features * linear.out_features


_counted: WeakKeyDictionary[nn.Module, dict[tuple[int, int, int], int]] = WeakKeyDictionary()
"""Model → (texts, tokens, written) → FLOPs, because a plan needs the same ones many times."""


def counted_flops(
    model: PreTrainedModel, batch: int, tokens: int, written: int | None = None
) -> int:
    """FLOPs of one forward pass by torch's own counter, on a copy of the model without weights.
    Each further text adds the same cost; DeBERTa also maps its table of positions once per batch.

    Raises:
        ModelError: its code needs values, which tensors on the meta device do not have.
    """
    if model.config.model_type in TOKEN_BY_TOKEN and tokens > 2:
        first, second = (counted_flops(model, batch, length) for length in (1, 2))
        return first + (tokens - 1) * (second - first)
    known = _counted.setdefault(model, {})
    own = tokens if written is None else written
    for texts in (1, 2):
        if (texts, tokens, own) not in known:
            config = copy.deepcopy(model.config)
            known[texts, tokens, own] = _count(type(model), config, texts, tokens, own)
    one, two = known[1, tokens, own], known[2, tokens, own]
    return one + (batch - 1) * (two - one)


def _count(model_class: Any, copied: Any, texts: int, tokens: int, written: int) -> int:
    if copied.model_type in TOKEN_BY_TOKEN + BLOCK_BY_BLOCK:
        copied.use_cache = False  # the cache would pad a short text to the width of the convolution
    try:
        with torch.device("meta"), no_init_weights():
            model = model_class._from_config(copied, attn_implementation="eager").eval()
            ids = torch.zeros(texts, tokens, dtype=torch.int64)
            fed = torch.zeros(texts, written, dtype=torch.int64)
        for part in model.modules():
            if isinstance(part, PreTrainedModel):  # it would look for padding among the ids
                quiet: Any = part
                quiet.warn_if_padding_and_no_attention_mask = lambda *_: None
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            target = {"decoder_input_ids": fed} if copied.is_encoder_decoder else {}
            model(input_ids=ids, **target)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"the FLOPs of a {model_class.__name__} cannot be counted without running it "
            f"({reason}), so it is not supported; use a model of {', '.join(FAMILIES)}"
        ) from error
    return counter.get_total_flops()


def _block_flops(block: Block, own: int, read: int) -> int:
    """FLOPs of a block for one text.

    Args:
        own: number of tokens in the block's stack.
        read: number of tokens that a cross-attention reads.
    """
    attended = sum(attention_flops(attention, own, read) for attention in block.attentions)
    return attended + sum(_linear_flops(view, own) for view in block.ffn.maps)


def attention_flops(attention: AttentionView, own: int, read: int) -> int:
    """FLOPs of an attention for one text: its maps, and the products of queries, keys,
    probabilities and values.

    Args:
        own, read: as in `_block_flops`.
    """
    others = read if attention.is_cross else own
    rows = ((attention.q, own), (attention.k, others), (attention.v, others), (attention.out, own))
    pairs = 2 * 2 * attention.heads * own * others * attention.head_size
    return pairs + sum(_linear_flops(view, count) for view, count in rows)


def _head_flops(model: PreTrainedModel, anatomy: Anatomy, batch: int, tokens: int) -> int:
    """FLOPs of the linear maps after the last norm."""
    before = {id(view.module) for block in anatomy.blocks for view in block.linears}
    widening = (stack.embedding_map for stack in anatomy.stacks)
    before |= {id(view.module) for view in widening if view is not None}
    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and id(m) not in before]
    rows = batch if reads_one_token(model, anatomy) else batch * tokens
    return sum(_linear_flops(head, rows) for head in heads)


@dataclass(frozen=True)
class Head:
    """The head on top of a model that does not exist yet."""

    num_labels: int | None = None
    """Number of outputs of a classification head; None: a language head, or an embedding model."""
    words: Kind | None = None
    """Task of a language head."""
    embedding: Embedding | None = None
    """Settings of an embedding model, which has no head."""
    kind: Kind | None = None
    """Task of a classification head; None: classification of texts, or regression for one label."""


def cost_from_config(config: Mapping[str, Any], head: Head | None = None) -> Cost:
    """Cost of a model from the contents of its `config.json`, without weights.

    Args:
        head: None: use the class in the config's `architectures`, or the bare model.

    Raises:
        ModelError: the config's model is not supported, or has no such head.
    """
    head = head or Head()
    task = None
    if head.words is not None:
        writes = Generation() if head.words.writes else None
        asked = Task(objective=head.words.name, max_length=1, input_names=(), generation=writes)
        found = class_of(config_of(config, "config", asked), "config", asked)
        config = {**config, "architectures": [found.__name__]}
    elif head.embedding is not None:
        task = Task(
            objective=SENTENCE_EMBEDDING.name,
            max_length=1,
            input_names=(),
            embedding=head.embedding,
        )
    elif head.num_labels is not None:
        kind = head.kind or (CLASSIFICATION if head.num_labels > 1 else REGRESSION)
        names = tuple(f"label {i}" for i in range(head.num_labels)) if kind.has_labels else ()
        task = Task(
            objective=kind.name, label_names=names, max_length=1, input_names=("input_ids",)
        )
    hf_config = config_of(config, "config", task)
    model_class: Any = class_of(hf_config, "config", task)
    with torch.device("meta"):
        model = model_class._from_config(hf_config)
    return Cost(model)


def forward_flops(model: PreTrainedModel, tokens: NDArray[Any]) -> int:
    """FLOPs of a forward pass over each text separately, without padding to other texts; sum over
    all texts.

    A decoder's FLOPs for a text of T tokens are c + a·T + b·T²: its linear maps and attention; c is
    what a convolution adds at the ends. Three lengths determine all three coefficients, and with
    them the sum over any number of texts. Mamba-2 attends within blocks of `chunk_size` tokens, the
    last of which is padded: the formula then holds for the number of blocks, and each missing token
    saves its linear maps.

    Args:
        tokens: of each text, (N,).
    """
    block = model.config.chunk_size if model.config.model_type in BLOCK_BY_BLOCK else 1
    lengths = tokens.astype(np.float64)
    blocks = np.ceil(lengths / block)
    at_1, at_2, at_3 = (flops(model, 1, block * count) for count in (1, 2, 3))
    squared = (at_3 - 2 * at_2 + at_1) // 2
    first = at_2 - at_1 - 3 * squared
    fixed = at_1 - first - squared
    saved = flops(model, 1, 2) - flops(model, 1, 1) if block > 1 else 0
    every = fixed * len(lengths) + first * blocks.sum() + squared * (blocks**2).sum()
    return round(every - saved * (block * blocks - lengths).sum())
