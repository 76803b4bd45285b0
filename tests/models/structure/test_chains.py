"""Variants of the feed-forward in every family: each block is recomputed through its views."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

import tiny
from attar.errors import ModelError
from attar.models.config import STATIC_TYPE
from attar.models.cost import flops, num_params
from attar.models.ffn_variants import VARIANTS
from attar.models.load import LoadedModel, load_model, save_model
from attar.models.structure.anatomy import Anatomy, anatomy_of
from attar.models.structure.blocks import Block
from attar.models.structure.families import FAMILIES
from attar.models.structure.sites import sites_of
from attar.models.structure.views import ChainView, NormView

TYPES = {name: tiny.tiny_config(name).model_type for name in (*tiny.FAMILIES, *tiny.LINEARS_ONLY)}
ENCODER_DECODERS = ("bart", "t5", "t5_gated")


def variants(family: str) -> list[str]:
    return [n for n, v in VARIANTS.items() if family in ENCODER_DECODERS or not v.encoder_only]


def built(family: str, variant: str, **changes: Any) -> Any:
    return tiny.tiny_model(family, attar_ffn={"variant": variant, "expansion": 1.5}, **changes)


class Watched:
    """What enters and leaves modules in one forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        for name, module in model.named_modules():
            module.register_forward_hook(self._hook(name), with_kwargs=True)
        with torch.no_grad():
            model(**tiny.tiny_batch())

    def _hook(self, name: str) -> Any:
        def hook(_: Any, args: Any, kwargs: Any, output: Any) -> None:
            first = args[0] if args else kwargs.get("hidden_states")
            if isinstance(first, Tensor):
                self.inputs[name] = first
            self.outputs[name] = output[0] if isinstance(output, tuple) else output

        return hook


def normed(norm: NormView, x: Tensor) -> Tensor:
    with torch.no_grad():
        return norm.module(x)


def recomputed(block: Block, *, is_pre_norm: bool, follows: bool, seen: Watched) -> Tensor:
    """The block's output: contexts from the model, everything behind them from the views."""
    h = seen.inputs[block.fqn]
    norms = {sublayer.kind: sublayer.norm for sublayer in block.sublayers}
    behind = [partial(normed, norm) for norm in block.post_norms]
    for kind, attention in zip(("mha", "cross"), block.attentions, strict=False):
        branch = attention.out(seen.inputs[attention.out.fqn])
        if follows and attention is block.attentions[-1]:
            branch = block.ffn(branch)
        h = h + (behind[0](branch) if behind else branch)
        norm = norms[kind]
        h = h if is_pre_norm or norm is None else normed(norm, h)
    norm = norms.get("ffn")
    if is_pre_norm:
        read = h if norm is None else normed(norm, h)
        if follows or not block.ffn.maps:
            assert len(behind) < 2
            return h
        written = block.ffn(read)
        return h + (behind[1](written) if behind else written)
    h = h if follows or not block.ffn.maps else h + block.ffn(h)
    return h if norm is None else normed(norm, h)


def changed_blocks(anatomy: Anatomy, variant: str) -> list[tuple[Block, bool]]:
    """Blocks that have the variant, each with whether it is pre-norm."""
    stacks = anatomy.stacks[:1] if VARIANTS[variant].encoder_only else anatomy.stacks  # pyright: ignore[reportArgumentType]
    return [(block, stack.row.is_pre_norm) for stack in stacks for block in stack.blocks]


