"""Studies that measure answers: their ends are the float model and the quantize step's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from attar.analysis.studies.clipping import _Clip, _Peaks
from attar.data.tokenize import TextEncoder
from attar.errors import UsageError
from attar.models.load import load_model
from attar.quantization.calibration.calibrate import to_tensors
from simulated import run_quantize, write_float_model, write_texts
from studied import run_study


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers differ from row to row, so that what is done to it changes scores."""
    root = tmp_path_factory.mktemp("judged")
    folder, texts = write_float_model(root / "float"), write_texts(root / "texts")
    loaded = load_model(folder)
    assert loaded.task is not None
    lines = (texts / "validation.jsonl").read_text().splitlines()
    encoder = TextEncoder.from_folder(folder, 32, loaded.task.input_names)
    encoded = encoder.encode([(json.loads(line)["text"],) for line in lines])
    with torch.no_grad():
        logits = loaded.model(**to_tensors(encoded.batch(range(len(lines))))).logits
        loaded.model.classifier.bias.sub_(logits.mean(0))  # random weights prefer one class
    loaded.model.save_pretrained(folder)
    return root


def accuracy(folder: Path, root: Path) -> float:
    """Of a model on disk, on all validation rows."""
    import numpy as np

    from attar.data.config import FilesData
    from attar.data.load import load_data
    from attar.scoring.forms import open_form
    from attar.scoring.rows import longest_first, score_rows

    data = load_data(FilesData(path=str(root / "texts")), root, name="texts", seed=0)
    split = data.split("validation")
    form = open_form(folder)
    encoded = form.encode(split.texts)
    batches = longest_first(encoded.lengths, 8)
    logits = score_rows(form.logits, encoded, batches, "model")
    columns = [form.task.label_names.index(name) for name in data.label_names]
    return float(np.mean(logits[:, columns].argmax(1) == split.labels))


def test_nothing_quantized_is_float_and_everything_is_the_quantize_step(root: Path) -> None:
    found = run_study(root, "leave_one_kind", bits=2)
    step = run_quantize(root, weight_bits=2, activation_bits=2)
    assert found.facts["float"] == accuracy(step.float_folder, root)
    assert found.facts["quantized"] == accuracy(step.folder, root)
    kinds = [row["kind"] for row in found.rows]
    assert len(kinds) == len(set(kinds)) == 12
    assert {"weights", "mha_norm", "ffn_act", "pooler_input"} <= set(kinds)
    for row in found.rows:
        assert row["recovered"] == row["left_in_float"] - found.facts["quantized"]
        assert row["lost"] == found.facts["float"] - row["alone_quantized"]
    assert any(row["recovered"] for row in found.rows)
    assert any(row["lost"] for row in found.rows)


def test_left_out_kinds_are_in_float_and_a_kind_alone_is_the_only_one_in_bits(root: Path) -> None:
    from attar.analysis.config import LeaveOneKindStep
    from attar.analysis.judging import open_head_judge
    from attar.analysis.studies.leave_one_kind import partly_quantized
    from attar.analysis.subject import open_subject
    from studied import context_below

    run_study(root, "outliers")
    texts = {"examples": 24, "batch_size": 8}
    config = LeaveOneKindStep.model_validate(
        {"model": "teacher", "data": "texts", "bits": 2, "calibration": texts}
    )
    context = context_below(root)
    subject = open_subject(config, context, shows_probabilities=True)
    partly = partly_quantized(config, subject, open_head_judge(config, subject), context)
    batch = subject.batches[0]

    def logits(*kinds: str):
        with partly.with_quantized(kinds) as model:
            return model(**batch).logits.detach()

    plain = subject.model(**batch).logits.detach()
    assert (logits() == plain).all()
    for kind in partly.kinds:
        assert not (logits(kind) == plain).all(), kind
        others = [other for other in partly.kinds if other != kind]
        assert not (logits(*others) == logits(*partly.kinds)).all(), kind
    assert (subject.model(**batch).logits == plain).all()


