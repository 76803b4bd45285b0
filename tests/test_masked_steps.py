"""Masked language modelling: from running text to an adapted encoder, a student, a classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

import classifiers
import tiny
from attar.data.corpus.masking import NOT_PREDICTED, Masker
from attar.data.tables import Split
from attar.errors import AttarError, ModelError, RecipeError, UsageError
from attar.evaluation.config import EvaluateStep
from attar.evaluation.run import evaluate
from attar.export.config import ExportStep
from attar.export.run import export
from attar.models.head_chunks import has_plain_head
from attar.models.load import load_model
from attar.progress import Progress
from attar.quantization.config import QuantizeStep
from attar.quantization.run import quantize
from attar.recipe.load import load_recipe
from attar.recipe.plan import plan_recipe
from attar.step import StepContext
from attar.tasks.masking import Masking
from attar.tasks.task import Task
from attar.training.cache_config import CacheStep
from attar.training.config import TrainStep
from attar.training.objectives.masked import MaskedTokens
from attar.training.run import train
from attar.training.teaching.cache import cache
from language_runs import TEXT, model_config, write_running_text, write_tokenizer

USUAL = {
    **{"data": "text", "objective": "masked_lm", "max_length": 16, "batch_size": 8},
    **{"learning_rate": 3e-3, "precision": "fp32", "evaluations": 1, "schedule": "constant"},
}


class Made:
    """The steps' surroundings."""

    def __init__(self, root: Path) -> None:
        self.root = root
        write_running_text(root / "text")

    def context(self, name: str, **inputs: Path) -> StepContext:
        (self.root / name).mkdir(parents=True, exist_ok=True)
        return StepContext(
            name=name,
            folder=self.root / name,
            scratch=self.root / f".{name}",
            inputs=inputs,
            data={
                "text": TEXT,
                "masked": TEXT.model_copy(update={"objective": "masked_lm"}),
                "colours": classifiers.write_rows(self.root / "colours"),
            },
            recipe_folder=self.root,
            progress=Progress(quiet=True),
        )

    def train(self, name: str, model: Any, **settings: Any) -> dict[str, Any]:
        inputs = settings.pop("inputs", {})
        step = TrainStep.model_validate(USUAL | {"model": model} | settings)
        return dict(train(step, self.context(name, **inputs)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    found = Made(tmp_path_factory.mktemp("masked"))
    found.first = found.train(  # pyright: ignore[reportAttributeAccessIssue]
        "first", model_config(found.root / "bert", "bert"), max_steps=0
    )
    found.learned = found.train(  # pyright: ignore[reportAttributeAccessIssue]
        "learned", "first", inputs={"first": found.root / "first"}, max_steps=60
    )
    return found


def masker_of(folder: Path, **settings: Any) -> Masker:
    write_tokenizer(folder)
    return Masker.of(Masking(**settings), 202, folder, seed=3)


def test_a_share_of_the_tokens_is_predicted_in_three_ways(tmp_path: Path) -> None:
    masker = masker_of(tmp_path)
    ids = np.arange(200) % 30 + 5
    ids[::40] = 3  # separators are never predicted
    hidden = other = kept = 0
    for number in range(100):
        read, labels = masker.of_text(ids, number, 0)
        assert read[0] == 2 and read[-1] == 3 and labels[0] == labels[-1] == NOT_PREDICTED
        read, labels = read[1:-1], labels[1:-1]
        chosen = labels != NOT_PREDICTED
        assert chosen.sum() == round(0.15 * 195) and not chosen[::40].any()
        assert (labels[chosen] == ids[chosen]).all() and (read[~chosen] == ids[~chosen]).all()
        hidden += int((read[chosen] == masker.mask_id).sum())
        kept += int((read[chosen] == ids[chosen]).sum())
        other += int(masker.is_special[read[chosen & (read != masker.mask_id)]].sum())
    total = 100 * round(0.15 * 195)
    assert other == 0
    assert hidden / total == pytest.approx(0.8, abs=0.03)
    assert kept / total == pytest.approx(0.1, abs=0.03)


def test_what_is_masked_depends_on_seed_epoch_and_text_alone(tmp_path: Path) -> None:
    masker, ids = masker_of(tmp_path), np.arange(100) % 30 + 5
    first = masker.of_text(ids, 1, 0)[1]
    assert (masker.of_text(ids, 1, 0)[1] == first).all()
    for other in (masker.of_text(ids, 2, 0)[1], masker.of_text(ids, 1, 1)[1]):
        assert (other != first).any()


def test_whole_words_are_predicted_with_all_their_pieces(tmp_path: Path) -> None:
    masker = masker_of(tmp_path, whole_words=True)
    vocab = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    pieces = [vocab["##s"], vocab["##ed"], vocab["##ing"]]
    ids = np.array([vocab["file"], pieces[0], vocab["list"], pieces[1], pieces[2]] * 20)
    for number in range(20):
        chosen = masker.of_text(ids, number, 0)[1][1:-1] != NOT_PREDICTED
        whole = chosen.reshape(20, 5)
        assert (whole[:, 0] == whole[:, 1]).all()
        assert (whole[:, 2:] == whole[:, 2:3]).all()
        assert 0 < chosen.sum() <= 15


def test_a_row_of_unknown_words_counts_no_predicted_token(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    texts = (("file list " * 7,), ("ω " * 40,))  # the second has unknown words only
    split = Split(texts, np.full(2, -1))
    task = Task(objective="masked_lm", max_length=10, input_names=("input_ids",))
    rows = MaskedTokens.of(split, task, tmp_path, seed=0, where="split")
    counts = [rows.counts(np.array([row]))["labelled"] for row in range(len(rows))]
    _, targets = rows.batch(np.arange(len(rows)), torch.device("cpu"))
    assert counts == (targets.labels >= 0).sum(dim=1).tolist()
    assert counts[0] > 0
    assert counts[-2] == 0


def test_a_model_learns_and_is_judged_by_what_it_was_validated_on(made: Any) -> None:
    before, after = (one["validation"]["nll"] for one in (made.first, made.learned))
    assert after < before - 0.5
    assert has_plain_head(load_model(made.root / "learned" / "model").model)
    step = EvaluateStep(
        models=("first", "learned"), data="text", speed=None, memory=False, bootstrap=100
    )
    folders = {name: made.root / name for name in step.models}
    metrics = evaluate(step, made.context("scores", **folders))
    assert set(metrics["data"]["metrics"]) == {"nll", "perplexity"}
    assert metrics["models"]["learned"]["nll"]["value"] == pytest.approx(after, abs=1e-4)
    assert metrics["models"]["first"]["nll"]["value"] == pytest.approx(before, abs=1e-4)


def test_a_student_learns_its_teachers_distributions_at_masked_places(made: Any) -> None:
    settings: dict[str, Any] = {
        "teacher": "learned",
        "losses": [{"kind": "forward_kl"}],
        "inputs": {name: made.root / name for name in ("first", "learned")},
    }
    student = {"from": "first", "keep_blocks": [0]}
    taught = made.train("taught", student, **settings, max_steps=40)
    assert taught["validation"]["nll"] < made.first["validation"]["nll"] - 0.5
    history = (made.root / "taught" / "history.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in history if "grad_norm" in line]
    assert losses[-1] < losses[0] / 2


def test_an_adapted_encoder_is_a_base_for_a_classifier(made: Any) -> None:
    settings = {"data": "colours", "objective": None, "max_steps": 0}
    made.train("classifier", "learned", inputs={"learned": made.root / "learned"}, **settings)
    base = load_model(made.root / "learned" / "model").model.base_model.state_dict()
    found = load_model(made.root / "classifier" / "model").model
    assert type(found).__name__ == "BertForSequenceClassification"
    own = found.base_model.state_dict()
    shared = [name for name in base if not name.startswith("pooler")]
    assert shared and all(torch.equal(base[name], own[name]) for name in shared)


@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra", "modernbert"])
def test_families_with_a_head_for_masked_words_learn(made: Any, family: str) -> None:
    model = model_config(made.root / family, family)
    metrics = made.train(f"of_{family}", model, max_steps=2)
    assert np.isfinite(metrics["validation"]["nll"])
    assert has_plain_head(load_model(made.root / f"of_{family}" / "model").model)


def test_what_has_no_head_or_no_masks_is_refused(made: Any) -> None:
    with pytest.raises(ModelError, match="no class with a head ForMaskedLM"):
        made.train("bart", model_config(made.root / "bart", "bart"), max_steps=1)
    tiny.write_tiny_bert(made.root / "plain")
    with pytest.raises(ModelError, match="no head that predicts words"):
        made.train("headless", "plain", max_steps=1)
    with pytest.raises(UsageError, match="masking masks tokens"):
        made.train("other", "plain", objective="causal_lm", masking={"density": 0.3}, max_steps=1)
    with pytest.raises(AttarError, match="mask_token"):
        folder = made.root / "unmasked"
        write_tokenizer(folder)
        file = folder / "tokenizer_config.json"
        said = json.loads(file.read_text())
        said.pop("mask_token")
        file.write_text(json.dumps(said))
        Masker.of(Masking(), 16, folder, seed=0)


PLAN = """name = "planned"
[data.text]
source = "files"
path = "text"
text = "text"
objective = "masked_lm"
[steps.more]
run = "train"
model = "learned/model"
data = "text"
max_length = 16
max_steps = 3
"""


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ('run = "quantize"\nmodel = "more"\nmethod = "minmax"', "it is a base"),
        ('run = "export"\nmodel = "more"\nformat = "openvino"', "it is a base"),
        ('run = "cache"\nteacher = "more"', "masks different tokens in every epoch"),
    ],
)
def test_a_base_is_not_deployed_and_its_answers_are_not_kept(
    made: Any, step: str, said: str
) -> None:
    recipe = made.root / "refused.toml"
    source = "calibration.data" if "quantize" in step else "data"
    recipe.write_text(f'{PLAN}[steps.next]\n{step}\n{source} = "text"\n')
    with pytest.raises(RecipeError, match=said):
        load_recipe(recipe)


def test_a_folder_of_a_base_is_not_deployed(made: Any) -> None:
    context = made.context("refused", learned=made.root / "learned")
    settings = {"model": "learned", "method": "minmax", "calibration": {"data": "text"}}
    with pytest.raises(ModelError, match="it is a base"):
        quantize(TypeAdapter(QuantizeStep).validate_python(settings), context)
    with pytest.raises(ModelError, match="it is a base"):
        export(ExportStep(model="learned", format="openvino", data="text"), context)
    with pytest.raises(UsageError, match="masks different tokens"):
        cache(CacheStep(teacher="learned", data="masked", max_length=16), context)


def test_the_plan_counts_the_texts_that_training_reads(made: Any) -> None:
    recipe = made.root / "planned.toml"
    recipe.write_text(PLAN)
    [plan] = plan_recipe(load_recipe(recipe), made.root).steps
    assert plan.counts["data.train_rows"] == made.learned["data"]["train_rows"]
    assert plan.counts["data.validation_rows"] == made.learned["data"]["validation_rows"]
    assert plan.num_params == made.learned["num_params"]
