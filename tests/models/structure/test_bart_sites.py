"""BART's sites: the tensors of both stacks and of cross-attention, recomputed from the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

import tiny
from attar.models.structure.ports import inserted, use_attar_attention_
from attar.models.structure.site_kinds import SITE_KINDS
from attar.models.structure.sites import Site, quantized_weights, sites_of
from attar.numerics.affine import choose_qparams, fake_quantize

CLOSE = {"rtol": 1e-4, "atol": 1e-6}
"""Sums in another order."""
PER_ENCODER_BLOCK, PER_DECODER_BLOCK = 8, 14


class Recorder(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.clone()
        return x


def summariser(**changes):
    from transformers import BartForConditionalGeneration

    model = tiny.tiny_model("bart", bare=True, **changes)
    full = BartForConditionalGeneration(copy.deepcopy(model.config)).eval()
    full.model.load_state_dict(model.state_dict())
    full.final_logits_bias.normal_(generator=torch.Generator().manual_seed(3))
    use_attar_attention_(full)
    return full


def text_batch() -> dict[str, Tensor]:
    """Texts padded on both sides, with as many source tokens as no target has."""
    source, target = tiny.tiny_batch(tokens=9), tiny.tiny_batch(tokens=6, seed=1)
    decoder = {f"decoder_{name}": tensor for name, tensor in target.items()}
    return {**source, **decoder}


def test_every_site_holds_the_tensor_its_kind_says():
    model, batch = summariser(), text_batch()
    recorders = {site: Recorder() for site in sites_of(model)}
    with torch.no_grad(), inserted(model, recorders):
        outputs = model(**batch, output_hidden_states=True)
    seen = {(s.stack, s.kind, s.block): r.seen for s, r in recorders.items()}
    mask = batch["attention_mask"]
    with torch.no_grad():
        encoder, decoder = outputs.encoder_hidden_states, outputs.decoder_hidden_states
        for stack, states in (("encoder", encoder), ("decoder", decoder)):
            assert torch.equal(seen[stack, "embedding", None], states[0])
            for b, block in enumerate(getattr(model.model, stack).layers):
                own = block.self_attn
                for kind, part in (("query", own.q_proj), ("key", own.k_proj)):
                    expected = linear(states[b], part.weight, part.bias)
                    assert torch.equal(seen[stack, kind, b], expected)
                mha = block.self_attn_layer_norm(
                    own.out_proj(seen[stack, "context", b]) + states[b]
                )
                torch.testing.assert_close(seen[stack, "mha_norm", b], mha, **CLOSE)
                assert torch.equal(seen[stack, "ffn_norm", b], states[b + 1])
        for b, block in enumerate(model.model.decoder.layers):
            cross = block.encoder_attn
            query = linear(seen["decoder", "mha_norm", b], cross.q_proj.weight, cross.q_proj.bias)
            assert torch.equal(seen["decoder", "cross_query", b], query)
            for kind, part in (("cross_key", cross.k_proj), ("cross_value", cross.v_proj)):
                expected = linear(encoder[-1], part.weight, part.bias)
                assert torch.equal(seen["decoder", kind, b], expected)

            def split(x: Tensor) -> Tensor:
                return x.unflatten(-1, (4, 8)).transpose(1, 2)

            key, value = (seen["decoder", f"cross_{kind}", b] for kind in ("key", "value"))
            scores = split(query) @ split(key).transpose(2, 3) / 8**0.5
            scores = scores.masked_fill(mask[:, None, None, :] == 0, float("-inf"))
            torch.testing.assert_close(
                seen["decoder", "cross_probs", b], scores.softmax(-1), **CLOSE
            )
            context = (scores.softmax(-1) @ split(value)).transpose(1, 2).flatten(2)
            torch.testing.assert_close(seen["decoder", "cross_context", b], context, **CLOSE)
            shortcut = seen["decoder", "mha_norm", b]
            norm = block.encoder_attn_layer_norm(cross.out_proj(context) + shortcut)
            torch.testing.assert_close(seen["decoder", "cross_norm", b], norm, **CLOSE)
            gelu = block.activation_fn(block.fc1(norm))
            torch.testing.assert_close(seen["decoder", "ffn_act", b], gelu, **CLOSE)
        logits = linear(decoder[-1], model.model.shared.weight) + model.final_logits_bias
        torch.testing.assert_close(outputs.logits, logits, **CLOSE)


def test_sites_are_counted_named_once_and_of_known_kinds():
    sites = sites_of(summariser(blocks=3))
    assert len(sites) == 2 + 3 * PER_ENCODER_BLOCK + 3 * PER_DECODER_BLOCK
    assert len({site.name for site in sites}) == len(sites)
    assert len({(site.stack, site.kind, site.block) for site in sites}) == len(sites)
    pooled = {site.kind for site in sites_of(tiny.tiny_model("bart"))}
    assert {site.kind for site in sites} | pooled == set(SITE_KINDS) - {
        "final_norm",
        "projected_embedding",
    }


def test_a_classifier_quantizes_what_its_head_reads_in_place_of_the_last_norm():
    pooler, classifier = sites_of(tiny.tiny_model("bart"))[-2:]
    assert pooler == Site("classification_head.dense", "input", "pooler_input", None, "decoder")
    assert classifier.fqn == "classification_head.out_proj"
    names = {site.name for site in sites_of(tiny.tiny_model("bart"))}
    assert "model.decoder.layers.1.final_layer_norm:output" not in names
    assert "model.encoder.layers.1.final_layer_norm:output" in names


def test_a_site_knows_whose_tokens_it_holds():
    sites = {(s.stack, s.kind): s for s in sites_of(summariser())}
    of_encoder = {
        k for (stack, k), s in sites.items() if (stack, s.tokens) == ("decoder", "encoder")
    }
    assert of_encoder == {"cross_key", "cross_value"}
    cross, own = sites["decoder", "cross_probs"], sites["decoder", "attention_probs"]
    assert (cross.tokens, cross.keys, cross.is_causal) == ("decoder", "encoder", False)
    assert (own.tokens, own.keys, own.is_causal) == ("decoder", "decoder", True)
    assert not sites["encoder", "attention_probs"].is_causal


def test_every_table_and_linear_weight_is_quantized_and_nothing_else():
    model = summariser()
    names = quantized_weights(model)
    rest = [name for name, _ in model.named_parameters() if name not in names]
    assert all(name.endswith(".bias") or "norm" in name for name in rest)
    assert "lm_head.weight" in names
    assert sum(kind == "linear" for kind in names.values()) == 2 * 6 + 2 * 10 + 1
    assert "model.decoder.embed_positions.weight" in names


@pytest.mark.parametrize("bits", [4, 8])
def test_a_query_may_be_rounded_before_or_after_its_scaling(bits: int):
    """K = 16 heads: 1/√K is a power of two, so the scaling itself rounds nothing."""
    query, factor = torch.randn(50, 16, generator=torch.Generator().manual_seed(0)), 0.25
    low, high = query.aminmax()
    before = choose_qparams(low, high, bits, symmetric=False)
    after = choose_qparams(low * factor, high * factor, bits, symmetric=False)
    assert torch.equal(after.zero_point, before.zero_point)
    assert torch.equal(fake_quantize(query, before) * factor, fake_quantize(query * factor, after))
