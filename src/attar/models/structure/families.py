"""Where the parts of a model are: one row a family; nothing else in attar knows a family's name.

A row names modules, relative to the base model or to a block; `anatomy` turns it into views. That a
row tells the truth is not believed but tested: each block is recomputed through its views, and each
norm site is checked by watching what its readers really receive.

To add a family: a row here and a tiny model in tests/tiny.py; the tests of the anatomy do the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from attar.errors import did_you_mean


@dataclass(frozen=True)
class AttentionRow:
    """Names relative to the block. "c_attn[1/3]" is the middle third of a fused map."""

    core: str
    q: str
    k: str
    v: str
    out: str
    norm: str
    adder: str | None = None
    """Module whose second argument is the shortcut; None: the block itself adds, before `norm`."""
    q_norm: str | None = None
    """Norm over each head's queries, before rotary positions; it has no readers among the maps."""
    k_norm: str | None = None
    """As `q_norm`, of keys."""


@dataclass(frozen=True)
class FfnRow:
    """Names relative to the block."""

    up: str
    down: str
    act: str
    norm: str
    gate: str | None = None
    adder: str | None = None
    """As in `AttentionRow`."""


@dataclass(frozen=True)
class StackRow:
    """A stack of equal blocks; names relative to the base model."""

    name: str
    blocks: str
    attention: AttentionRow
    ffns: tuple[FfnRow, ...]
    """The kinds of feed-forward the family has; the one whose layers are there is meant."""
    cross: AttentionRow | None = None
    tables: tuple[str, ...] = ()
    """Embedding tables that are summed for each token; none: each is rounded alone."""
    embedding_norm: str | None = None
    embedding_map: str | None = None
    """Map behind `embedding_norm` to the hidden size, in models whose embeddings are narrower."""
    embedding_size: str | None = None
    """Field of the config, where embeddings can be narrower than hidden states."""
    final_norm: str | None = None
    is_pre_norm: bool = False
    is_causal: bool = False
    heads: str = "num_attention_heads"
    """Field of the config."""
    num_blocks: str = "num_hidden_layers"
    """Field of the config."""
    intermediate: str = "intermediate_size"
    """Field of the config."""
    kv_heads: str | None = None
    """Field of the config, where keys and values can have fewer heads."""
    head_size: str | None = None
    """Field of the config; None: always hidden_size / heads."""
    shared_bias: str | None = None
    """Table of relative positions that all blocks of the stack use."""
    norm_offset: float = 0.0
    """What norms multiply by beyond their weight: 1 where that is 1 + weight."""


@dataclass(frozen=True)
class HeadSpace:
    """What lies between two maps of a head, as wide as a hidden state and none. Names as in
    `Family.heads`."""

    writer: str
    readers: tuple[str, ...] = ()
    """Those that the model has; none: what is written is handed out."""
    norm: str | None = None
    """Between writer and readers."""


@dataclass(frozen=True)
class Family:
    """One row of the table."""

    stacks: tuple[StackRow, ...]
    heads: tuple[str, ...]
    """First maps of every head the family can have, relative to the base model or to the whole."""
    head_spaces: tuple[HeadSpace, ...] = ()
    scales_embeddings: Callable[[Any], bool] = lambda config: False
    """Whether a model of this config multiplies its embeddings by √hidden_size."""
    scales_logits: str | None = None
    """Field of the config, where a language head can divide its input by √hidden_size."""
    max_tokens: Callable[[Any], int | None] = lambda config: None
    """Longest input, where positions are a learned table; None: no hard limit."""
    prepare_: Callable[[Any], None] | None = None
    """Changes a model that was just built, where transformers' own code lacks what views need."""


def _qkv(
    core: str, q: str, k: str, v: str, out: str, norm: str, adder: str | None = None
) -> AttentionRow:
    return AttentionRow(core, f"{core}.{q}", f"{core}.{k}", f"{core}.{v}", out, norm, adder)


_BERT_STACK = StackRow(
    name="encoder",
    blocks="encoder.layer",
    attention=_qkv(
        *("attention.self", "query", "key", "value"),
        out="attention.output.dense",
        norm="attention.output.LayerNorm",
        adder="attention.output",
    ),
    ffns=(
        FfnRow(
            up="intermediate.dense",
            down="output.dense",
            act="intermediate.intermediate_act_fn",
            norm="output.LayerNorm",
            adder="output",
        ),
    ),
    tables=tuple(f"embeddings.{of}_embeddings" for of in ("word", "position", "token_type")),
    embedding_norm="embeddings.LayerNorm",
)


_ELECTRA_STACK = replace(
    _BERT_STACK, embedding_map="embeddings_project", embedding_size="embedding_size"
)

