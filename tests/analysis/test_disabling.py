"""Planted dimensions that carry the answer are worth more than random ones, and the study says by
how much, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import language_runs
import simulated
import tiny
from attar.analysis.config import DisablingStep
from attar.analysis.judging import open_judge
from attar.analysis.run import analyze
from attar.analysis.studies import disabling as module
from attar.analysis.studies.disabling import choose, stream_means
from attar.data.tokenize import TextEncoder
from attar.errors import ModelError, NonFiniteError, UsageError
from attar.models.structure.residual import disabled
from attar.progress import Progress
from attar.step import StepContext
from attar.tasks.task import Task
from studied import Studied, context_below, layer_norms, run_study

PLANTED = (7, 19)
SMALL = {"num_rows": 12, "bootstrap": 200, "null_seeds": 3}
LABELS = simulated.LABELS


def planted(model: Any) -> None:
    """Two dimensions are huge at every norm, and all that the head reads."""
    for norm in layer_norms(model):
        norm.weight.fill_(0.3)
        norm.bias.zero_()
        norm.weight[list(PLANTED)] = 6.0
    model.bert.pooler.dense.weight.zero_()
    model.classifier.weight.zero_()
    model.classifier.bias.zero_()
    model.classifier.weight[0, 0], model.classifier.weight[1, 0] = 4.0, -4.0
    model.classifier.weight[2, 1] = 4.0


def make_right(root: Path) -> None:
    """The head reads the planted dimensions at [CLS], about their median over the validation rows;
    what the model then answers is the label.
    """
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(root / "float")
    file = root / "texts" / "validation.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    encoder = TextEncoder.from_folder(root / "float", 32, ("input_ids", "attention_mask"))
    encoded = encoder.encode([(row["text"],) for row in rows])
    every = {k: torch.from_numpy(v) for k, v in encoded.batch(range(len(rows))).items()}
    pooler = model.bert.pooler.dense
    with torch.no_grad():
        first = model.bert(**every).last_hidden_state[:, 0, list(PLANTED)]
        scale = 2.0 / first.std(dim=0)
        for row, dimension in enumerate(PLANTED):
            pooler.weight[row, dimension] = scale[row]
        pooler.bias[: len(PLANTED)] = -scale * first.median(dim=0).values
        answers = model(**every).logits.argmax(dim=1).tolist()
    model.save_pretrained(root / "float")
    named = [row | {"label": LABELS[i]} for row, i in zip(rows, answers, strict=True)]
    file.write_text("".join(json.dumps(row) + "\n" for row in named))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("disabling")
    run_study(root, "outliers", change=planted, activations=False)
    make_right(root)
    return root


@pytest.fixture(scope="module")
def found(root: Path) -> Studied:
    return run_study(root, "disabling", **SMALL)


def test_dimensions_that_carry_the_answer_cost_more_than_random_ones(found: Studied) -> None:
    assert found.facts["disabled"] == "encoder 7, 19" or found.facts["disabled"] == "encoder 19, 7"
    assert found.facts["full"] == 1.0
    for word in ("zero", "mean"):
        damage = found.metrics["damage"][word]
        assert damage["outlier"] >= 0.4
        assert damage["null"] < damage["outlier"]
        assert damage["excess"] == pytest.approx(damage["outlier"] - damage["null"])
        assert damage["as_bad"] == 0
        assert damage["p_value"] == 0.25
    for row in found.content["summary"]:
        assert row["sentence"].startswith("2 outlier dimensions set to ")
        assert "3 random choices" in row["sentence"]
    json.dumps(found.metrics, allow_nan=False)


def test_every_run_is_a_row_and_random_choices_hold_no_outlier(found: Studied) -> None:
    assert [row["run"] for row in found.rows] == [
        "full",
        *(2 * ["outlier", "null 0", "null 1", "null 2"]),
    ]
    nulls = [row["dimensions"]["encoder"] for row in found.rows if row["run"].startswith("null")]
    assert nulls[:3] == nulls[3:], "both replacements disable the same dimensions"
    for chosen in nulls:
        assert len(set(chosen)) == 2
        assert not set(chosen) & set(PLANTED)
    assert len({tuple(chosen) for chosen in nulls}) > 1
    for row in found.rows[1:]:
        assert row["damage"] == pytest.approx(1.0 - row["value"])


def test_a_model_without_outliers_is_told_and_nothing_is_disabled(tmp_path: Path) -> None:
    def flat(model: Any) -> None:
        for norm in layer_norms(model):
            norm.weight.fill_(1.0)

    found = run_study(tmp_path, "disabling", change=flat, **SMALL)
    assert found.rows == []
    assert found.metrics["damage"] == {}
    assert "finds none" in found.facts["found"]
    assert found.facts["disabled"] == "none"


def test_more_dimensions_than_are_found_is_said(root: Path) -> None:
    warned: list[str] = []
    context = context_below(root)
    context.progress.warn = warned.append
    config = disabling_step(count=5)
    chosen = choose(config, open_judge(config, context)[0], context)
    assert sorted(chosen.outliers["encoder"]) == list(PLANTED)
    assert warned == [
        "count is 5, gamma_3sigma recognises 2 outlier dimensions in the encoder; all of them are "
        "disabled"
    ]
    one = disabling_step(count=1)
    chosen = choose(one, open_judge(one, context)[0], context)
    assert len(chosen.outliers["encoder"]) == 1
    assert [len(other["encoder"]) for other in chosen.others] == [1] * one.null_seeds


def test_an_outlier_that_is_left_alone_is_none_of_the_others_either(root: Path) -> None:
    config, context = disabling_step(count=1, null_seeds=200), context_below(root)
    chosen = choose(config, open_judge(config, context)[0], context)
    drawn = {dimension for other in chosen.others for dimension in other["encoder"]}
    assert drawn == set(range(32)) - set(PLANTED)


def test_a_dimension_is_set_to_zero_or_to_its_own_means(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def noted(model: Any, dimensions: Any, values: Any = None) -> Any:
        given.append(values)
        return disabled(model, dimensions, values)

    monkeypatch.setattr(module, "disabled", noted)
    run_study(root, "disabling", **SMALL)
    means = stream_means(open_judge(disabling_step(), context_below(root))[0])
    half = len(given) // 2
    assert given[:half] == [None] * half
    for values in given[half:]:
        torch.testing.assert_close(values["encoder"], means["encoder"])


def disabling_step(**settings: Any) -> DisablingStep:
    texts = {"examples": 24, "batch_size": 8}
    plain = {"model": "teacher", "data": "texts", "calibration": texts, **SMALL, **settings}
    return DisablingStep.model_validate(plain)


@torch.no_grad()
def test_means_are_those_of_real_tokens_at_every_place(root: Path) -> None:
    subject = open_judge(disabling_step(), context_below(root))[0]
    means = stream_means(subject)["encoder"]
    states: list[list[torch.Tensor]] = [[], [], []]
    for batch in subject.batches:
        for row in range(len(batch["input_ids"])):
            real = int(batch["attention_mask"][row].sum())
            one = {name: tensor[row : row + 1, :real] for name, tensor in batch.items()}
            hidden = subject.model(**one, output_hidden_states=True).hidden_states
            for place, state in enumerate(hidden):
                states[place].append(state[0])
    expected = torch.stack([torch.cat(each).mean(dim=0) for each in states])
    torch.testing.assert_close(means, expected, atol=1e-4, rtol=1e-4)


LANGUAGE_DATA = {
    "running": language_runs.TEXT,
    "classes": language_runs.TEXT.model_copy(
        update={"path": "texts", "objective": "classification", "label_names": LABELS}
    ),
}


@pytest.fixture(scope="module")
def languages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 for running text, one that no task was trained into, and a T5 that answers with
    words; an outlier planted in each norm."""
    root = tmp_path_factory.mktemp("languages")
    language_runs.write_running_text(root / "text", documents=24)
    simulated.write_texts(root / "texts")
    names = ("input_ids", "attention_mask")
    running = Task(objective="causal_lm", max_length=12, input_names=names)
    worded = Task(
        objective="classification",
        label_names=LABELS,
        label_words=("docs", "film", "file read"),
        template="sort: {0}",
        max_length=32,
        input_names=names,
    )
    write_language_model(root / "gpt2", "gpt2", running)
    write_language_model(root / "bare", "gpt2", None)
    write_language_model(root / "t5", "t5", worded)
    return root


