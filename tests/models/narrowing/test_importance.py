"""Importance: what it measures, on which tokens, and that it finds what matters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tiny
from attar.errors import ModelError
from attar.models.config import ChangedModel
from attar.models.narrowing.choice import best
from attar.models.narrowing.importance import importance_of, spread_ratios
from attar.models.narrowing.narrow import narrowed
from attar.models.narrowing.parts import parts_of
from attar.models.structure.anatomy import anatomy_of


def seen_by(model: Any, fqn: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a module reads at the real tokens, (N, …)."""
    caught: list[torch.Tensor] = []
    handle = model.get_submodule(fqn).register_forward_pre_hook(
        lambda _, args: caught.append(args[0])
    )
    with torch.no_grad():
        model(**batch)
    handle.remove()
    return caught[0][batch["attention_mask"].bool()].double()


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5_gated"])
@torch.no_grad()
def test_importance_is_activation_times_weight_over_real_tokens(family: str) -> None:
    model, batch = tiny.tiny_model(family), tiny.tiny_batch()
    block = anatomy_of(model).blocks[1]
    found = importance_of(parts_of(model), [batch])
    a = seen_by(model, block.ffn.down.fqn, batch)
    for j in (0, 20, 47):
        expected = a[:, j].abs().mean() * block.ffn.down.weight[:, j].double().norm()
        assert float(found.neurons[block.ffn.fqn][j]) == pytest.approx(float(expected), rel=1e-12)
    c = seen_by(model, block.attention.out.fqn, batch)
    size = block.attention.head_size
    for h in range(4):
        its = slice(h * size, (h + 1) * size)
        out = block.attention.out.weight[:, its].double().norm()
        expected = c[:, its].norm(dim=1).mean() * out
        head = float(found.heads[block.attention.fqn][h])
        assert head == pytest.approx(float(expected), rel=1e-12)


def rows_of(module: Any) -> torch.Tensor:
    """‖(W_j, b_j)‖ of each output of a Linear."""
    weight = module.weight.detach().double()
    if module.bias is not None:
        weight = torch.cat([weight, module.bias.detach().double()[:, None]], dim=1)
    return weight.square().sum(dim=1).sqrt()


def columns_of(module: Any) -> torch.Tensor:
    return module.weight.detach().double().square().sum(dim=0).sqrt()


def heads_of(columns: torch.Tensor) -> torch.Tensor:
    return columns.reshape(4, 8).square().sum(dim=1).sqrt()


def near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_without_texts_a_bert_is_measured_by_the_sizes_of_its_weights_and_biases() -> None:
    model: Any = tiny.tiny_model("bert")
    found = importance_of(parts_of(model), None)
    layer, fqn = model.bert.encoder.layer[1], "bert.encoder.layer.1"
    own, out = layer.attention.self, layer.attention.output.dense
    (ffn,) = (name for name in found.neurons if name.startswith(fqn))
    near(found.neurons[ffn], rows_of(layer.intermediate.dense) * columns_of(layer.output.dense))
    (attention,) = (name for name in found.heads if name.startswith(fqn))
    near(found.heads[attention], heads_of(rows_of(own.value)) * heads_of(columns_of(out)))
    near(found.qk_channels[attention], rows_of(own.query) * rows_of(own.key))
    near(found.vo_channels[attention], rows_of(own.value) * columns_of(out))
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    spreads = [(n.weight.double().square() + n.bias.double().square()).sqrt() for n in norms]
    near(found.hidden, torch.stack(spreads).sum(0).detach())
    pooler = rows_of(model.bert.pooler.dense) * columns_of(model.classifier)
    near(found.spaces["bert.pooler.dense"], pooler)


def test_without_texts_heads_of_values_serve_their_own_group_of_queries() -> None:
    """Qwen2: four heads of queries, two of keys and values, a gate, norms without a bias."""
    model: Any = tiny.tiny_model("qwen2")
    found = importance_of(parts_of(model), None)
    layer, fqn = model.model.layers[0], "model.layers.0"
    values = rows_of(layer.self_attn.v_proj).reshape(2, 8)[[0, 0, 1, 1]].reshape(-1)
    out = columns_of(layer.self_attn.o_proj)
    near(found.heads[f"{fqn}.self_attn"], heads_of(values) * heads_of(out))
    near(found.vo_channels[f"{fqn}.self_attn"], values * out)
    assert f"{fqn}.self_attn" not in found.qk_channels
    ffn = layer.mlp
    size = rows_of(ffn.gate_proj) * rows_of(ffn.up_proj) * columns_of(ffn.down_proj)
    (feed_forward,) = (name for name in found.neurons if name.startswith(fqn))
    near(found.neurons[feed_forward], size)
    norms = [parameter for name, parameter in model.named_parameters() if "norm" in name]
    near(found.hidden, torch.stack(norms).detach().double().abs().sum(0))


