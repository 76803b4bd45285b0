"""A narrower model is the same function with units taken out; dead units take nothing with them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

import tiny
from attar.errors import ModelError
from attar.models.config import ChangedModel
from attar.models.families.gemma import PRECISE
from attar.models.narrowing.narrow import narrowed
from attar.models.narrowing.parts import parts_of
from attar.models.structure.anatomy import anatomy_of

EXACT = {"rtol": 1e-12, "atol": 1e-12}
"""The same float64 sums with zeros left out."""
FREE = ("t5", "t5_gated", *tiny.LLAMA_LIKE)
"""Families whose config says the size of a head."""
WITH_WORDS = {
    "bert": hf.BertForMaskedLM,
    "bart": hf.BartForConditionalGeneration,
    "t5": hf.T5ForConditionalGeneration,
    "gpt2": hf.GPT2LMHeadModel,
    "llama": hf.LlamaForCausalLM,
    "gemma": hf.GemmaForCausalLM,
}


def reference(**sizes: Any) -> ChangedModel:
    return ChangedModel.model_validate({"from": "big", **sizes})


def wide(family: str, **changes: Any) -> Any:
    """In float64; each part of the model is loud enough to be missed."""
    return tiny.tiny_model(family, **changes).double()


def with_words(model: Any) -> Any:
    """A language model in float64, its weights loud."""
    model = model.double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise * (0.3 if parameter.ndim == 1 else 0.15))
    return model


def batch_for(model: Any) -> dict[str, torch.Tensor]:
    batch = tiny.tiny_batch()
    if model.config.is_encoder_decoder:
        return {**batch, "decoder_input_ids": batch["input_ids"]}
    return batch


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch_for(model)).logits


def make_exact_(model: Any) -> None:
    """Norms without ε, which narrowing does not rescale, and in float64, which transformers' RMS
    norms never are. A language head's activation, whose mean is not 0, is left out."""

    def plain(norm: nn.Module) -> Any:
        return lambda x: norm.weight * x * x.pow(2).mean(-1, keepdim=True).rsqrt()

    def offset(norm: nn.Module) -> Any:
        return lambda x: (1 + norm.weight) * x * x.pow(2).mean(-1, keepdim=True).rsqrt()

    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 0.0
        elif isinstance(module, tuple(PRECISE)):
            module.eps, module.forward = 0.0, offset(module)
        elif hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 0.0
            module.forward = plain(module)
        elif hasattr(module, "transform_act_fn"):
            module.transform_act_fn = nn.Identity()


def deaden_neurons_(model: Any, dead: list[int]) -> None:
    for block in anatomy_of(model).blocks:
        for view in block.ffn.inputs:
            _zero_rows_(view, dead)


def deaden_heads_(model: Any, dead: list[int]) -> None:
    """Heads of keys and values whose values are zero."""
    for block in anatomy_of(model).blocks:
        for a in block.attentions:
            size = a.head_size
            _zero_rows_(a.v, [h * size + i for h in dead for i in range(size)])


def deaden_channels_(model: Any, dead: int) -> None:
    """The last channels of each head, in scores and in values."""
    for block in anatomy_of(model).blocks:
        for a in block.attentions:
            size = a.head_size
            rows = [(h + 1) * size - 1 - i for h in range(a.heads) for i in range(dead)]
            _zero_rows_(a.v, rows)
            _zero_rows_(a.q, rows)


def deaden_hidden_(model: Any, dead: list[int]) -> None:
    """Dimensions at the mean of every token, 0: nothing writes them, and everything else that is
    written sums to 0."""
    parts = parts_of(model)
    alive = [i for i in range(parts.hidden_size) if i not in dead]

    def centre_(written: torch.Tensor) -> None:
        written[..., dead] = 0
        written[..., alive] -= written[..., alive].mean(dim=-1, keepdim=True)

    for name in parts.tables:
        centre_(model.get_submodule(name).weight)
    spaces = [space for space in parts.spaces if space.is_hidden]
    writers = [
        view for b in parts.anatomy.blocks for view in (b.ffn.down, *(a.out for a in b.attentions))
    ]
    for view in [*writers, *(space.writer for space in spaces)]:
        centre_(view.weight.t())
        if view.bias is not None:
            centre_(view.bias)
    for space in parts.spaces:
        if not space.is_hidden:
            _zero_rows_(space.writer, [31 - i for i in dead])  # dimensions of its own
    for norm in [*parts.norms, *(space.norm for space in spaces if space.norm is not None)]:
        norm.set_weight_(torch.full_like(norm.weight, float(norm.weight.mean())))
        if norm.bias is not None:
            centre_(norm.bias)


def _zero_rows_(view: Any, rows: list[int]) -> None:
    view.weight[rows] = 0
    if view.bias is not None:
        view.bias[rows] = 0