def write_language_model(folder: Path, family: str, task: Task | None) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    words = language_runs.write_tokenizer(folder)
    ids = {"vocab_size": words, "pad_token_id": 0, "eos_token_id": 3, "bos_token_id": 2}
    start = {"decoder_start_token_id": 0} if family == "t5" else {}
    config = tiny.tiny_config(family, **ids, **start)
    builder = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = builder.from_config(config)
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, module in model.named_modules():
            if "norm" in name or ".ln_" in name:
                module.weight.fill_(1.0)
                module.weight[PLANTED[0]] = 9.0
    model.save_pretrained(folder)
    if task is not None:
        task.write(folder)


def language_context(root: Path) -> StepContext:
    folder = root / f"made{len(list(root.iterdir()))}"
    folder.mkdir()
    return StepContext(
        name="study",
        folder=folder,
        scratch=root / ".scratch",
        inputs={name: root / name for name in ("gpt2", "bare", "t5")},
        data=LANGUAGE_DATA,
        recipe_folder=root,
        progress=Progress(quiet=True),
    )


def run_language(root: Path, model: str, data: str, **settings: Any) -> Studied:
    context, texts = language_context(root), {"examples": 16, "batch_size": 4}
    plain = {"model": model, "data": data, "calibration": texts, **SMALL, **settings}
    metrics = analyze(DisablingStep.model_validate(plain), context)
    return Studied(metrics, json.loads((context.folder / "study.json").read_text()))


