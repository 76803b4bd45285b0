"""The simulated model: what is on a grid, what is not, and what a tracer sees of it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

import simulated
import tiny
from attar.errors import ArtifactError
from attar.models.load import load_model
from attar.models.simulated.packing import read_integers
from attar.models.simulated.qparams import ModelQParams
from attar.models.simulated.quantized import Quantizer, load_simulated
from attar.models.structure.ports import inserted
from attar.numerics.agreement import sqnr_db

FAMILIES = ("bert", "roberta")
"""BART, which writes text, is quantized as a whole in the tests of its calibration."""


@pytest.fixture(scope="module", params=FAMILIES)
def made(request, tmp_path_factory) -> simulated.QuantizedRun:
    root = tmp_path_factory.mktemp(f"simulated-{request.param}")
    return simulated.run_quantize(root, request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> simulated.QuantizedRun:
    return simulated.run_quantize(tmp_path_factory.mktemp("simulated-bert"))


def logits_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch).logits


def batch_with_padding() -> dict[str, Tensor]:
    ids = torch.tensor([[2, 8, 9, 10, 11, 12, 13, 3], [2, 14, 15, 16, 3, 0, 0, 0]])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def lies_on(x: Tensor, quantizer: Quantizer) -> bool:
    return torch.equal(quantizer(x), x)


def test_every_linear_reads_a_tensor_on_a_grid_and_weights_on_theirs(made):
    model = load_simulated(made.folder).model
    quantizers = [m for m in model.modules() if isinstance(m, Quantizer)]
    assert len(quantizers) == made.metrics["num_sites"]
    seen: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            # after the quantizer's own hook, so the input is the one the layer computes with
            module.register_forward_hook(
                lambda _, args, out, name=name: seen.__setitem__(name, args[0])
            )
    logits_of(model, batch_with_padding())
    assert len(seen) == 14
    for name, x in seen.items():
        assert any(lies_on(x, quantizer) for quantizer in quantizers), name
    state = model.state_dict()
    for name, (integers, scale) in read_integers(
        made.folder, ModelQParams.read(made.folder)
    ).items():
        assert torch.equal(state[name], integers * scale[:, None])


def test_one_quantized_norm_output_feeds_the_projections_and_the_shortcut(made):
    model = load_simulated(made.folder).model
    block = model.base_model.encoder.layer[1]
    seen: dict[str, Tensor] = {}
    for name, part in {
        "query": block.attention.self.query,
        "key": block.attention.self.key,
        "value": block.attention.self.value,
    }.items():
        part.register_forward_pre_hook(lambda _, a, name=name: seen.__setitem__(name, a[0]))
    block.attention.output.register_forward_pre_hook(
        lambda _, a: seen.__setitem__("shortcut", a[1])
    )
    block.output.register_forward_pre_hook(lambda _, a: seen.__setitem__("ffn shortcut", a[1]))
    block.intermediate.dense.register_forward_pre_hook(lambda _, a: seen.__setitem__("up", a[0]))
    logits_of(model, batch_with_padding())
    before = model.base_model.encoder.layer[0].output.LayerNorm.at_output
    assert lies_on(seen["shortcut"], before)
    assert all(torch.equal(seen["shortcut"], seen[name]) for name in ("query", "key", "value"))
    assert torch.equal(seen["ffn shortcut"], seen["up"])
    assert lies_on(seen["up"], block.attention.output.LayerNorm.at_output)


def test_sums_before_norms_the_last_norm_and_logits_stay_float(made):
    model = load_simulated(made.folder).model
    quantizers = [m for m in model.modules() if isinstance(m, Quantizer)]
    last = model.base_model.encoder.layer[-1].output.LayerNorm
    seen: list[Tensor] = []
    last.register_forward_hook(lambda _, args, out: seen.extend([args[0], out]))
    seen.append(logits_of(model, batch_with_padding()))
    assert len(seen) == 3
    for x in seen:
        assert not any(lies_on(x, quantizer) for quantizer in quantizers)


def test_an_8_bit_model_is_nearer_to_float_than_a_4_bit_one(made, tmp_path_factory):
    root = made.artifact.parent
    coarse = simulated.run_quantize(root, weight_bits=4, activation_bits=4)
    batch = batch_with_padding()
    target = logits_of(load_model(made.float_folder).model, batch)
    fine_db = sqnr_db(target, logits_of(load_simulated(made.folder).model, batch))
    coarse_db = sqnr_db(target, logits_of(load_simulated(coarse.folder).model, batch))
    assert fine_db > 20
    assert fine_db > coarse_db + 10


def test_kinds_that_are_skipped_get_no_quantizer(bert):
    model = load_simulated(bert.folder, skip_kinds={"ffn_act", "attention_probs"}).model
    names = [name for name, m in model.named_modules() if isinstance(m, Quantizer)]
    assert len(names) == bert.metrics["num_sites"] - 4
    assert not any("at_probabilities" in name for name in names)


def test_loading_does_not_disturb_the_random_state(bert):
    torch.manual_seed(5)
    load_simulated(bert.folder)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)


def test_a_tracer_sees_one_fake_quantize_a_site_and_constant_figures(bert):
    model = load_simulated(bert.folder).model
    batch = batch_with_padding()
    program = torch.export.export(model, (), dict(batch), strict=False)
    nodes = [n for n in program.graph.nodes if "fake_quantize_per_tensor" in str(n.target)]
    assert len(nodes) == bert.metrics["num_sites"]
    assert all(isinstance(argument, int | float) for n in nodes for argument in n.args[1:])
    with torch.no_grad():
        traced = program.module()(**batch).logits
    torch.testing.assert_close(traced, logits_of(model, batch))


def test_a_gradient_passes_the_quantizers(bert):
    model = load_simulated(bert.folder).model
    model(**batch_with_padding()).logits.sum().backward()
    gradient = model.base_model.embeddings.word_embeddings.weight.grad
    assert bool(gradient.abs().sum() > 0)


def test_qparams_of_another_model_are_refused(bert, tmp_path):
    content = json.loads((bert.folder / "qparams.json").read_text())
    for damage, message in (
        (lambda c: c["sites"].pop(), "has no grid"),
        (lambda c: c["weights"].pop(), "has no grid"),
        (lambda c: c["sites"][0].update(fqn="elsewhere"), "site elsewhere:output is unknown"),
        (lambda c: c["weights"][0].update(shape=[3, 4]), "is \\(3, 4\\)"),
        (lambda c: c.update(family="roberta"), "family is 'roberta'"),
    ):
        folder = tmp_path / str(abs(hash(message)))
        changed = json.loads(json.dumps(content))
        damage(changed)
        copy_folder(bert.folder, folder)
        (folder / "qparams.json").write_text(json.dumps(changed))
        with pytest.raises(ArtifactError, match=message):
            load_simulated(folder)


def test_quantizers_can_be_taken_for_a_while(bert):
    float_model = tiny.tiny_model("bert")
    from attar.models.structure.sites import sites_of

    site = sites_of(float_model)[0]
    batch = tiny.tiny_batch()
    before = logits_of(float_model, batch)
    with inserted(float_model, {site: Quantizer(0.5, 8, 0, 15)}):
        assert not torch.equal(logits_of(float_model, batch), before)
    assert torch.equal(logits_of(float_model, batch), before)


def copy_folder(source, target):
    import shutil

    shutil.copytree(source, target, dirs_exist_ok=True)