_DISTILBERT_STACK = StackRow(
    name="encoder",
    blocks="transformer.layer",
    attention=_qkv(*("attention", "q_lin", "k_lin", "v_lin"), "attention.out_lin", "sa_layer_norm"),
    ffns=(FfnRow(up="ffn.lin1", down="ffn.lin2", act="ffn.activation", norm="output_layer_norm"),),
    tables=tuple(f"embeddings.{of}_embeddings" for of in ("word", "position")),
    embedding_norm="embeddings.LayerNorm",
    intermediate="hidden_dim",
)


_MPNET_STACK = StackRow(
    name="encoder",
    blocks="encoder.layer",
    attention=_qkv(*("attention.attn", "q", "k", "v"), "attention.attn.o", "attention.LayerNorm"),
    ffns=_BERT_STACK.ffns,
    tables=_DISTILBERT_STACK.tables,
    embedding_norm="embeddings.LayerNorm",
    shared_bias="encoder.relative_attention_bias",
)


def _bart_stack(name: str, cross: AttentionRow | None) -> StackRow:
    names = ("q_proj", "k_proj", "v_proj")
    return StackRow(
        name=name,
        blocks=f"{name}.layers",
        attention=_qkv("self_attn", *names, "self_attn.out_proj", "self_attn_layer_norm"),
        cross=cross,
        ffns=(FfnRow(up="fc1", down="fc2", act="activation_fn", norm="final_layer_norm"),),
        embedding_norm=f"{name}.layernorm_embedding",
        is_causal=name == "decoder",
        heads=f"{name}_attention_heads",
        num_blocks=f"{name}_layers",
        intermediate=f"{name}_ffn_dim",
    )


def _t5_attention(layer: int, core: str) -> AttentionRow:
    core = f"layer.{layer}.{core}"
    return _qkv(core, "q", "k", "v", f"{core}.o", f"layer.{layer}.layer_norm")


def _t5_stack(name: str, ffn_layer: int, cross: AttentionRow | None) -> StackRow:
    ffn, norm = f"layer.{ffn_layer}.DenseReluDense", f"layer.{ffn_layer}.layer_norm"
    down, act = f"{ffn}.wo", f"{ffn}.act"
    return StackRow(
        name=name,
        blocks=f"{name}.block",
        attention=_t5_attention(0, "SelfAttention"),
        cross=cross,
        ffns=(
            FfnRow(up=f"{ffn}.wi", down=down, act=act, norm=norm),
            FfnRow(up=f"{ffn}.wi_1", gate=f"{ffn}.wi_0", down=down, act=act, norm=norm),
        ),
        final_norm=f"{name}.final_layer_norm",
        is_pre_norm=True,
        is_causal=name == "decoder",
        heads="num_heads",
        num_blocks="num_layers" if name == "encoder" else "num_decoder_layers",
        shared_bias=f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias",
        intermediate="d_ff",
        head_size="d_kv",
    )


_GPT2_STACK = StackRow(
    name="decoder",
    blocks="h",
    attention=AttentionRow(
        core="attn",
        q="attn.c_attn[0/3]",
        k="attn.c_attn[1/3]",
        v="attn.c_attn[2/3]",
        out="attn.c_proj",
        norm="ln_1",
    ),
    ffns=(FfnRow(up="mlp.c_fc", down="mlp.c_proj", act="mlp.act", norm="ln_2"),),
    final_norm="ln_f",
    is_pre_norm=True,
    is_causal=True,
    intermediate="n_inner",
)

_LLAMA_STACK = StackRow(
    name="decoder",
    blocks="layers",
    attention=_qkv(
        *("self_attn", "q_proj", "k_proj", "v_proj"), "self_attn.o_proj", "input_layernorm"
    ),
    ffns=(
        FfnRow(
            up="mlp.up_proj",
            gate="mlp.gate_proj",
            down="mlp.down_proj",
            act="mlp.act_fn",
            norm="post_attention_layernorm",
        ),
    ),
    final_norm="norm",
    is_pre_norm=True,
    is_causal=True,
    kv_heads="num_key_value_heads",
    head_size="head_dim",
)

_QWEN3_STACK = replace(
    _LLAMA_STACK,
    attention=replace(_LLAMA_STACK.attention, q_norm="self_attn.q_norm", k_norm="self_attn.k_norm"),
)

_CLASSIFICATION_HEAD = HeadSpace("classification_head.dense", ("classification_head.out_proj",))

_BART_CROSS = _qkv(
    *("encoder_attn", "q_proj", "k_proj", "v_proj"),
    out="encoder_attn.out_proj",
    norm="encoder_attn_layer_norm",
)

