"""What a teacher writes behind the beginnings of chunks, and who reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

import corpora
from attar.artifacts import read_result
from attar.data.corpus.retokenizing import retokenized
from attar.data.corpus.token_store import PARTS, Corpus
from attar.data.corpus.view import CorpusView
from attar.distillation import generate as module
from attar.distillation.config import GenerateStep
from attar.distillation.generate import generate
from attar.errors import AttarError, DataError, ModelError, StoppedError, UsageError
from attar.losses.targets import UNLABELLED
from attar.models.load import load_model
from attar.models.sampling import Sampling, row_uniforms, sample
from attar.numerics.distinct import distinct_ratio
from attar.recipe.load import load_recipe, require_data
from attar.recipe.one_step import run_one_step
from attar.recipe.plan import plan_recipe
from attar.recipe.run import run_recipe
from attar.scoring.config import Diversity
from attar.scoring.diversity import scored_with_interval, text_embeddings
from attar.step import MadeRows
from attar.training.objectives.shards import Shards

PROMPT, NEW, SEED = 6, 12, 3
DIVERSITY = Diversity(model="model", max_length=24)
SETTINGS: dict[str, Any] = {
    **{"model": "model", "data": "corpus", "part": "scored"},
    **{"prompt_tokens": PROMPT, "new_tokens": NEW, "batch_tokens": 128, "shard_tokens": 1024},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents, a model, a tokenized corpus of them, and what the model writes to its chunks."""
    folder = tmp_path_factory.mktemp("written")
    corpora.write_documents(folder / "texts")
    corpora.write_model(folder / "model")
    made, _ = corpora.tokenized(folder)
    found = _generate(folder, "written", made, diversity=DIVERSITY)
    (folder / "written.json").write_text(json.dumps(found))
    return folder


def _corpus(folder: Path) -> MadeRows:
    from attar.selection.config import TokenizeStep

    return MadeRows("", folder / "corpus", TokenizeStep(**corpora.SETTINGS), 0)


def _generate(folder: Path, name: str, made: MadeRows, **settings: Any) -> Any:
    extra = {word: settings.pop(word) for word in ("should_stop",) if word in settings}
    context = corpora.context(folder, name, {"corpus": made}, seed=SEED, **extra)
    return generate(GenerateStep(**{**SETTINGS, **settings}), context)


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_text_is_its_prompt_and_what_the_model_alone_draws(folder: Path) -> None:
    written, originals = (
        CorpusView(Corpus.open(folder / "written")),
        CorpusView(Corpus.open(folder / "corpus"), "scored"),
    )
    places = np.arange(len(originals))
    assert len(written) == len(originals)
    assert len(written.corpus.shards) > 1
    texts, wholes = written.ids(places), originals.ids(places)
    assert all(
        text[:PROMPT].tolist() == whole[:PROMPT].tolist()
        for text, whole in zip(texts, wholes, strict=True)
    )
    for name in ("source", "document"):
        assert written.column(name, places).tolist() == originals.column(name, places).tolist()
    assert {*written.column("part", places).tolist()} == {PARTS.index("scored")}
    assert {*written.column("prompt", places).tolist()} == {PROMPT}
    lengths = [len(text) - PROMPT for text in texts]
    is_ended = [text[-1] == 0 for text in texts]
    assert 0 < sum(is_ended) < len(texts)
    for text, length, ended in zip(texts, lengths, is_ended, strict=True):
        assert (text[PROMPT:-1] != 0).all()
        assert length == NEW or (ended and length < NEW)
    model = load_model(folder / "model").model.eval()
    how = Sampling(end_ids=(0,), vocabulary=written.corpus.about["vocabulary"])
    for place in [0, len(texts) - 1, is_ended.index(True)]:
        row = int(originals.rows(np.array([place]))[0])
        prompt = torch.from_numpy(wholes[place][None, :PROMPT])
        with torch.inference_mode():
            drawn = sample(
                model, prompt, torch.ones_like(prompt), row_uniforms(SEED, [row], NEW), how
            )
        assert texts[place][PROMPT:].tolist() == drawn.ids[0, : drawn.lengths[0]].tolist()


def test_texts_lie_beside_their_tokens(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "written" / "tokenizer.json"))
    several = 0
    for shard in Corpus.open(folder / "written").shards:
        table = shard.texts()
        for row in range(len(shard)):
            pieces, ids = table["pieces"][row].as_py(), shard.chunk(row).tolist()
            several += len(pieces) > 1
            assert table["ends_document"][row].as_py()
            spelled = tokenizer.decode(ids, skip_special_tokens=False).split(corpora.END)
            assert pieces == (spelled[:-1] if ids[-1] == 0 else spelled)
    assert several


