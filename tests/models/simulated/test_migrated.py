"""A migrated model on disk: the restored shortcuts come back with the weights."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import simulated
import tiny
from attar.errors import ArtifactError
from attar.models.load import load_model
from attar.models.simulated.qparams import ModelQParams
from attar.models.simulated.quantized import load_simulated, quantizing
from attar.models.structure.anatomy import anatomy_of
from attar.models.structure.channel_factors import ChannelFactor, factored_activations
from attar.models.structure.shortcuts import Restore, restored_norms
from attar.models.structure.site_kinds import SITE_KINDS
from attar.quantization import run
from attar.quantization.weights.nearest import put_on_grid_, quantize_weights


@pytest.fixture(scope="module", params=[("bert", "gamma"), ("roberta", "os_plus")])
def made(request, tmp_path_factory):
    """The artifact, and the transformed float model as the step held it in memory."""
    family, rule = request.param
    held = []

    def spied(model):
        held.append(model)
        return restored_norms(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "restored_norms", spied)
        root = tmp_path_factory.mktemp(f"migrated-{family}")
        artifact = simulated.run_quantize(root, family, transform=rule)
    return artifact, held[0]


def test_a_migrated_artifact_computes_what_was_computed_in_memory(made):
    artifact, model = made
    qparams = ModelQParams.read(artifact.folder)
    put_on_grid_(model, quantize_weights(model, qparams.bits))
    loaded = load_simulated(artifact.folder).model
    float_model = load_model(artifact.float_folder).model
    with torch.no_grad(), quantizing(model, qparams.sites):
        in_memory, on_disk = model(**batch()).logits, loaded(**batch()).logits
        wanted = float_model(**batch()).logits
    assert torch.equal(in_memory, on_disk)
    assert float((on_disk - wanted).abs().max() / wanted.abs().max()) < 0.2


def test_qparams_name_every_norm_that_a_shortcut_restores(made):
    artifact, model = made
    named = ModelQParams.read(artifact.folder).transformed
    assert set(named) == {site.norm.fqn for site in anatomy_of(model).norm_sites if site.shortcuts}
    loaded = load_simulated(artifact.folder).model
    assert restored_norms(loaded) == named
    scales = [module.scale for module in loaded.modules() if isinstance(module, Restore)]
    assert len(scales) == len(named)
    assert all(not torch.equal(scale, torch.ones(32)) for scale in scales)


def test_a_folder_without_transforms_names_none_and_one_from_before_them_opens(tmp_path):
    artifact = simulated.run_quantize(tmp_path)
    file = artifact.folder / "qparams.json"
    content = json.loads(file.read_text())
    assert content.pop("transformed") == content.pop("factored") == []
    file.write_text(json.dumps(content))
    load_simulated(artifact.folder)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["bert.pooler"], r"1 of 1 norms.*'bert\.pooler'.*quantize the model again"),
        ([], r"at_shortcut.*quantize the model again"),
    ],
)
def test_a_list_of_norms_that_does_not_fit_is_refused(made, tmp_path, named, message):
    artifact, _ = made
    folder = retold(artifact.folder, tmp_path / "model", transformed=named)
    with pytest.raises(ArtifactError, match=message):
        load_simulated(folder)


@pytest.fixture(scope="module")
def factored(tmp_path_factory):
    return simulated.run_quantize(tmp_path_factory.mktemp("factored"), transform="auto")


def test_factors_behind_activations_come_back_with_the_weights(factored):
    named = ModelQParams.read(factored.folder).factored
    assert named
    loaded = load_simulated(factored.folder).model
    assert factored_activations(loaded) == named
    factors = [m.factor for m in loaded.modules() if isinstance(m, ChannelFactor)]
    assert len(factors) == len(named)
    assert all(not torch.equal(factor, torch.ones_like(factor)) for factor in factors)
    # without quantizers: random words reach beyond what the calibration texts showed
    plain = load_simulated(factored.folder, skip_kinds=SITE_KINDS).model
    with torch.no_grad():
        on_disk = plain(**batch()).logits
        wanted = load_model(factored.float_folder).model(**batch()).logits
    assert float((on_disk - wanted).abs().max() / wanted.abs().max()) < 0.05


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["bert.pooler"], r"1 of 1 activations.*'bert\.pooler'.*quantize the model again"),
        ([], r"at_channels.*quantize the model again"),
    ],
)
def test_a_list_of_activations_that_does_not_fit_is_refused(factored, tmp_path, named, message):
    folder = retold(factored.folder, tmp_path / "model", factored=named)
    with pytest.raises(ArtifactError, match=message):
        load_simulated(folder)


def retold(source, folder, **changes):
    """A copy of a quantized model whose qparams.json says something else."""
    shutil.copytree(source, folder)
    content = json.loads((folder / "qparams.json").read_text())
    (folder / "qparams.json").write_text(json.dumps({**content, **changes}))
    return folder


def batch():
    ids = tiny.tiny_batch()
    return {**ids, "input_ids": ids["input_ids"].clamp(max=50)}
