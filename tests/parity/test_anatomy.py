"""Every row of the table of families, proven: the model's own blocks are recomputed through their
views, and every
norm's readers are watched while the model runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from attar.errors import ModelError
from attar.models.config import STATIC_TYPE
from attar.models.structure.anatomy import Anatomy, anatomy_of
from attar.models.structure.families import FAMILIES
from attar.models.structure.views import AttentionView, FfnView, LinearView, NormView

EXACT = {"rtol": 1e-5, "atol": 1e-5}
"""The same float32 sums in another order."""


class Seen:
    """Inputs and outputs of every module during one forward pass."""

    def __init__(self, model: Any) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.kwargs: dict[str, dict[str, Any]] = {}
        self.args: dict[str, tuple[Any, ...]] = {}
        self.outputs: dict[str, Any] = {}
        for name, module in model.named_modules():
            module.register_forward_hook(self._hook(name), with_kwargs=True)
        with torch.no_grad():
            model(**tiny.tiny_batch())

    def _hook(self, name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if args and isinstance(args[0], Tensor):
                self.inputs[name] = args[0]
            elif isinstance(kwargs.get("hidden_states"), Tensor):
                self.inputs[name] = kwargs["hidden_states"]
            self.args[name], self.kwargs[name] = args, kwargs
            self.outputs[name] = output

        return hook


def first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny.tiny_model(request.param)


@pytest.fixture(scope="module")
def anatomy(model: Any) -> Anatomy:
    return anatomy_of(model)


@pytest.fixture(scope="module")
def seen(model: Any) -> Seen:
    return Seen(copy.deepcopy(model))


def ffn_error(ffn: FfnView, seen: Seen) -> float:
    """Largest difference between the ffn's own output and the one through its views."""
    with torch.no_grad():
        ours = ffn(seen.inputs[ffn.inputs[0].fqn])
    return float((ours - seen.outputs[ffn.down.fqn]).abs().max())


def recomputed(attention: AttentionView, seen: Seen) -> Tensor:
    """softmax(q kᵀ · scaling + bias + mask) v through the views, slowly."""
    q = attention.q(seen.inputs[attention.q.fqn])
    k, v = (view(seen.inputs[view.fqn]) for view in (attention.k, attention.v))

    def split(x: Tensor, heads: int) -> Tensor:
        return x.reshape(*x.shape[:2], heads, attention.head_size).transpose(1, 2)

    q, k, v = split(q, attention.heads), split(k, attention.kv_heads), split(v, attention.kv_heads)
    if attention.q_norm is not None and attention.k_norm is not None:
        q, k = normed(attention.q_norm, q), normed(attention.k_norm, k)
    kwargs = seen.kwargs[attention.fqn]
    if kwargs.get("position_embeddings") is not None:
        cos, sin = (table[:, None] for table in kwargs["position_embeddings"])
        q, k = (x * cos + turned(x) * sin for x in (q, k))
    group = attention.heads // attention.kv_heads
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * attention.scaling
    if isinstance(seen.outputs[attention.fqn], tuple) and len(seen.outputs[attention.fqn]) == 3:
        scores = scores + seen.outputs[attention.fqn][1]  # T5 hands its position bias on
    if len(seen.args[attention.fqn]) == 3:
        scores = scores + seen.args[attention.fqn][2]  # MPNet's is its third argument
    cap = getattr(attention.module, "attn_logit_softcapping", None)
    if cap is not None:
        scores = cap * (scores / cap).tanh()
    queries, keys = scores.shape[-2:]
    if attention.is_causal:
        future = torch.ones(queries, keys, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, torch.finfo(scores.dtype).min)
    padding = tiny.tiny_batch()["attention_mask"] == 0
    if not (attention.is_causal and attention.module.config.is_encoder_decoder):
        scores = scores.masked_fill(padding[:, None, None], torch.finfo(scores.dtype).min)
    window = getattr(attention.module, "sliding_window", None)
    if window is not None:
        distance = (torch.arange(queries)[:, None] - torch.arange(keys)).abs()
        scores = scores.masked_fill(distance >= window, torch.finfo(scores.dtype).min)
    context = (scores.softmax(-1) @ v).transpose(1, 2)
    return attention.out(context.reshape(*context.shape[:2], -1))


def normed(norm: NormView, x: Tensor) -> Tensor:
    """γ x̂ + β, over the last axis."""
    is_centring = isinstance(norm.module, nn.LayerNorm)
    centred = x - x.mean(-1, keepdim=True) if is_centring else x
    variance = centred.square().mean(-1, keepdim=True)
    scaled = centred * torch.rsqrt(variance + norm.epsilon) * norm.weight
    return scaled if norm.bias is None else scaled + norm.bias


