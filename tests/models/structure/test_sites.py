"""The tensor at every site is the one its kind says, recomputed from the model's own weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu as exact_gelu
from torch.nn.functional import linear

import tiny
from attar.errors import ModelError
from attar.models.structure.ports import inserted, use_attar_attention_
from attar.models.structure.site_kinds import SITE_KINDS
from attar.models.structure.sites import Site, quantized_weights, sites_of

FAMILIES = ("bert", "roberta")
"""One stack of blocks and a pooler; BART has tests of its own in test_bart_sites."""
OF_ONE_POST_LN_STACK = {
    kind
    for kind in SITE_KINDS
    if not kind.startswith("cross_") and kind not in ("final_norm", "projected_embedding")
}


class Recorder(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.clone()
        return x


def recorded(model, batch) -> tuple[dict[tuple[str, int | None], Tensor], Tensor]:
    """(kind, block) → tensor, and the logits."""
    use_attar_attention_(model)
    recorders = {site: Recorder() for site in sites_of(model)}
    with torch.no_grad(), inserted(model, recorders):
        outputs = model(**batch)
    return {(s.kind, s.block): r.seen for s, r in recorders.items()}, outputs[0]


def two_padded(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_holds_the_tensor_its_kind_says(family):
    model, batch = tiny.tiny_model(family), two_padded(tiny.tiny_batch())
    seen, logits = recorded(model, batch)
    encoder = model.base_model
    mask = batch["attention_mask"]
    with torch.no_grad():
        states = encoder(**batch, output_hidden_states=True).hidden_states
        assert torch.equal(seen["embedding", None], states[0])
        for b, block in enumerate(encoder.encoder.layer):
            this, out = block.attention.self, block.attention.output
            heads, size = this.num_attention_heads, this.attention_head_size

            def split(x: Tensor, heads=heads, size=size) -> Tensor:
                return x.unflatten(-1, (heads, size)).transpose(1, 2)

            parts = (this.query, this.key, this.value)
            query, key, value = (linear(states[b], part.weight, part.bias) for part in parts)
            for kind, expected in (("query", query), ("key", key), ("value", value)):
                assert torch.equal(seen[kind, b], expected)
            scores = split(query) @ split(key).transpose(2, 3) / size**0.5
            scores = scores.masked_fill(mask[:, None, None, :] == 0, float("-inf"))
            probs = scores.softmax(-1)
            close = {"rtol": 1e-4, "atol": 1e-6}
            torch.testing.assert_close(seen["attention_probs", b], probs, **close)
            context = (probs @ split(value)).transpose(1, 2).flatten(2)
            torch.testing.assert_close(seen["context", b], context, **close)
            mha = out.LayerNorm(out.dense(seen["context", b]) + states[b])
            torch.testing.assert_close(seen["mha_norm", b], mha, **close)
            gelu = exact_gelu(block.intermediate.dense(seen["mha_norm", b]))
            torch.testing.assert_close(seen["ffn_act", b], gelu, **close)
            is_last = b == len(encoder.encoder.layer) - 1
            assert (("ffn_norm", b) in seen) != is_last
            if not is_last:
                assert torch.equal(seen["ffn_norm", b], states[b + 1])
        assert torch.equal(seen["pooler_input", None], states[-1][:, 0])
        head = {"bert": lambda m: (m.bert.pooler.dense, m.classifier)}.get(
            family, lambda m: (m.classifier.dense, m.classifier.out_proj)
        )(model)
        pooled = torch.tanh(head[0](states[-1][:, 0]))
        torch.testing.assert_close(seen["classifier_input", None], pooled, **close)
        torch.testing.assert_close(head[1](pooled), logits, **close)


@pytest.mark.parametrize("family", FAMILIES)
def test_sites_are_counted_named_once_and_of_known_kinds(family):
    model = tiny.tiny_model(family, blocks=3)
    sites = sites_of(model)
    assert len(sites) == 1 + 3 * 8 - 1 + 2
    assert len({site.name for site in sites}) == len(sites)
    assert {site.kind for site in sites} == OF_ONE_POST_LN_STACK
    assert {site.stack for site in sites} == {"encoder"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_encoder_without_a_pooler_keeps_its_last_norm(family):
    model = tiny.tiny_model(family, bare=True)
    with_pooler = sites_of(model)
    assert with_pooler[-1] == Site("pooler.dense", "input", "pooler_input", None)
    model.pooler = None
    assert sites_of(model)[-1] == Site("encoder.layer.1.output.LayerNorm", "output", "ffn_norm", 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_table_and_linear_weight_is_quantized_and_nothing_else(family):
    model = tiny.tiny_model(family)
    names = quantized_weights(model)
    rest = [name for name, _ in model.named_parameters() if name not in names]
    assert all(name.endswith(".bias") or "LayerNorm" in name for name in rest)
    assert sum(kind == "embedding" for kind in names.values()) == 3
    assert sum(kind == "linear" for kind in names.values()) == 2 * 6 + 2


def test_a_head_whose_input_no_site_covers_is_refused():
    from transformers import BertForMaskedLM

    model = BertForMaskedLM(tiny.tiny_config("bert"))
    with pytest.raises(ModelError, match=r"no site covers what cls.predictions.decoder .* reads"):
        sites_of(model)


def test_an_encoder_that_its_config_makes_a_decoder_is_refused():
    model = tiny.tiny_model("bert", bare=True, is_decoder=True)
    with pytest.raises(ModelError, match="is_decoder = true"):
        sites_of(model)
