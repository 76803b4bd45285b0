"""DeBERTa-v2: its maps are known, what its attention computes between them is left to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import deployments
import simulated
import tiny
from attar.errors import ModelError
from attar.export.bundle import flops_formula
from attar.export.config import Parity
from attar.models.capture import capture
from attar.models.cost import Cost, flops
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.sites import sites_of
from attar.models.surgery import keep_blocks

FAMILY = "deberta-v2"
FLOAT = Parity(examples=24)


def test_feed_forwards_and_maps_are_recomputed_through_their_views() -> None:
    model = tiny.tiny_model(FAMILY)
    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}

    def watch(name: str, module: torch.nn.Module) -> None:
        def hook(_: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
            # a first call is the text's; queries and keys also map the table of positions
            inputs.setdefault(name, args[0] if args else None)
            outputs.setdefault(name, output)

        module.register_forward_hook(hook)

    for name, module in model.named_modules():
        watch(name, module)
    with torch.no_grad():
        model(**tiny.tiny_batch())
        for block in anatomy_of(model).blocks:
            ffn = block.ffn
            ours = ffn(inputs[ffn.up.fqn])
            torch.testing.assert_close(ours, outputs[ffn.down.fqn], rtol=1e-5, atol=1e-5)
            for view in block.linears:
                ours = view(inputs[view.fqn])
                torch.testing.assert_close(ours, outputs[view.fqn], rtol=1e-5, atol=1e-5)


def test_no_scale_moves_into_maps_that_also_read_positions() -> None:
    anatomy = anatomy_of(tiny.tiny_model(FAMILY))
    queries = {block.attention.q.fqn for block in anatomy.blocks}
    for site in anatomy.norm_sites:
        assert site.is_closed == (not queries & {reader.fqn for reader in site.consumers})


def test_its_sites_are_what_its_maps_read_and_nothing_inside_the_attention() -> None:
    kinds = {site.kind for site in sites_of(tiny.tiny_model(FAMILY))}
    inside = {"query", "key", "value", "attention_probs"}
    assert not kinds & inside
    assert {"embedding", "context", "mha_norm", "ffn_act", "ffn_norm"} <= kinds


def test_its_attention_scores_are_refused_and_its_hidden_states_are_not() -> None:
    model = tiny.tiny_model(FAMILY)
    with capture(model, scores=False) as seen, torch.no_grad():
        model(**tiny.tiny_batch())
    assert len(seen.hidden["encoder"]) == 3
    with pytest.raises(ModelError, match="cannot be captured"), capture(model):
        pass


def test_kept_blocks_and_counts() -> None:
    model = tiny.tiny_model(FAMILY)
    assert len(anatomy_of(keep_blocks(model, [1])).blocks) == 1
    ids = torch.full((3, 11), 5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids)
    assert flops(model, 3, 11) == counter.get_total_flops()


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> simulated.QuantizedRun:
    """One block: an export of this family takes seconds a block."""
    root = tmp_path_factory.mktemp("deberta")
    simulated.write_float_model(root / "float", FAMILY, blocks=1)
    simulated.write_texts(root / "texts")
    return simulated.run_quantize(root, FAMILY)


@pytest.mark.slow
def test_in_eight_bits_and_in_float_onnx_runtime_answers_as_torch(
    quantized: simulated.QuantizedRun, tmp_path: Path
) -> None:
    _, metrics = deployments.exported(tmp_path, "int8", quantized.artifact, "onnxruntime")
    assert metrics["parity"]["error_ratio"] == pytest.approx(1, abs=0.5)
    float_folder = quantized.float_folder
    _, metrics = deployments.exported(tmp_path, "float", float_folder, "onnxruntime", FLOAT)
    assert metrics["parity"]["max_difference"] < 1e-4


def test_openvino_is_refused_with_the_runtime_that_works(
    quantized: simulated.QuantizedRun, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"OpenVINO does not support .*onnxruntime"):
        deployments.exported(tmp_path, "int8", quantized.artifact, "openvino")


def test_the_formula_of_an_export_counts_what_comes_once_a_batch() -> None:
    cost = Cost(tiny.tiny_model(FAMILY))
    formula = flops_formula(cost)
    assert formula.per_batch > 0
    assert formula.of(5, 9) == cost.flops(5, 9)