def turned(x: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return torch.cat((-right, left), dim=-1)


def test_every_family_of_the_table_has_a_tiny_model() -> None:
    names = (*tiny.FAMILIES, *tiny.LINEARS_ONLY)
    proven = {tiny.tiny_config(name).model_type for name in names}
    assert proven == set(FAMILIES) - {STATIC_TYPE}  # it has no blocks


def test_feed_forwards_are_recomputed_through_their_views(anatomy: Anatomy, seen: Seen) -> None:
    for block in anatomy.blocks:
        assert ffn_error(block.ffn, seen) < 1e-5, block.fqn


def test_swapping_gate_and_up_is_found_out() -> None:
    for name in tiny.GATED:
        model = tiny.tiny_model(name)
        ffn = anatomy_of(model).blocks[0].ffn
        assert ffn.gate is not None
        swapped = FfnView(ffn.fqn, ffn.gate, ffn.up, ffn.down, ffn.act, ffn.act_fqn)
        watched = Seen(model)
        assert ffn_error(ffn, watched) < 1e-5
        assert ffn_error(swapped, watched) > 1e-2


def test_attentions_are_recomputed_through_their_views(anatomy: Anatomy, seen: Seen) -> None:
    for block in anatomy.blocks:
        for attention in block.attentions:
            with torch.no_grad():
                ours = recomputed(attention, seen)
            torch.testing.assert_close(ours, seen.outputs[attention.out.fqn], **EXACT)


def test_swapping_query_and_key_of_a_fused_map_is_found_out() -> None:
    model = tiny.tiny_model("gpt2")
    view = anatomy_of(model).blocks[0].attention
    watched = Seen(model)
    swapped = AttentionView(**{**vars(view), "q": view.v, "v": view.q})
    theirs = watched.outputs[view.out.fqn]
    assert (recomputed(view, watched) - theirs).abs().max() < 1e-5
    assert (recomputed(swapped, watched) - theirs).abs().max() > 1e-2


def test_consumers_of_a_norm_receive_its_output(anatomy: Anatomy, seen: Seen) -> None:
    for site in anatomy.norm_sites:
        output = seen.outputs[site.norm.fqn]
        assert site.consumers, site.norm.fqn
        for consumer in site.consumers:
            received = seen.inputs[consumer.fqn]
            if received.ndim == 2:  # a head reads one token of each text
                equal = (output == received[:, None]).all(-1).any(-1)
                assert equal.all(), (site.norm.fqn, consumer.fqn)
            else:
                picked = output if received.shape == output.shape else output[:, :1]
                assert torch.equal(received.reshape(picked.shape), picked), consumer.fqn


def test_residual_consumers_of_a_norm_add_its_output(anatomy: Anatomy, seen: Seen) -> None:
    """What enters the next norm is this norm's output plus what the sublayer between them makes."""
    branch_ends = {}
    for block in anatomy.blocks:
        ends = [*(a.out for a in block.attentions), block.ffn.down]
        branch_ends |= {norm.fqn: end.fqn for norm, end in zip(block.norms, ends, strict=True)}
    checked = 0
    for site in anatomy.norm_sites:
        for next_norm in (shortcut.norm for shortcut in site.shortcuts):
            branch = first(seen.outputs[branch_ends[next_norm.fqn]])
            total = seen.outputs[site.norm.fqn] + branch
            torch.testing.assert_close(seen.inputs[next_norm.fqn], total, **EXACT)
            checked += 1
    stack = anatomy.stacks[0]
    sublayers = sum(len(block.norms) for block in anatomy.blocks)
    # behind narrower embeddings the first block adds what a map wrote, not a norm
    post_norm = sublayers - (stack.embedding_map is not None)
    assert checked == (0 if stack.row.is_pre_norm else post_norm)


def test_readers_of_a_norm_are_all_named(model: Any, anatomy: Anatomy, seen: Seen) -> None:
    """No linear map outside `consumers` receives a norm's output: the other direction."""
    for site in anatomy.norm_sites:
        output = seen.outputs[site.norm.fqn]
        readers = {
            name
            for name, received in seen.inputs.items()
            if received.data_ptr() == output.data_ptr()
            and type(model.get_submodule(name)).__name__ in ("Linear", "Conv1D")
        }
        assert readers <= {consumer.fqn for consumer in site.consumers}, site.norm.fqn


def test_every_norm_of_the_model_is_a_site(model: Any, anatomy: Anatomy) -> None:
    norms = {
        name for name, module in model.named_modules() if type(module).__name__.endswith("Norm")
    }
    on_heads = {n.fqn for b in anatomy.blocks for a in b.attentions for n in a.head_norms}
    before_sums = {norm.fqn for block in anatomy.blocks for norm in block.post_norms}
    spaces = FAMILIES[anatomy.family].head_spaces
    in_head = {space.norm for space in spaces} & norms
    assert {site.norm.fqn for site in anatomy.norm_sites} == (
        norms - on_heads - in_head - before_sums
    )
    first = anatomy.stacks[0].row.first_norm or "none"
    assert all(site.is_closed != site.name.endswith(first) for site in anatomy.norm_sites)


def test_norm_views_recompute_the_norm(anatomy: Anatomy, seen: Seen) -> None:
    for site in anatomy.norm_sites:
        norm = site.norm
        with torch.no_grad():
            ours = normed(norm, seen.inputs[norm.fqn])
        torch.testing.assert_close(ours, seen.outputs[norm.fqn], **EXACT)


def test_norms_behind_sublayers_read_what_these_write(anatomy: Anatomy, seen: Seen) -> None:
    """And the next sublayer's norm reads the sum of what they make of it and of the stream."""
    for block in anatomy.blocks:
        if not block.post_norms:
            continue
        for end, norm in zip((block.attention.out, block.ffn.down), block.post_norms, strict=True):
            assert torch.equal(seen.inputs[norm.fqn], seen.outputs[end.fqn])
            with torch.no_grad():
                ours = normed(norm, seen.inputs[norm.fqn])
            torch.testing.assert_close(ours, seen.outputs[norm.fqn], **EXACT)
        mha, ffn = block.norms
        total = seen.inputs[mha.fqn] + seen.outputs[block.post_norms[0].fqn]
        torch.testing.assert_close(seen.inputs[ffn.fqn], total, **EXACT)


def test_scaling_moved_through_the_views_leaves_the_model_unchanged(model: Any) -> None:
    """Dividing a pre-LN norm by s and multiplying its consumers' columns by s changes nothing:
    writing into a view
    writes into the model, GPT-2's transposed and fused maps included."""
    moved = copy.deepcopy(model).double()
    batch = tiny.tiny_batch()
    anatomy = anatomy_of(moved)
    with torch.no_grad():
        before = moved(**batch).logits
        for site in anatomy.norm_sites:
            if site.shortcuts or not site.is_closed:
                continue
            scale = torch.linspace(0.5, 2.0, site.norm.weight.numel(), dtype=torch.float64)
            site.norm.set_weight_(site.norm.weight / scale)
            if site.norm.bias is not None:
                site.norm.bias.div_(scale)
            for consumer in site.consumers:
                consumer.weight.mul_(scale)
        after = moved(**batch).logits
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-12)


