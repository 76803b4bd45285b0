"""Where the parts of a model are: one row per family. No other code depends on a family's name.

A row names modules, relative to the base model or to a block; `anatomy` turns it into views. Tests
recompute each block through its views and compare each norm site with the inputs of its readers.

To add a family: a row here and a tiny model in tests/tiny.py; the tests of the anatomy do the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from attar.models.config import STATIC_TYPE
from attar.models.ffn_variants import type_in_memory
from attar.models.structure.rows import AttentionRow, Family, FfnRow, HeadSpace, StackRow


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

_DEBERTA_STACK = replace(
    _BERT_STACK,
    attention=replace(
        _BERT_STACK.attention,
        q="attention.self.query_proj",
        k="attention.self.key_proj",
        v="attention.self.value_proj",
        is_plain=False,
    ),
    tables=("embeddings.word_embeddings",),
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
            FfnRow(up=f"{ffn}.wi", down=down, act=act, norm=norm, whole=ffn),
            FfnRow(up=f"{ffn}.wi_1", gate=f"{ffn}.wi_0", down=down, act=act, norm=norm, whole=ffn),
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
            whole="mlp",
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


def _gemma_2_and_3(llama: StackRow) -> StackRow:
    """With a norm before and a norm after each sublayer."""
    return replace(
        llama,
        attention=replace(llama.attention, post_norm="post_attention_layernorm"),
        ffns=(
            replace(
                llama.ffns[0],
                norm="pre_feedforward_layernorm",
                post_norm="post_feedforward_layernorm",
            ),
        ),
        norm_offset=1.0,
    )


_MODERNBERT_STACK = StackRow(
    name="encoder",
    blocks="layers",
    attention=AttentionRow(
        core="attn",
        q="attn.Wqkv[0/3]",
        k="attn.Wqkv[1/3]",
        v="attn.Wqkv[2/3]",
        out="attn.Wo",
        norm="attn_norm",
    ),
    ffns=(
        FfnRow(
            gate="mlp.Wi[0/2]",
            up="mlp.Wi[1/2]",
            down="mlp.Wo",
            act="mlp.act",
            norm="mlp_norm",
            whole="mlp",
        ),
    ),
    first_norm="embeddings.norm",
    final_norm="final_norm",
    is_pre_norm=True,
)

_STATIC_STACK = replace(
    _BERT_STACK, blocks="blocks", tables=("embedding",), embedding_norm=None, is_pre_norm=True
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
    # position ids start at padding_idx + 1
    max_tokens=lambda config: config.max_position_embeddings - config.pad_token_id - 1,
)


def _with_attention_function_(model: Any, attention: str) -> None:
    from attar.models.families.mpnet import use_attention_function_  # imports torch

    use_attention_function_(model)
    model.config._attn_implementation = attention


def _with_precise_norms_(model: Any, _: str) -> None:
    from attar.models.families.gemma import use_precise_norms_  # imports torch

    use_precise_norms_(model)


_GEMMA = Family(
    stacks=(replace(_LLAMA_STACK, norm_offset=1.0),),
    heads=("score", "lm_head"),
    scales_embeddings=lambda config: True,
    prepare_=_with_precise_norms_,
)

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
    STATIC_TYPE: Family(stacks=(_STATIC_STACK,), heads=()),
    "mpnet": Family(
        stacks=(_MPNET_STACK,),
        heads=_ROBERTA.heads,
        head_spaces=_ROBERTA.head_spaces,
        # position ids start at 2, whatever the padding token is
        max_tokens=lambda config: config.max_position_embeddings - 2,
        prepare_=_with_attention_function_,
    ),
    "modernbert": Family(
        stacks=(_MODERNBERT_STACK,),
        heads=("head.dense",),
        head_spaces=(HeadSpace("head.dense", ("classifier", "decoder"), norm="head.norm"),),
    ),
    "deberta-v2": Family(
        stacks=(_DEBERTA_STACK,),
        heads=("pooler.dense", "cls.predictions.transform.dense"),
        head_spaces=(HeadSpace("pooler.dense", ("classifier",)),),
        max_tokens=lambda config: (
            config.max_position_embeddings if config.position_biased_input else None
        ),
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
    "gemma": _GEMMA,
    "gemma2": replace(_GEMMA, stacks=(_gemma_2_and_3(_LLAMA_STACK),)),
    "gemma3_text": replace(_GEMMA, stacks=(_gemma_2_and_3(_QWEN3_STACK),)),
}
"""model_type of the config → row."""


def max_tokens_of(config: Any) -> int | None:
    """Maximum number of input tokens, from a transformers config; None: no hard limit. For a family
    without a row, positions are assumed to be a learned table."""
    family = FAMILIES.get(config.model_type)
    if family is not None:
        return family.max_tokens(config)
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def positions_of(config: Mapping[str, Any]) -> int | None:
    """As `max_tokens_of`, from the contents of a `config.json`; None if it defines no limit."""
    try:
        model_type = type_in_memory(str(config.get("model_type", "")))
        found = max_tokens_of(SimpleNamespace(**{**config, "model_type": model_type}))
    except (AttributeError, TypeError):  # fields are missing or not numbers
        return None
    return found if isinstance(found, int) else None


def blocks_of(config: Mapping[str, Any]) -> dict[str, int]:
    """Stack → number of blocks, from the contents of a `config.json`; empty if it has none."""
    family = FAMILIES.get(type_in_memory(str(config.get("model_type", ""))))
    stacks = () if family is None else family.stacks
    names = {stack.name: stack.num_blocks for stack in stacks} or {"": "num_hidden_layers"}
    found = {stack: config.get(name) for stack, name in names.items()}
    return {stack: count for stack, count in found.items() if isinstance(count, int)}


def without_views(model_type: str) -> str:
    """Message for a family without a row: what works without one, and which families have one."""
    return (
        f"attar does not know the structure of models of type {model_type!r}, so they can be "
        "trained, evaluated and used as a teacher of predictions, but not pruned, analyzed, "
        f"quantized or exported; this works for: {', '.join(FAMILIES)}"
    )