def test_figures_are_those_of_continuations(folder: Path) -> None:
    made = _generate(folder, "again", _corpus(folder))
    written, originals = (
        CorpusView(Corpus.open(folder / name), part)
        for name, part in (("again", "all"), ("corpus", "scored"))
    )
    places = np.arange(len(written))
    new, old = ([ids[PROMPT:] for ids in view.ids(places)] for view in (written, originals))
    assert made["texts"] == made["chunks"] == len(places)
    assert made["new_tokens"] == sum(map(len, new))
    assert made["ended"] == sum(ids[-1] == 0 for ids in new)
    same = [(one[: len(other)], other[: len(one)]) for one, other in zip(new, old, strict=True)]
    same = [pair for pair in same if len(pair[1])]
    assert made["distinct"]["texts"] == len(same)
    for side, texts in zip(("written", "original"), zip(*same, strict=True), strict=True):
        assert made["distinct"][side]["2"] == distinct_ratio(texts, 2)
    assert made["diversity"] == {}


def _texts(folder: Path, name: str, part: str = "all") -> list[list[int]]:
    view = CorpusView(Corpus.open(folder / name), part)  # type: ignore[arg-type]
    return [ids.tolist() for ids in view.ids(np.arange(len(view)))]


def test_tokens_are_drawn_as_the_step_says(folder: Path) -> None:
    made = _corpus(folder)
    likeliest = ({"temperature": 0}, {"top_k": 1}, {"top_p": 1e-9})
    found: list[list[list[int]]] = []
    for number, settings in enumerate(likeliest):
        _generate(folder, f"likeliest{number}", made, chunks=6, **settings)
        found.append(_texts(folder, f"likeliest{number}"))
    assert found[0] == found[1] == found[2]
    model: Any = load_model(folder / "model").model.eval()
    ids = torch.tensor([found[0][0]])
    with torch.inference_mode():
        greedy = model(ids[:, :-1]).logits[0, PROMPT - 1 :, :].argmax(dim=-1)
    assert greedy.tolist() == ids[0, PROMPT:].tolist()
    _generate(folder, "endless", made, min_new_tokens=NEW)  # some texts of "written" end before
    endless = _texts(folder, "endless")
    assert {len(text) for text in endless} == {PROMPT + NEW}
    assert all(0 not in text[PROMPT:-1] for text in endless)


def test_texts_to_read_are_prompt_continuation_and_original(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "written" / "tokenizer.json"))
    written, originals = _texts(folder, "written"), _texts(folder, "corpus", "scored")
    expected = {
        tuple(tokenizer.decode(ids) for ids in (new[:PROMPT], new[PROMPT:], old[PROMPT:])): new
        for new, old in zip(written, originals, strict=True)
    }
    shown = json.loads((folder / "written" / "explored.json").read_text())["texts"]
    assert len(shown) == 8
    for text in shown:
        new = expected[tuple(text[part]["text"] for part in ("prompt", "written", "original"))]
        assert text["tokens"] == len(new) - PROMPT
        assert text["is_ended"] == (new[-1] == 0)


def test_diversity_is_that_of_as_much_of_both_sides(folder: Path) -> None:
    """Of the texts that have something on both."""
    tokenizer = Tokenizer.from_file(str(folder / "written" / "tokenizer.json"))
    texts: list[tuple[str, str]] = []
    for new, old in zip(_texts(folder, "written"), _texts(folder, "corpus", "scored"), strict=True):
        length = min(len(new), len(old))
        pair = tuple(tokenizer.decode(ids[PROMPT:length]) for ids in (new, old))
        if pair[0].strip() and pair[1].strip():
            texts.append(pair)  # type: ignore[arg-type]
    sides = [[pair[side] for pair in texts] for side in range(2)]
    context = corpora.context(folder, "embedded", {})
    embeddings = text_embeddings(DIVERSITY, context, [*sides[0], *sides[1]])
    found = json.loads((folder / "written.json").read_text())["diversity"]
    for side, half in zip(("written", "original"), np.split(embeddings, 2), strict=True):
        expected = scored_with_interval(half)
        assert found[side].keys() == expected.keys()
        for name, value in expected.items():
            assert found[side][name] == pytest.approx(value)