def test_running_text_is_judged_by_nats_and_more_nats_are_damage(languages: Path) -> None:
    found = run_language(languages, "gpt2", "running")
    assert found.facts["metric"] == "nll"
    assert found.facts["num_passages"] == 8
    assert found.facts["disabled"] == "decoder 7"
    for row in found.rows[1:]:
        assert row["damage"] == pytest.approx(row["value"] - found.facts["full"])
    assert "nats per token" in found.content["summary"][0]["sentence"]


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("t5", {}),
        ("t5", {"stacks": ["decoder"], "criterion": "activation_std", "replacement": ["mean"]}),
        ("bare", {"template": "read {0}:", "label_words": ["docs", "film", "file read"]}),
        ("gpt2", {"template": "read {0}:", "per_token": True}),
    ],
)
def test_classes_are_judged_by_the_words_a_language_model_chooses(
    languages: Path, model: str, settings: dict[str, Any]
) -> None:
    found = run_language(languages, model, "classes", **settings)
    assert found.facts["metric"] == "accuracy"
    assert found.facts["num_rows"] == 12
    stacks = settings.get("stacks", ["encoder", "decoder"] if model == "t5" else ["decoder"])
    for row in found.rows[1:]:
        assert sorted(row["dimensions"]) == sorted(stacks)


def test_a_choice_is_the_likeliest_word_of_the_row_in_its_template(languages: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(languages / "bare").eval()
    tokenizer = AutoTokenizer.from_pretrained(languages / "bare")
    lines = (languages / "texts" / "validation.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    found = []
    for row in rows:
        ids = tokenizer(f"read {row['text']} as").input_ids[:-1]  # without the end token
        with torch.no_grad():
            found.append(model(torch.tensor([ids])).logits[0, -1].log_softmax(-1))
    log_p = torch.stack(found)
    whole = [word for word in tiny.WORDS if not word.startswith("##")]
    numbers = {word: tokenizer.convert_tokens_to_ids(word) for word in whole}
    first, second = max(  # the two words between which the rows differ most
        ((a, b) for a in whole for b in whole if a < b),
        key=lambda pair: _evenness(log_p[:, numbers[pair[0]]] > log_p[:, numbers[pair[1]]]),
    )
    third = min(whole, key=lambda word: float(log_p[:, numbers[word]].max()))
    words = [first, second, third]
    answers = log_p[:, [numbers[word] for word in words]].argmax(dim=1).tolist()
    assert len(set(answers)) > 1
    config = DisablingStep.model_validate(
        {"model": "bare", "data": "classes", "template": "read {0} as", "label_words": words}
        | {"batch_size": 5, "calibration": {"examples": 8}}
    )
    subject, judge = open_judge(config, language_context(languages))
    assert judge.answers(subject.model, "as it is").tolist() == answers
    with torch.no_grad():
        subject.model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match=f"for {len(rows)} of {len(rows)} rows"):
        judge.answers(subject.model, "with broken weights")
    read = next(iter(subject.batches))["input_ids"]
    before = tokenizer("read").input_ids[:-1]
    assert read[:, : len(before)].tolist() == [before] * len(read)
    assert judge.labels.tolist() == [LABELS.index(row["label"]) for row in rows]


def _evenness(split: torch.Tensor) -> int:
    return int(min(split.sum(), (~split).sum()))


def test_what_cannot_be_judged_is_refused_before_anything_runs(languages: Path, root: Path) -> None:
    with pytest.raises(ModelError, match='set template, such as "Review'):
        run_language(languages, "bare", "classes")
    with pytest.raises(ModelError, match=r"label_words has 2 words.*3 classes"):
        run_language(languages, "gpt2", "classes", template="{0}:", label_words=["a", "b"])
    with pytest.raises(ModelError, match="text a causal language model"):
        run_language(languages, "t5", "running")
    with pytest.raises(ModelError, match="no 'decoder'"):
        run_study(root, "disabling", stacks=["decoder"], **SMALL)
    with pytest.raises(
        UsageError, match=r"judged by its classification head.*where template would"
    ):
        run_study(root, "disabling", template="{0}:", **SMALL)
    with pytest.raises(UsageError, match=r"running text.*label_words and per_token would change n"):
        run_language(languages, "gpt2", "running", label_words=["a", "b"], per_token=True)
    with pytest.raises(ValueError, match="every row would give the same prompt"):
        disabling_step(template="no place")
