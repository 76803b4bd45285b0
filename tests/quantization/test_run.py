"""The step as a whole, on tiny models with real files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import simulated
import tiny
from attar.data.tokenize import TextEncoder
from attar.errors import DataError, ModelError, UsageError
from attar.models.load import load_model
from attar.models.simulated.quantized import load_simulated
from attar.quantization.calibration.calibrate import calibrate, grids_of, to_tensors
from attar.quantization.ranges.percentile import SHARES
from attar.tasks.task import Task


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> simulated.QuantizedRun:
    return simulated.run_quantize(tmp_path_factory.mktemp("step"))


def test_the_artifact_holds_what_the_contract_says(made):
    assert {p.name for p in made.artifact.iterdir()} == {"model", "calibration.json"}
    names = {p.name for p in made.folder.iterdir()}
    assert {"config.json", "tokenizer.json", "task.json", "qparams.json"} < names
    assert "weights.safetensors" in names
    assert "model.safetensors" not in names
    assert Task.read(made.folder) == Task.read(made.float_folder)
    chosen = json.loads((made.artifact / "calibration.json").read_text())
    assert chosen["data"] == "texts"
    assert len(set(chosen["indices"])) == 24


def test_the_metrics_are_plain_and_complete(made):
    metrics = json.loads(json.dumps(made.metrics, allow_nan=False))
    assert (metrics["weight_bits"], metrics["embedding_bits"]) == (8, 8)
    assert metrics["num_sites"] == len(metrics["sites"]) == 18
    assert metrics["calibration"]["examples"] == 24
    assert metrics["calibration"]["batches"] == 3
    for site in metrics["sites"].values():
        assert site["low"] <= 0 <= site["high"]
        assert site["sqnr_db"] > 20
    assert all(weight["sqnr_db"] > 35 for weight in metrics["weights"].values())
    found = [site["sqnr_db"] for site in metrics["sites"].values()]
    assert metrics["mean_sqnr_db"] == pytest.approx(sum(found) / len(found))
    assert metrics["logits_sqnr_db"] > 20


def test_the_folder_computes_what_the_step_measured(made):
    """logits_sqnr_db was taken in memory; the written model must give the same figure."""
    from attar.data.config import FilesData
    from attar.data.load import load_data
    from attar.data.tokenize import TextEncoder
    from attar.numerics.agreement import sqnr_db

    root = made.artifact.parent
    data = load_data(FilesData(path=str(root / "texts")), root, name="texts", seed=0)
    rows = json.loads((made.artifact / "calibration.json").read_text())["indices"]
    task = Task.read(made.folder)
    encoder = TextEncoder.from_folder(made.folder, task.max_length, task.input_names)
    batch = to_tensors(encoder.encode(data.split("train").rows(rows).texts).batch(range(24)))
    with torch.no_grad():
        theirs = load_model(made.float_folder, attention="eager").model(**batch).logits
        ours = load_simulated(made.folder).model(**batch).logits
    # another padding rounds sums differently, which can move a value across a grid point
    assert sqnr_db(theirs, ours) == pytest.approx(made.metrics["logits_sqnr_db"], abs=1.0)


def test_the_same_seed_gives_the_same_bytes_and_another_other_texts(made):
    root = made.artifact.parent
    again = simulated.run_quantize(root)
    for name in ("qparams.json", "weights.safetensors"):
        assert (again.folder / name).read_bytes() == (made.folder / name).read_bytes()
    other = simulated.run_quantize(root, calibration={"seed": 1})
    read = [(run.artifact / "calibration.json").read_text() for run in (made, again, other)]
    assert read[0] == read[1] != read[2]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_more_bits_give_better_logits(family, tmp_path):
    found = [
        simulated.run_quantize(tmp_path, family, weight_bits=b, activation_bits=b).metrics
        for b in (2, 4, 8)
    ]
    logits = [metrics["logits_sqnr_db"] for metrics in found]
    assert logits == sorted(logits)
    means = [metrics["mean_sqnr_db"] for metrics in found]
    assert means == sorted(means)
    sizes = [metrics["size_mib"] for metrics in found]
    assert sizes == sorted(sizes)


def test_bits_of_embeddings_weights_and_activations_are_set_apart(made):
    root = made.artifact.parent
    mixed = simulated.run_quantize(root, weight_bits=4, embedding_bits=2, activation_bits=6)
    assert {site["quant_max"] for site in mixed.metrics["sites"].values()} == {63}
    for name, weight in mixed.metrics["weights"].items():
        assert weight["bits"] == (2 if "embeddings" in name else 4)


def test_percentile_searches_its_shares_and_keeps_the_best(made):
    root = made.artifact.parent
    run = simulated.run_quantize(root, method="percentile", activation_bits=4)
    tried = {c["percentile"]: c["output_error"] for c in run.metrics["candidates"]}
    assert tuple(tried) == SHARES
    assert run.metrics["percentile"] == min(tried, key=lambda share: tried[share])


def test_the_published_percentile_is_the_best_on_the_validation_split(made):
    """Its score is that of the artifact it leaves; of equal scores the least output error wins."""
    root = made.artifact.parent
    run = simulated.run_quantize(
        root, method="percentile", choose_by="validation", activation_bits=3
    )
    tried = {c["percentile"]: c for c in run.metrics["candidates"]}
    assert tuple(tried) == SHARES
    best = max(c["validation"] for c in tried.values())
    chosen = tried[run.metrics["percentile"]]
    assert chosen["validation"] == best
    rivals = [c for c in tried.values() if c["validation"] == best]
    assert chosen["output_error"] == min(c["output_error"] for c in rivals)
    texts, labels = [], []
    for line in (root / "texts" / "validation.jsonl").read_text().splitlines():
        texts.append(json.loads(line)["text"])
        labels.append(simulated.LABELS.index(json.loads(line)["label"]))
    encoder = TextEncoder.from_folder(run.folder, 32, ("input_ids", "attention_mask"))
    batch = to_tensors(encoder.encode([(text,) for text in texts]).batch(range(len(texts))))
    with torch.inference_mode():
        answers = load_simulated(run.folder).model(**batch).logits.argmax(dim=1)
    assert float((answers == torch.tensor(labels)).float().mean()) == pytest.approx(best)


def test_the_share_with_the_best_score_wins_whatever_its_output_error(made, monkeypatch):
    """Shares so low that answers change."""
    from attar.quantization.ranges import percentile

    monkeypatch.setattr(percentile, "SHARES", (0.55, 0.7, 0.8, 0.9))
    root = made.artifact.parent
    run = simulated.run_quantize(
        root, method="percentile", choose_by="validation", activation_bits=2
    )
    tried = {c["percentile"]: c["validation"] for c in run.metrics["candidates"]}
    assert len(set(tried.values())) > 1
    assert tried[run.metrics["percentile"]] == max(tried.values())


def test_a_lower_percentile_gives_narrower_ranges(made):
    root = made.artifact.parent
    runs = [
        simulated.run_quantize(root, method="percentile", percentile=share).metrics["sites"]
        for share in (0.9, 0.999, 1.0)
    ]
    assert len(runs[0]) == 18
    for name in runs[0]:
        widths = [run[name]["high"] - run[name]["low"] for run in runs]
        assert widths == sorted(widths)
        assert widths[0] < widths[-1]


def test_a_percentile_of_one_is_the_range_of_all_values(made):
    from attar.models.structure.ports import use_attar_attention_
    from attar.models.structure.sites import sites_of

    root = made.artifact.parent
    run = simulated.run_quantize(root, method="percentile", percentile=1.0)
    model = load_model(made.float_folder, attention="eager").model
    use_attar_attention_(model)
    batch = {"input_ids": torch.tensor([[2, 9, 8, 3]]), "attention_mask": torch.ones(1, 4).long()}
    context = quiet_context(root)
    seen = calibrate(model, sites_of(model), [batch], context)
    for site, statistics in seen.statistics.items():
        grid = grids_of({site: (statistics.mean_low, statistics.mean_high)}, 8)[0]
        assert statistics.histogram.quantile(1.0) == statistics.mean_high
        assert statistics.histogram.quantile(0.0) == statistics.mean_low
        assert grid.name in run.metrics["sites"]


def quiet_context(root):
    from attar.progress import Progress
    from attar.step import StepContext

    return StepContext(
        name="int8",
        folder=root,
        scratch=root,
        inputs={},
        data={},
        recipe_folder=root,
        progress=Progress(quiet=True),
    )


def test_too_few_examples_are_refused_with_the_numbers(tmp_path):
    with pytest.raises(DataError, match=r"needs 256 examples, data 'texts' has 48"):
        simulated.run_quantize(tmp_path, calibration={"examples": 256})


def test_a_model_without_a_task_is_refused(tmp_path):
    simulated.write_float_model(tmp_path / "float")
    simulated.write_texts(tmp_path / "texts")
    (tmp_path / "float" / "task.json").unlink()
    tiny.tiny_model("bert", bare=True, vocab_size=80).save_pretrained(tmp_path / "float")
    with pytest.raises(ModelError, match=r"no head; fine-tune it"):
        simulated.run_quantize(tmp_path)


def write_regression(root: Path) -> None:
    """A tiny model that answers with a number, and texts with scores."""
    simulated.write_float_model(root / "float", num_labels=1)
    task = Task.read(root / "float")
    changed = task.model_copy(update={"objective": "regression", "label_names": ()})
    (root / "float" / "task.json").unlink()
    changed.write(root / "float")
    folder = simulated.write_texts(root / "texts")
    for file in folder.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        scored = [{"text": row["text"], "label": len(row["text"]) / 10} for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in scored))


@pytest.mark.parametrize("method", ["percentile", "outlier_suppression", "auto"])
def test_a_model_that_answers_with_a_number_is_quantized(method, tmp_path):
    write_regression(tmp_path)
    run = simulated.run_quantize(tmp_path, method=method, objective="regression")
    assert run.metrics["logits_sqnr_db"] > 10
    assert Task.read(run.folder).objective == "regression"


def test_a_loss_of_distributions_is_refused_where_a_number_is_answered(tmp_path, monkeypatch):
    def nothing_is_read(*given, **more):
        raise AssertionError("texts were read")

    monkeypatch.setattr("attar.quantization.run.calibration_texts", nothing_is_read)
    write_regression(tmp_path)
    for method in ("token_wise_clipping", "auto"):
        with pytest.raises(UsageError, match=r"is for regression, .* or set loss = \"mse\""):
            simulated.run_quantize(tmp_path, method=method, loss="kl")


def test_a_model_that_is_not_finite_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = simulated.write_float_model(tmp_path / "float")
    simulated.write_texts(tmp_path / "texts")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = "bert.encoder.layer.0.attention.self.query.bias"
    tensors[name][0] = math.nan
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"NaN or infinite activations at \d+ of 18 sites"):
        simulated.run_quantize(tmp_path)
    tensors[name][0] = 0.0
    tensors["classifier.weight"][0, 0] = math.inf
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"classifier\.weight holds NaN or infinite"):
        simulated.run_quantize(tmp_path)