def test_nothing_is_clipped_at_the_largest_value_and_ever_more_below_it(root: Path) -> None:
    shares = [1.0, 0.9, 0.5, 0.1]
    found = run_study(root, "clipping", kinds=["mha_norm", "ffn_act"], shares=shares)
    for kind in ("mha_norm", "ffn_act"):
        rows = [row for row in found.rows if row["kind"] == kind]
        assert [row["tokens_whole"] for row in rows] == shares
        assert rows[0]["value"] == found.facts["float"]
        assert rows[0]["clipped"] == [0.0, 0.0]
        limits = [row["limit"] for row in rows]
        assert limits == sorted(limits, reverse=True)
        for row in rows:
            clipped = sum(row["clipped"]) / len(row["clipped"])
            assert clipped == pytest.approx(1 - row["tokens_whole"], abs=0.01)
            assert row["change"] == row["value"] - found.facts["float"]
    assert any(row["change"] for row in found.rows)
    with pytest.raises(UsageError, match=r"'cross_probs', but the model has no such site"):
        run_study(root, "clipping", kinds=["cross_probs"])


def test_the_peak_of_a_token_is_its_largest_value_of_either_sign() -> None:
    peaks = _Peaks()
    peaks.see(torch.tensor([[-5.0, 1.0], [2.0, 3.0]]))
    peaks.see(torch.tensor([[0.0, -0.5]]))
    assert peaks.sizes.tolist() == [5.0, 3.0, 0.5]
    assert peaks.beyond(-0.5, 2.5).tolist() == [True, True, False]


def test_chosen_values_cut_one_side_and_count_the_tokens_beyond_it(root: Path) -> None:
    """As table 13 of Outlier Suppression: norms from below, GELU from above."""
    low, high = -1.5, 1.5
    found = run_study(root, "clipping", kinds=["mha_norm"], limits=[low, high, 100.0])
    assert [row["limit"] for row in found.rows] == [low, high, 100.0]
    assert list(found.metrics["values"]) == ["mha_norm_-1.5", "mha_norm_1.5", "mha_norm_100"]
    assert found.rows[-1]["clipped"] == [0.0, 0.0]
    assert found.rows[-1]["change"] == 0
    both = run_study(root, "clipping", kinds=["mha_norm"], shares=[0.5]).rows[0]
    assert both["limit"] > 1.5  # so that tokens are cut on either side
    for row in found.rows[:2]:
        assert 0 < row["tokens_whole"] < 1
        mean = sum(row["clipped"]) / len(row["clipped"])
        assert 1 - row["tokens_whole"] == pytest.approx(mean)
    assert found.rows[0]["clipped"] != found.rows[1]["clipped"]


def test_a_clipped_tensor_is_cut_on_both_sides() -> None:
    assert _Clip(-1.5, 1.5)(torch.tensor([-3.0, -1.0, 0.5, 3.0])).tolist() == [-1.5, -1.0, 0.5, 1.5]


def test_sites_outside_the_blocks_go_by_their_kind(root: Path) -> None:
    found = run_study(root, "clipping", kinds=["embedding", "ffn_act"], shares=[0.5])
    assert [row["blocks"] for row in found.rows] == [["embedding"], ["e0", "e1"]]


def test_a_kind_of_more_values_than_torch_sorts_is_clipped_too(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = torch.arange(2**23 + 1) / 2**23  # of each of two blocks: beyond 2^24
    monkeypatch.setattr(_Peaks, "see", lambda peaks, values: None)
    monkeypatch.setattr(_Peaks, "pieces", [torch.stack([0 * many, many])], raising=False)
    monkeypatch.setattr(_Peaks, "__init__", lambda peaks: None)
    [row] = run_study(root, "clipping", kinds=["attention_probs"], shares=[0.5]).rows
    assert row["limit"] == pytest.approx(0.5)
    assert row["clipped"] == pytest.approx([0.5, 0.5])


def test_fewer_rows_judge_when_asked(root: Path) -> None:
    found = run_study(root, "clipping", kinds=["ffn_act"], shares=[1.0], num_rows=5)
    assert found.facts["num_rows"] == 5