def test_a_sample_is_chosen_by_the_seed_and_short_chunks_are_left_out(folder: Path) -> None:
    made = _corpus(folder)
    few = _generate(folder, "few", made, chunks=20)
    more = _generate(folder, "more", made, share=0.5, prompt_tokens=20)
    assert few["texts"] == 20
    scored = len(CorpusView(Corpus.open(folder / "corpus"), "scored"))
    assert more["texts"] + more["too_short"] == scored // 2
    assert more["too_short"] > 0
    views = [CorpusView(Corpus.open(folder / name)) for name in ("few", "written")]
    prompts = [[ids[:PROMPT].tobytes() for ids in v.ids(np.arange(len(v)))] for v in views]
    whole = iter(prompts[1])
    assert all(prompt in whole for prompt in prompts[0])  # in corpus order
    with pytest.raises(DataError, match=r"prompt_tokens = 30 tokens, the longest has 25; lower"):
        _generate(folder, "none", made, prompt_tokens=30, new_tokens=8)


def test_a_stopped_step_goes_on_with_the_batch_it_was_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def stop_later() -> bool:
        nonlocal asked
        asked += 1
        return asked > 30

    made, stops, drawn = _corpus(folder), 0, list[int]()
    plain = module.sample
    monkeypatch.setattr(
        module,
        "sample",
        lambda model, ids, *more, **named: (
            drawn.append(len(ids)) or plain(model, ids, *more, **named)
        ),
    )
    while True:
        asked = 0
        try:
            _generate(folder, "stopped", made, should_stop=stop_later)
            break
        except StoppedError as error:
            stops += 1
            assert "texts of a shard; they are saved" in str(error)
    assert stops > 2
    whole = _contents(folder / "written")
    assert {**_contents(folder / "stopped"), "explored.json": b""} == {
        **whole,
        "explored.json": b"",
    }
    texts = sum(shard["chunks"] for shard in Corpus.open(folder / "written").about["shards"])
    assert texts < sum(drawn) <= texts + stops * max(drawn)


def test_a_loss_may_leave_out_the_prompts(folder: Path) -> None:
    view = CorpusView(Corpus.open(folder / "written"))
    rows = np.arange(5)
    learned = [Shards(CorpusView(view.corpus, learns_prompts=each)) for each in (True, False)]
    (inputs, whole), (same, behind) = (each.batch(rows, torch.device("cpu")) for each in learned)
    assert torch.equal(inputs["input_ids"], same["input_ids"])
    assert (behind.labels[:, : PROMPT - 1] == UNLABELLED).all()
    assert torch.equal(behind.labels[:, PROMPT - 1 :], whole.labels[:, PROMPT - 1 :])
    counts = [each.counts(rows)["labelled"] for each in learned]
    assert counts == [int((targets.labels != UNLABELLED).sum()) for targets in (whole, behind)]