_ROBERTA = Family(
    stacks=(_BERT_STACK,),
    heads=("pooler.dense", "classifier.dense", "lm_head.dense"),
    head_spaces=(
        HeadSpace("pooler.dense"),
        HeadSpace("classifier.dense", ("classifier.out_proj",)),
        HeadSpace("lm_head.dense", ("lm_head.decoder",), norm="lm_head.layer_norm"),
    ),
    # positions are counted from padding_idx + 1
    max_tokens=lambda config: config.max_position_embeddings - config.pad_token_id - 1,
)


def _with_attention_function_(model: Any) -> None:
    from attar.models.families.mpnet import use_attention_function_  # loads torch

    use_attention_function_(model)


def _with_precise_norms_(model: Any) -> None:
    from attar.models.families.gemma import use_precise_norms_  # loads torch

    use_precise_norms_(model)


FAMILIES = {
    "bert": Family(
        stacks=(_BERT_STACK,),
        heads=("pooler.dense", "cls.predictions.transform.dense"),
        head_spaces=(
            HeadSpace("pooler.dense", ("classifier", "cls.seq_relationship")),
            HeadSpace(
                "cls.predictions.transform.dense",
                ("cls.predictions.decoder",),
                norm="cls.predictions.transform.LayerNorm",
            ),
        ),
        max_tokens=lambda config: config.max_position_embeddings,
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "distilbert": Family(
        stacks=(_DISTILBERT_STACK,),
        heads=("pre_classifier", "vocab_transform"),
        head_spaces=(
            HeadSpace("pre_classifier", ("classifier",)),
            HeadSpace("vocab_transform", ("vocab_projector",), norm="vocab_layer_norm"),
        ),
        max_tokens=lambda config: config.max_position_embeddings,
    ),
    "electra": Family(
        stacks=(_ELECTRA_STACK,),
        heads=(
            *("classifier.dense", "discriminator_predictions.dense"),
            "generator_predictions.dense",
        ),
        head_spaces=(
            HeadSpace("classifier.dense", ("classifier.out_proj",)),
            HeadSpace(
                "discriminator_predictions.dense",
                ("discriminator_predictions.dense_prediction",),
            ),
            HeadSpace(
                "generator_predictions.dense",
                ("generator_lm_head",),
                norm="generator_predictions.LayerNorm",
            ),
        ),
        max_tokens=lambda config: config.max_position_embeddings,
    ),
    "mpnet": Family(
        stacks=(_MPNET_STACK,),
        heads=_ROBERTA.heads,
        head_spaces=_ROBERTA.head_spaces,
        # positions are counted from 2, whatever the padding token is
        max_tokens=lambda config: config.max_position_embeddings - 2,
        prepare_=_with_attention_function_,
    ),
    "bart": Family(
        stacks=(_bart_stack("encoder", None), _bart_stack("decoder", _BART_CROSS)),
        heads=("classification_head.dense", "lm_head"),
        head_spaces=(_CLASSIFICATION_HEAD,),
        scales_embeddings=lambda config: config.scale_embedding,
        max_tokens=lambda config: config.max_position_embeddings,
    ),
    "t5": Family(
        stacks=(
            _t5_stack("encoder", 1, None),
            _t5_stack("decoder", 2, _t5_attention(1, "EncDecAttention")),
        ),
        heads=("classification_head.dense",),
        head_spaces=(_CLASSIFICATION_HEAD,),
        scales_logits="scale_decoder_outputs",
    ),
    "gpt2": Family(
        stacks=(_GPT2_STACK,),
        heads=("score", "lm_head"),
        max_tokens=lambda config: config.n_positions,
    ),
    "llama": Family(stacks=(_LLAMA_STACK,), heads=("score", "lm_head")),
    "qwen2": Family(stacks=(_LLAMA_STACK,), heads=("score", "lm_head")),
    "qwen3": Family(stacks=(_QWEN3_STACK,), heads=("score", "lm_head")),
    "gemma": Family(
        stacks=(replace(_LLAMA_STACK, norm_offset=1.0),),
        heads=("score", "lm_head"),
        scales_embeddings=lambda config: True,
        prepare_=_with_precise_norms_,
    ),
}
"""model_type of the config → row."""


def positions_of(config: Mapping[str, Any]) -> int | None:
    """Tokens of the longest input, by the content of a `config.json`; None: no hard limit, or no
    family of ours."""
    family = FAMILIES.get(str(config.get("model_type")))
    try:
        found = None if family is None else family.max_tokens(SimpleNamespace(**config))
    except (AttributeError, TypeError):  # fields that are absent or no numbers
        return None
    return found if isinstance(found, int) else None


def unsupported(model_type: str) -> str:
    """Says that a family has no row here, and which have."""
    near = did_you_mean(model_type, sorted(FAMILIES))
    return (
        f"models of type {model_type!r} are not supported{near}; supported: {', '.join(FAMILIES)}"
    )