def test_each_stack_counts_the_real_tokens_of_its_own_text() -> None:
    """BART: a source and a target as wide as each other, padded differently."""
    model: Any = tiny.tiny_model("bart")
    batch = tiny.tiny_batch(batch=2, tokens=8)
    target = torch.tensor([[1] * 3 + [0] * 5, [1] * 8])
    batch |= {"decoder_input_ids": batch["input_ids"], "decoder_attention_mask": target}
    found = importance_of(parts_of(model), [batch])
    source, stacks = batch["attention_mask"], model.model
    watched = {
        "encoder down": stacks.encoder.layers[1].fc2,
        "decoder down": stacks.decoder.layers[1].fc2,
        "q": stacks.decoder.layers[0].encoder_attn.q_proj,
        "k": stacks.decoder.layers[0].encoder_attn.k_proj,
        "out": stacks.decoder.layers[0].encoder_attn.out_proj,
        **{n: m for n, m in model.named_modules() if isinstance(m, torch.nn.LayerNorm)},
    }
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, module in watched.items():
        module.register_forward_hook(
            lambda _, args, output, name=name: seen.update({name: (args[0], output)})
        )
    with torch.no_grad():
        model(**batch)

    def loudness(name: str, mask: torch.Tensor, of_output: bool) -> torch.Tensor:
        return seen[name][of_output][mask > 0].double().abs().mean(dim=0)

    for stack, mask in (("encoder", source), ("decoder", target)):
        (ffn,) = (n for n in found.neurons if n.startswith(f"model.{stack}.layers.1"))
        down = columns_of(watched[f"{stack} down"])
        near(found.neurons[ffn], loudness(f"{stack} down", mask, False) * down)
    (cross,) = (n for n in found.heads if n.startswith("model.decoder.layers.0.encoder_attn"))
    near(found.qk_channels[cross], loudness("q", target, True) * loudness("k", source, True))
    context = loudness("out", target, False)
    near(found.vo_channels[cross], context * columns_of(watched["out"]))
    sums = [
        loudness(name, target if "decoder" in name else source, True)
        for name in seen
        if "layer" in name
    ]
    near(found.hidden, torch.stack(sums).sum(0))


def test_a_model_in_training_is_measured_without_dropout() -> None:
    model = tiny.tiny_model("bert", hidden_dropout_prob=0.5)
    wanted = importance_of(parts_of(model), [tiny.tiny_batch()])
    found = importance_of(parts_of(model.train()), [tiny.tiny_batch()])
    assert torch.equal(found.hidden, wanted.hidden)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_batches_and_padding_leave_no_trace(family: str) -> None:
    """One batch of three texts, or three of one text without padding."""
    model, batch = tiny.tiny_model(family), tiny.tiny_batch()
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    alone = [
        {name: tensor[i : i + 1, :length] for name, tensor in batch.items()}
        for i, length in enumerate(lengths)
    ]
    together, apart = (importance_of(parts_of(model), b) for b in ([batch], alone))
    same = {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(together.hidden, apart.hidden, **same)
    for kind in ("neurons", "heads", "qk_channels", "vo_channels", "spaces"):
        for fqn, values in getattr(together, kind).items():
            torch.testing.assert_close(values, getattr(apart, kind)[fqn], **same)


@torch.no_grad()
def test_hidden_dimensions_add_up_over_norms() -> None:
    model, batch = tiny.tiny_model("bert"), tiny.tiny_batch()
    norms = parts_of(model).norms
    expected = torch.zeros(32, dtype=torch.float64)
    for norm in norms:
        caught: list[torch.Tensor] = []
        handle = norm.module.register_forward_hook(lambda _, __, output, c=caught: c.append(output))
        model(**batch)
        handle.remove()
        expected += caught[0][batch["attention_mask"].bool()].double().abs().mean(dim=0)
    assert len(norms) == 5
    torch.testing.assert_close(importance_of(parts_of(model), [batch]).hidden, expected)


def test_no_batch_at_all_is_refused() -> None:
    with pytest.raises(ModelError, match="at least one batch"):
        importance_of(parts_of(tiny.tiny_model("bert")), [])


def test_watching_leaves_the_model_as_it_was() -> None:
    model = tiny.tiny_model("bert").train()
    importance_of(parts_of(model), [tiny.tiny_batch()])
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_the_best_units_rise_and_of_equals_the_first_stay() -> None:
    assert best(torch.tensor([1.0, 5.0, 1.0, 3.0]), 2).tolist() == [1, 3]
    assert best(torch.ones(5), 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("texts", [True, False])
@torch.no_grad()
def test_what_is_important_stays_nearer_to_the_model_than_what_is_not(texts: bool) -> None:
    """Neurons of very different size: keeping the best beats keeping the worst."""
    model, batch = tiny.tiny_model("bert"), tiny.tiny_batch()
    for block in anatomy_of(model).blocks:
        block.ffn.down.weight.mul_(torch.logspace(-1, 1, 48))
    reference = ChangedModel.model_validate({"from": "big", "intermediate_size": 24})
    kept = narrowed(model, reference, [batch] if texts else None)
    for block in anatomy_of(model).blocks:
        block.ffn.down.weight[:, 24:] = 0  # the worst stay
    wanted = tiny.tiny_model("bert")
    for block in anatomy_of(wanted).blocks:
        block.ffn.down.weight.mul_(torch.logspace(-1, 1, 48))
    exact, near, far = (m(**batch).logits for m in (wanted, kept, model))
    assert (near - exact).norm() < 0.5 * (far - exact).norm()


@pytest.mark.parametrize("family", ["llama", "bert"])
@torch.no_grad()
def test_a_norm_is_told_how_its_spread_shrank(family: str) -> None:
    """LayerNorm divides by the spread around the mean, RMSNorm by that around 0."""
    model = tiny.tiny_model(family)
    parts, kept = parts_of(model), torch.arange(16)
    batch = tiny.tiny_batch()
    norm = parts.norms[1]
    x = seen_by(model, norm.fqn, batch)
    if family == "bert":
        x += 3  # which a spread around the mean does not see
        norm.module.register_forward_pre_hook(lambda _, args: (args[0] + 3,), prepend=True)
    squares = [
        part.var(1, correction=0) if family == "bert" else part.pow(2).mean(1)
        for part in (x[:, :16], x)
    ]
    spread = [(square + norm.epsilon).sqrt() for square in squares]
    expected = float((spread[0] / spread[1]).mean())
    found = spread_ratios(parts, [norm], kept, [batch])[norm.fqn]
    assert found == pytest.approx(expected, rel=1e-6)