def test_linear_views_share_memory_and_know_their_part() -> None:
    model = tiny.tiny_model("gpt2")
    attention = anatomy_of(model).blocks[0].attention
    fused = model.transformer.h[0].attn.c_attn.weight
    assert attention.k.weight.shape == (32, 32)
    assert torch.equal(attention.k.weight, fused[:, 32:64].T)
    with torch.no_grad():
        attention.k.weight.zero_()
    assert fused[:, 32:64].count_nonzero() == 0
    assert fused[:, :32].count_nonzero() > 0


def test_a_tied_head_is_marked_and_its_norm_is_not_closed() -> None:
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel(tiny.tiny_config("gpt2"))
    last = anatomy_of(model).norm_sites[-1]
    assert [consumer.fqn for consumer in last.consumers] == ["lm_head"]
    assert last.consumers[0].is_tied
    assert not last.is_closed


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_bare_model_hands_its_last_norm_out(name: str) -> None:
    sites = anatomy_of(tiny.tiny_model(name, bare=True)).norm_sites
    assert not sites[-1].is_closed
    assert all(site.is_closed for site in sites[:-1])


def test_an_unknown_family_names_the_known_ones() -> None:
    from transformers import AlbertConfig, AlbertModel

    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    model = AlbertModel(AlbertConfig(vocab_size=20, embedding_size=8, **sizes))
    with pytest.raises(ModelError, match=r"'albert'.*works for: bert, roberta, xlm-roberta"):
        anatomy_of(model)


def test_a_block_with_a_layer_nobody_named_is_refused() -> None:
    model = tiny.tiny_model("bert")
    model.bert.encoder.layer[1].output.adapter = nn.Linear(32, 32)
    with pytest.raises(ModelError, match=r"layer\.1 has 2 parameters.*output\.adapter\.weight"):
        anatomy_of(model)


def test_longest_inputs_are_known() -> None:
    longest = {name: anatomy_of(tiny.tiny_model(name)).max_tokens for name in tiny.FAMILIES}
    assert longest["bert"] == longest["bart"] == longest["gpt2"] == 40
    assert longest["distilbert"] == longest["electra"] == 40
    assert (
        longest["roberta"] == longest["xlm-roberta"] == 38
    )  # its first two positions are never used
    assert longest["t5"] is longest["llama"] is longest["qwen2"] is None


def test_a_view_computes_what_its_module_computes() -> None:
    for name in ("bert", "gpt2"):
        model = tiny.tiny_model(name)
        view: LinearView = anatomy_of(model).blocks[0].ffn.up
        x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(view(x), view.module(x), **EXACT)