TAIL = """
[steps.written]
run = "generate"
model = "model"
data = "corpus"
part = "scored"
prompt_tokens = 6
new_tokens = 12

[steps.student]
run = "train"
model = "model"
data = "written"
max_steps = 2
batch_size = 4
max_length = 17
evaluations = 1
precision = "fp32"
learn_prompts = false

[steps.other_words]
run = "train"
model = { size = "pico", family = "llama", tokenizer = "spaced" }
data = { from = "written", retokenize = true, max_length = 16 }
max_steps = 1
batch_size = 2
max_length = 24
evaluations = 1
precision = "fp32"

[steps.scores]
run = "evaluate"
models = ["student", "other_words"]
data = "texts"
bootstrap = 100
memory = false
speed = { batch_sizes = [1], tokens = 16, threads = 1, rounds = 3, calls = 1 }

[steps.report]
run = "report"
"""
RECIPE = corpora.RECIPE.partition("[steps.by_teacher]")[0] + TAIL


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe, and the models and texts it names; one model has another tokenizer."""
    place = tmp_path_factory.mktemp("seqkd")
    corpora.write_recipe(place, RECIPE)
    tokenizer = corpora.write_tokenizer(place / "spaced")
    tokenizer.add_tokens(["naïve"])
    tokenizer.save(str(place / "spaced" / "tokenizer.json"))
    corpora.write_model(place / "short", max_position_embeddings=16)
    return place


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    run_recipe(place / "selected.toml", out=place / "runs", quiet=True)
    return place / "runs" / "selected"


def test_students_of_any_tokenizer_learn_from_what_is_written(place: Path, run: Path) -> None:
    texts = read_result(run / "written").metrics["texts"]
    student = read_result(run / "student").metrics
    assert student["data"]["train_rows"] == texts
    assert student["validation"]["nll"] > 0
    models = read_result(run / "scores").metrics["models"]
    assert all(models[name]["bits_per_byte"]["value"] > 0 for name in ("student", "other_words"))
    view = CorpusView(Corpus.open(run / "written"))
    again = retokenized(view, place / "spaced", 16, place / "retokenized")
    letters = [sorted("".join(each.all_texts()).replace("\n", "")) for each in (view, again)]
    assert letters[0] == letters[1]


def test_a_plan_knows_how_many_texts_are_written(place: Path, run: Path) -> None:
    plan = plan_recipe(load_recipe(place / "selected.toml"), place)
    by_name = {step.name: step for step in plan.steps}
    made = read_result(run / "written").metrics
    assert by_name["written"].counts["texts"] == pytest.approx(made["texts"], rel=0.1)
    assert by_name["written"].flops == pytest.approx(made["flops"], rel=0.15)
    assert by_name["student"].counts["data.train_rows"] == by_name["written"].counts["texts"]


def test_a_verb_continues_what_another_run_published(place: Path, run: Path) -> None:
    settings = {"data": f"corpus:{run / 'corpus'}", "model": str(place / "model"), "part": "scored"}
    sizes = {"prompt_tokens": 6, "new_tokens": 12, "seed": 3}
    summary = run_one_step("generate", settings | sizes, (), place / "verbs", quiet=True)
    tokens = "00000.tokens.safetensors"
    written = summary.folder / "generate" / tokens
    assert written.read_bytes() == (run / "written" / tokens).read_bytes()
    learning = {"model": str(place / "model"), "max_length": 24, "max_steps": 1}
    behind = {"learn_prompts": False, "evaluations": 1, "batch_size": 4}
    of_written = {"data": f"corpus:{written.parent}", **learning, **behind}
    trained = run_one_step("train", of_written, (), place / "verbs", quiet=True)
    assert read_result(trained.folder / "train").metrics["validation"]["nll"] > 0
    of_texts = {"data": f"corpus:{run / 'corpus'}", **learning, **behind}
    with pytest.raises(UsageError, match=r"have no prompts; name a step with run = \"generate\""):
        run_one_step("train", of_texts, (), place / "verbs", quiet=True)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('model = "model"', 'model = "short"', "new_tokens: is 12, with prompt_tokens = 6 a text"),
        (
            'model = "model"',
            'model = "spaced_model"',
            "model: 'spaced_model' has another tokenizer",
        ),
        ('model = "model"', 'model = "demo:minilm-l6"', "does not predict the next token"),
        ("prompt_tokens = 6", "prompt_tokens = 26", "prompt_tokens: is 26, and the longest chunk"),
        (
            'data = "corpus"',
            'data = "texts"',
            "data (line 24): data 'texts' has no chunks to continue",
        ),
        ("new_tokens = 12", "new_tokens = 12\nshare = 0.5\nchunks = 9", "remove one"),
        ("new_tokens = 12", "new_tokens = 12\nmin_new_tokens = 13", "above new_tokens = 12"),
        ("max_length = 17", "max_length = 16", "student.max_length: is 16, and the corpus"),
        (
            'data = "written"',
            'data = "corpus"',
            "learn_prompts (line 38): is false, but the rows of 'corpus'",
        ),
        (
            "max_length = 16 }",
            "max_length = 16 }\nlearn_prompts = false",
            "retokenized chunks have",
        ),
    ],
)
def test_a_check_refuses_what_cannot_be_written(place: Path, old: str, new: str, said: str) -> None:
    if "spaced_model" in new and not (place / "spaced_model").exists():
        corpora.write_model(place / "spaced_model")
        for file in (place / "spaced").iterdir():
            (place / "spaced_model" / file.name).write_bytes(file.read_bytes())
    before, written = RECIPE.split("[steps.written]")
    assert old in written
    file = place / "changed.toml"
    file.write_text(f"{before}[steps.written]{written.replace(old, new, 1)}")
    with pytest.raises(AttarError) as error:
        require_data(load_recipe(file), place)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "short"}, "is 18, and short has 16 positions; set the two to 16 together"),
        ({"model": "spaced_tokens"}, "is not the one that 'corpus' was made with"),
    ],
)
def test_a_model_that_cannot_continue_is_refused(
    folder: Path, settings: dict[str, Any], said: str
) -> None:
    corpora.write_model(folder / "short", max_position_embeddings=16)
    corpora.write_model(folder / "spaced_tokens", vocab_size=400)
    tokenizer = corpora.write_tokenizer(folder / "spaced_tokens")
    tokenizer.add_tokens(["naïve"])
    tokenizer.save(str(folder / "spaced_tokens" / "tokenizer.json"))
    with pytest.raises(ModelError) as error:
        _generate(folder, "refused", _corpus(folder), **settings)
    assert said in str(error.value)