@pytest.mark.parametrize("family", TYPES)
def test_every_variant_is_recomputed_through_its_views(family: str) -> None:
    for name in variants(family):
        model = built(family, name)
        anatomy = anatomy_of(model)
        seen = Watched(model)
        for block, is_pre_norm in changed_blocks(anatomy, name):
            follows = VARIANTS[name].follows_attention  # pyright: ignore[reportArgumentType]
            assert isinstance(block.ffn, ChainView)
            with torch.no_grad():
                ours = recomputed(block, is_pre_norm=is_pre_norm, follows=follows, seen=seen)
            difference = (ours - seen.outputs[block.fqn]).abs().max()
            assert difference < 2e-5, (name, block.fqn)
            if len(block.ffn.maps) == 3:
                assert tuple(block.ffn.maps[1].weight.shape) == (48, 48)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_flops_of_variants_equal_those_torch_counts(family: str) -> None:
    for name in variants(family):
        model = built(family, name, blocks=1)
        ids = torch.full((2, 7), 5)
        ids[:, -1] = tiny.EOS
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        assert flops(model, 2, 7) == counter.get_total_flops(), name


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_what_a_chain_reads_is_quantized_once(family: str) -> None:
    """Every map reads a site; a norm that only a sum reads is none."""
    for name in variants(family):
        model = built(family, name)
        sites = sites_of(model)
        assert len({site.name for site in sites}) == len(sites)
        anatomy = anatomy_of(model)
        read = {site.fqn for site in sites if site.port == "input"}
        for block, is_pre_norm in changed_blocks(anatomy, name):
            assert {view.fqn for view in block.ffn.inner} <= read
            if name == "skip" and not is_pre_norm:
                norm = block.sublayers[-2].norm
                assert norm is not None and norm.fqn not in {site.fqn for site in sites}


@pytest.mark.parametrize(
    ("family", "variant"),
    [
        *(("bert", "3w"), ("mpnet", "merged"), ("gpt2", "2w"), ("gpt2", "merged")),
        *(("llama", "3w"), ("t5", "merged"), ("t5", "skip"), ("t5_gated", "3w")),
    ],
)
def test_a_saved_variant_is_loaded_by_attar_and_refused_by_transformers(
    family: str, variant: str, tmp_path: Path
) -> None:
    model = built(family, variant, blocks=1)
    save_model(LoadedModel(model, tmp_path, None), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == f"attar_{TYPES[family]}"
    assert config["attar_ffn"] == {"variant": variant, "expansion": 1.5}
    assert load_file(tmp_path / "model.safetensors")
    loaded = load_model(tmp_path, attention="eager").model
    assert type(loaded).__name__ == type(model).__name__
    with torch.no_grad():
        ours, again = (m(**tiny.tiny_batch()).logits for m in (model, loaded))
    assert torch.equal(ours, again)
    with pytest.raises(ValueError, match=f"attar_{TYPES[family]}"):
        AutoModel.from_pretrained(tmp_path)


def test_a_variant_has_the_parameters_of_its_maps() -> None:
    stock, hidden, width = num_params(tiny.tiny_model("t5")), 32, 48
    blocks, ffn, norm = 4, 2 * hidden * width, hidden
    counted = {
        "skip": -(ffn + norm),
        "1w": hidden**2 - ffn,
        "2w": 0,
        "3w": width**2,
        "merged": hidden**2 - ffn - norm,
    }
    for name, each in counted.items():
        assert num_params(built("t5", name)) == stock + blocks * each, name
    assert num_params(built("t5", "skip_encoder")) == stock - 2 * (ffn + norm)


def test_the_families_own_width_is_kept_without_an_expansion() -> None:
    model = tiny.tiny_model("llama", attar_ffn={"variant": "2w"})
    assert anatomy_of(model).blocks[0].ffn.maps[0].out_features == 48


def test_a_variant_for_encoders_needs_one_beside_the_decoder() -> None:
    with pytest.raises(ModelError, match="only one stack, its decoder"):
        built("gpt2", "skip_encoder")


def test_an_unknown_variant_in_a_config_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_tiny_bert(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attar_ffn": {"variant": "4w"}}))
    with pytest.raises(ModelError, match="attar_ffn must be a table of variant"):
        load_model(folder)


def test_every_family_with_a_row_can_be_varied() -> None:
    assert set(TYPES.values()) == set(FAMILIES) - {STATIC_TYPE}