def check_unchanged(model: Any, **sizes: int) -> None:
    make_exact_(model)
    smaller = narrowed(model, reference(**sizes), [batch_for(model)])
    make_exact_(smaller)
    for field, size in sizes.items():
        assert getattr(smaller.config, field, size) == size
    assert smaller.num_parameters() < model.num_parameters()
    torch.testing.assert_close(logits(smaller), logits(model), **EXACT)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("texts", [True, False])
def test_keeping_everything_changes_no_bit(family: str, texts: bool) -> None:
    model = tiny.tiny_model(family)
    whole = reference(hidden_size=32, intermediate_size=48, num_attention_heads=4)
    same = narrowed(model, whole, [tiny.tiny_batch()] if texts else None)
    assert torch.equal(logits(same), logits(model))
    before, after = model.state_dict(), same.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@torch.no_grad()
def test_a_dead_neuron_takes_nothing_with_it(family: str) -> None:
    model = wide(family)
    deaden_neurons_(model, [3, 17, 47])
    check_unchanged(model, intermediate_size=45)


@pytest.mark.parametrize("family", FREE)
@torch.no_grad()
def test_a_dead_head_takes_nothing_with_it(family: str) -> None:
    model = wide(family)
    groups = anatomy_of(model).blocks[0].attention.kv_heads
    deaden_heads_(model, [groups - 1])
    check_unchanged(model, num_attention_heads=4 - 4 // groups)


@pytest.mark.parametrize("family", FREE)
@torch.no_grad()
def test_a_dead_hidden_dimension_takes_nothing_with_it(family: str) -> None:
    model = wide(family)
    deaden_hidden_(model, [0, 9, 30])
    check_unchanged(model, hidden_size=29)


@pytest.mark.parametrize("family", ["bert", "roberta", "bart", "gpt2"])
@torch.no_grad()
def test_dead_heads_and_dimensions_go_together_where_one_sets_the_other(family: str) -> None:
    model = wide(family)
    deaden_hidden_(model, [0, 5, 9, 14, 20, 21, 30, 31])
    deaden_heads_(model, [2])
    check_unchanged(model, hidden_size=24, num_attention_heads=3)


@pytest.mark.parametrize("family", ["bert", "roberta", "bart", "gpt2"])
@torch.no_grad()
def test_a_narrower_hidden_state_takes_channels_off_its_heads(family: str) -> None:
    model = wide(family)
    deaden_hidden_(model, [0, 5, 9, 14, 20, 21, 30, 31])
    deaden_channels_(model, 2)
    check_unchanged(model, hidden_size=24)


@pytest.mark.parametrize("family", WITH_WORDS)
@torch.no_grad()
def test_language_heads_read_the_kept_dimensions(family: str) -> None:
    model = with_words(WITH_WORDS[family](tiny.tiny_config(family)))
    deaden_hidden_(model, [0, 5, 9, 14, 20, 21, 30, 31])
    deaden_neurons_(model, [1])
    if family not in FREE:
        deaden_channels_(model, 2)
    check_unchanged(model, hidden_size=24, intermediate_size=47)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("texts", [True, False])
@torch.no_grad()
def test_the_order_of_neurons_does_not_matter(family: str, texts: bool) -> None:
    model = wide(family)
    permuted = copy.deepcopy(model)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    for block in anatomy_of(permuted).blocks:
        for view in block.ffn.inputs:
            view.weight.copy_(view.weight[order].clone())
            if view.bias is not None:
                view.bias.copy_(view.bias[order].clone())
        block.ffn.down.weight.copy_(block.ffn.down.weight[:, order].clone())
    batches = [tiny.tiny_batch()] if texts else None
    one, other = (narrowed(m, reference(intermediate_size=20), batches) for m in (model, permuted))
    torch.testing.assert_close(logits(one), logits(other), **EXACT)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_all_widths_at_once_survive_saving_and_loading(family: str, tmp_path: Path) -> None:
    model = tiny.tiny_model(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    sizes = reference(hidden_size=16, intermediate_size=20, num_attention_heads=2)
    smaller = narrowed(model, sizes, [tiny.tiny_batch()])
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    assert model.config.to_dict() == config
    smaller.save_pretrained(tmp_path)
    loaded, info = hf.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(logits(loaded.eval()), logits(smaller), rtol=1e-6, atol=1e-6)
    block = anatomy_of(smaller).blocks[-1]
    assert (block.ffn.down.in_features, block.attention.heads) == (20, 2)


def test_narrowing_draws_no_random_numbers_of_the_run() -> None:
    """The smaller model is initialized before its weights are cut: that must not move dropout."""
    model = tiny.tiny_model("bert")
    before = torch.get_rng_state()
    narrowed(model, reference(intermediate_size=16), [tiny.tiny_batch()])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_shapes_are_known_without_weights(family: str) -> None:
    with torch.device("meta"):
        model = hf.AutoModelForSequenceClassification.from_config(tiny.tiny_config(family))
    sizes = reference(hidden_size=16, intermediate_size=20, num_attention_heads=4)
    smaller = narrowed(model, sizes)
    real = narrowed(tiny.tiny_model(family), sizes)
    assert {n: t.shape for n, t in smaller.state_dict().items()} == {
        n: t.shape for n, t in real.state_dict().items()
    }
    assert {parameter.device.type for parameter in smaller.parameters()} == {"meta"}


@torch.no_grad()
def test_blocks_that_share_positions_keep_the_same_heads() -> None:
    """Each block would rather keep another head: T5's table of positions has one column a head."""
    model = tiny.tiny_model("t5", blocks=3)
    encoder = anatomy_of(model).stacks[0]
    for block in encoder.blocks:
        a = block.attention
        a.v.weight[block.index * a.head_size : (block.index + 1) * a.head_size] *= 10
    smaller = narrowed(model, reference(num_attention_heads=2), [tiny.tiny_batch()])
    table = "transformer.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    old, new = model.get_parameter(table), smaller.get_parameter(table)
    kept = [h for h in range(4) if any(torch.equal(old[:, h], column) for column in new.t())]
    assert len(kept) == 2
    for block, cut in zip(encoder.blocks, anatomy_of(smaller).stacks[0].blocks, strict=True):
        whole = block.attention.q.weight.reshape(4, -1, 32)
        assert torch.equal(cut.attention.q.weight.reshape(2, -1, 32), whole[kept])


@torch.no_grad()
def test_heads_that_share_keys_go_in_whole_groups_or_evenly() -> None:
    model = tiny.tiny_model("llama", num_attention_heads=8, head_dim=4)  # 2 of keys, 4 each
    whole = anatomy_of(narrowed(model, reference(num_attention_heads=4))).blocks[0].attention
    assert (whole.heads, whole.kv_heads, whole.head_size) == (4, 1, 4)
    even = anatomy_of(narrowed(model, reference(num_attention_heads=6))).blocks[0].attention
    assert (even.heads, even.kv_heads, even.head_size) == (6, 2, 4)
    with pytest.raises(ModelError, match=r"heads is 5.*8 heads that share 2.*one of 2, 4, 6, 8"):
        narrowed(model, reference(num_attention_heads=5))


@pytest.mark.parametrize(
    ("family", "sizes", "said"),
    [
        ("bert", {"hidden_size": 40}, r"hidden_size is 40, and the model has 32"),
        ("t5", {"intermediate_size": 49}, r"intermediate_size is 49, and the encoder has 48"),
        ("gpt2", {"num_attention_heads": 5}, r"num_attention_heads is 5, and the decoder has 4"),
        ("bert", {"num_attention_heads": 3}, r"32 over 3 heads gives heads of 10\.6667.*among 4"),
        ("bart", {"num_attention_heads": 2}, r"heads of 16, and the encoder has heads of 8.*ng 4"),
        ("gpt2", {"hidden_size": 31}, r"hidden_size 31 over 4 heads.*choose a hidden_size that"),
    ],
)
def test_widths_that_cannot_be_had_are_refused_with_numbers(
    family: str, sizes: dict[str, int], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        narrowed(tiny.tiny_model(family), reference(**sizes))


def test_embeddings_multiplied_by_the_width_keep_it() -> None:
    model = tiny.tiny_model("bart", scale_embedding=True)
    with pytest.raises(ModelError, match=r"multiplies its embeddings by √32.*intermediate_size"):
        narrowed(model, reference(hidden_size=16))
    narrowed(model, reference(intermediate_size=16))


def test_a_head_nobody_knows_is_refused() -> None:
    model = hf.BertForTokenClassification(tiny.tiny_config("bert"))
    with pytest.raises(ModelError, match=r"classifier\.weight \(3, 32\) instead of \(3, 16\)"):
        narrowed(model, reference(hidden_size=16))
    assert isinstance(narrowed(model, reference(intermediate_size=16)), nn.Module)


def test_a_masked_language_model_is_narrowed_with_its_head(tmp_path: Path) -> None:
    model = with_words(hf.RobertaForMaskedLM(tiny.tiny_config("roberta"))).float()
    smaller = narrowed(model, reference(hidden_size=16), [tiny.tiny_batch()])
    output = smaller.get_output_embeddings()
    assert output.weight is smaller.get_input_embeddings().weight
    assert output.weight.shape == (tiny.VOCABULARY, 16)
    assert torch.isfinite(logits(smaller)).all()
