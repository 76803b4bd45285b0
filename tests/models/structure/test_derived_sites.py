"""Sites follow from the views: what a matrix product reads is a site, in every family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from attar.models.capture import capture
from attar.models.simulated.qparams import SiteQParams
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.ports import inserted, use_attar_attention_
from attar.models.structure.site_kinds import SITE_KINDS
from attar.models.structure.sites import sites_of

WRITERS = ("bart", "t5", "t5_gated", "gpt2", *tiny.LLAMA_LIKE)
"""Families with a language head."""


class Recorder(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.clone()
        return self.seen


def writer(family: str) -> Any:
    """A language model of the family, its decoder reading other texts than its encoder."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = tiny.tiny_config(family)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(0)
    return auto.from_config(config, attn_implementation="eager").eval()


def batch_of(model: Any) -> dict[str, Tensor]:
    """A classifier's decoder reads the text again, a writer's other tokens."""
    batch = tiny.tiny_batch()
    if not model.config.is_encoder_decoder or model.get_output_embeddings() is None:
        return batch
    target = tiny.tiny_batch(tokens=6, seed=1)
    return {**batch, **{f"decoder_{name}": tensor for name, tensor in target.items()}}


def recorded(model: Any) -> tuple[dict[str, Recorder], dict[str, Tensor], Any]:
    """Site name → what passed there, Linear or Conv1D → what it read, attention's operands."""
    use_attar_attention_(model)
    recorders = {site: Recorder() for site in sites_of(model)}
    read: dict[str, Tensor] = {}
    maps = {view.fqn for block in anatomy_of(model).blocks for view in block.linears}
    maps |= {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    with torch.no_grad(), inserted(model, recorders), capture(model, qkv=True) as seen:
        for name in maps:
            model.get_submodule(name).register_forward_pre_hook(
                lambda _, args, name=name: read.setdefault(name, args[0])
            )
        model(**batch_of(model))
    return {site.name: recorder for site, recorder in recorders.items()}, read, seen


@pytest.mark.parametrize(
    ("family", "make"),
    [(family, tiny.tiny_model) for family in tiny.FAMILIES] + [(f, writer) for f in WRITERS],
)
def test_what_a_map_reads_is_a_sites_tensor(family: str, make: Callable[[str], Any]) -> None:
    model = make(family)
    recorders, read, _ = recorded(model)
    passed = [recorder.seen for recorder in recorders.values()]
    assert read
    for name, x in read.items():
        # T5 scales what its language head reads by a number
        assert any(x.shape == y.shape and torch.allclose(x, y, rtol=0) for y in passed) or (
            name == "lm_head" and family.startswith("t5")
        ), name


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_what_an_attention_multiplies_is_a_sites_tensor(family: str) -> None:
    """After the rotation, where there is one; thirds of a fused map each by itself."""
    model = tiny.tiny_model(family)
    recorders, _, seen = recorded(model)
    sites = {(s.stack, s.kind, s.block): recorders[s.name].seen for s in sites_of(model)}
    for stack, blocks in seen.qkv.items():
        for block, operands in enumerate(blocks):
            for kind, expected in zip(("query", "key", "value"), operands, strict=True):
                assert torch.equal(sites[stack, kind, block], expected)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_site_has_one_name_a_known_kind_and_its_tensor(family: str) -> None:
    model = tiny.tiny_model(family)
    sites = sites_of(model)
    assert len({site.name for site in sites}) == len(sites)
    assert len({(site.stack, site.kind, site.block) for site in sites}) == len(sites)
    assert {site.kind for site in sites} <= set(SITE_KINDS)
    recorders, _, _ = recorded(model)
    assert all(hasattr(recorder, "seen") for recorder in recorders.values())


def test_a_grid_of_a_former_kind_is_read_as_todays() -> None:
    grid = SiteQParams.model_validate(
        {
            **{"fqn": "output.dense", "port": "input", "kind": "gelu", "block": 0, "bits": 8},
            **{"scale": 0.1, "zero_point": 3, "quant_min": 0, "quant_max": 255},
        }
    )
    assert grid.kind == "ffn_act"
