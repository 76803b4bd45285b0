"""Checks selections: scores must be of the same chunks, by a reference not trained on them.

A reference that was trained on the text that it scores has memorized it, so the most informative
chunks would look easy. The part of a corpus that is reserved for the reference is never scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from attar.config import Config
from attar.data.config import CorpusData, HubData, TextConfig
from attar.distillation.config import GenerateStep
from attar.errors import AttarError
from attar.evaluation.config import EvaluateStep
from attar.models.config import referenced_model
from attar.recipe.checking.mistakes import Mistake
from attar.recipe.schema import Recipe
from attar.recipe.steps import STEPS, kind_of
from attar.report.reading import base_name
from attar.selection.config import ProxyStep, ScoreStep, SelectStep, TokenizeStep
from attar.training.config import TrainStep

VALIDATION_TEXTS = '{ source = "files", path = "texts", objective = "causal_lm" }'
ONE_MODEL = (
    "{!r} and the teacher's {!r} are scores of one model, so every score would be 0; name the "
    "scores of a smaller model"
)


def check_selections(recipe: Recipe, folder: Path) -> list[Mistake]:
    """Every selection whose scores cannot be compared, and every part that does not exist.

    Args:
        recipe: with the sweep expanded, because settings of the copies count too.
        folder: base folder of relative paths.
    """
    found: dict[tuple[object, ...], Mistake] = {}
    for name, step in recipe.steps.items():
        mistakes = _of_streams(recipe, name, step)
        if isinstance(step, SelectStep | ProxyStep):
            mistakes = chain(mistakes, _of_scores(recipe, folder, name, step))
        elif isinstance(step, ScoreStep):
            mistakes = chain(mistakes, _of_proxy(recipe, name, step))
        elif isinstance(step, TrainStep):
            mistakes = chain(mistakes, _of_part(recipe, name, step))
        elif isinstance(step, GenerateStep):
            mistakes = chain(mistakes, _of_prompts(recipe, name, step))
        elif isinstance(step, TokenizeStep):
            mistakes = chain(mistakes, _of_tables(recipe, name, step))
        for mistake in mistakes:  # copies of a step have the same mistake; report only the first
            kind, copy, *inside = mistake.place
            place = (kind, base_name(str(copy)), *inside)
            found.setdefault(place, Mistake(place, mistake.text))
    return list(found.values())


def _of_tables(recipe: Recipe, name: str, step: TokenizeStep) -> Iterator[Mistake]:
    """Data of tokenize steps must be documents in a table; rows and chunks are not documents."""
    for table in STEPS["tokenize"].data_in(step):
        place = ("steps", name, *table.place.split("."))
        if table.word in recipe.steps:
            text = (
                f"step {table.word!r} makes rows of its own; name the [data.<name>] table of texts"
            )
            yield Mistake(place, text)
        elif isinstance(recipe.data.get(table.word), CorpusData):
            yield Mistake(place, f"data {table.word!r} has chunks already; name a table of texts")
        elif (rows := getattr(recipe.data.get(table.word), "train_rows", None)) is not None:
            yield Mistake(
                ("data", table.word, "train_rows"),
                f"is {rows}, and step {name!r} streams this table; remove it, or set max_documents "
                f"= {rows} there",
            )


def _of_streams(recipe: Recipe, name: str, step: Config) -> Iterator[Mistake]:
    """Steps that need the rows of a table that can only be read as a stream."""
    is_reader = isinstance(step, TokenizeStep | EvaluateStep)  # an evaluation reads validation rows
    for reference in kind_of(step).data_in(step):
        if isinstance(recipe.data.get(reference.word), HubData) and not is_reader:
            yield Mistake(
                ("steps", name, *reference.place.split(".")),
                f"data {reference.word!r} on the hub is streamed; add a step with "
                f'run = "tokenize" and data = "{reference.word}", and name that step here',
            )


def _of_part(recipe: Recipe, name: str, step: TrainStep) -> Iterator[Mistake]:
    word = step.data_name
    corpus, outside = recipe.steps.get(word), recipe.data.get(word)
    origin = _origin(recipe, word)
    table = recipe.data.get(origin)
    if isinstance(table, CorpusData) and table.validation is None:
        yield Mistake(
            ("steps", name, "data"),
            f"training needs validation texts, and the corpus {origin!r} has none; name some in "
            f"the recipe, or with --set 'data.{origin}.validation={VALIDATION_TEXTS}'",
        )
    is_unknown = isinstance(outside, CorpusData) and isinstance(step.data, str)
    if not step.learn_prompts and not isinstance(corpus, GenerateStep) and not is_unknown:
        yield Mistake(
            ("steps", name, "learn_prompts"),
            f"is false, but the rows of {word!r} have no prompts; name a step with run = "
            '"generate", or leave learn_prompts out',
        )
    elif not step.learn_prompts and not isinstance(step.data, str):
        yield Mistake(
            ("steps", name, "learn_prompts"),
            "is false, but retokenized chunks have no prompts; remove learn_prompts",
        )
    if step.part == "all" or isinstance(outside, CorpusData):
        return
    if not isinstance(corpus, TokenizeStep):
        yield Mistake(
            ("steps", name, "part"),
            f'part = "{step.part}" belongs to a corpus, and data {word!r} is none; name a '
            'step with run = "tokenize", or leave part out',
        )
    elif step.part == "reserved" and corpus.reserve == 0:
        yield Mistake(
            ("steps", name, "part"),
            f"no part of {word!r} is reserved; set steps.{word}.reserve = 0.05",
        )


def _of_prompts(recipe: Recipe, name: str, step: GenerateStep) -> Iterator[Mistake]:
    corpus, outside = recipe.steps.get(step.data), recipe.data.get(step.data)
    is_made = isinstance(corpus, TokenizeStep | SelectStep | GenerateStep)
    if not is_made and not isinstance(outside, CorpusData):
        if corpus is not None or outside is not None:
            yield Mistake(
                ("steps", name, "data"),
                f"data {step.data!r} has no chunks to continue; name a "
                'step with run = "tokenize" or "select", or a table with source = "corpus"',
            )
        return
    reserved = isinstance(corpus, TokenizeStep) and corpus.reserve > 0
    if is_made and step.part != "all" and not isinstance(corpus, TokenizeStep):
        yield Mistake(
            ("steps", name, "part"),
            f'part = "{step.part}" belongs to a corpus of texts, and step {step.data!r} makes no '
            "parts; leave part out",
        )
    elif is_made and step.part == "reserved" and not reserved:
        yield Mistake(
            ("steps", name, "part"),
            f"no part of {step.data!r} is reserved; set steps.{step.data}.reserve = 0.05",
        )


def _of_proxy(recipe: Recipe, name: str, step: ScoreStep) -> Iterator[Mistake]:
    proxy = recipe.steps.get(step.model)
    if isinstance(proxy, ProxyStep) and proxy.data != step.data:
        yield Mistake(
            ("steps", name, "model"),
            f"the proxy {step.model!r} learned from scores of the corpus {proxy.data!r}, this step "
            f"scores {step.data!r}; train a proxy on a sample of that corpus",
        )


def _of_scores(
    recipe: Recipe, folder: Path, name: str, step: SelectStep | ProxyStep
) -> Iterator[Mistake]:
    found = {place: recipe.steps.get(word) for place, word in step.scored_by.items()}
    read = {place: scores for place, scores in found.items() if isinstance(scores, ScoreStep)}
    if len(found) > 1 and step.teacher == step.reference:
        yield Mistake(("steps", name, "reference"), ONE_MODEL.format(step.reference, step.teacher))
    if "reference" in read:
        yield from _of_reference(recipe, folder, name, step, read["reference"])
    if len(read) < len(found):
        return  # said elsewhere
    places = {place: "scores" if place == "predicted" else place for place in read}
    for place, scores in read.items():
        for problem in _of_step(recipe, step, place, scores):
            yield Mistake(("steps", name, places[place]), problem)
    if "reference" in read:
        yield from _of_pair(recipe, name, step, read["teacher"], read["reference"])


def _of_step(
    recipe: Recipe, step: SelectStep | ProxyStep, place: str, scores: ScoreStep
) -> Iterator[str]:
    word = step.scored_by[place]
    if scores.data != step.data:
        yield (
            f"{word!r} scores the corpus {scores.data!r}, this step reads {step.data!r}; name "
            "scores of the same tokenize step"
        )
    is_predicted = isinstance(recipe.steps.get(scores.model), ProxyStep)
    if is_predicted and place != "predicted":
        yield (
            f"{word!r} has scores that the proxy {scores.model!r} predicts; name a score step of a "
            'language model, or select with method = "proxy" and scores'
        )
    if not is_predicted and place == "predicted":
        yield (
            f"{word!r} has log-probabilities of {scores.model!r}; name a score step whose model is "
            'a step with run = "proxy"'
        )
    if isinstance(step, SelectStep) and scores.chunks is not None:
        yield (
            f"{word!r} scores {scores.chunks:,} chunks, and a selection compares all of "
            'them; leave chunks out there, or train a step with run = "proxy" on the sample'
        )


def _of_pair(
    recipe: Recipe,
    name: str,
    step: SelectStep | ProxyStep,
    teacher: ScoreStep,
    reference: ScoreStep,
) -> Iterator[Mistake]:
    if step.teacher != step.reference and teacher.model == reference.model:
        yield Mistake(("steps", name, "reference"), ONE_MODEL.format(step.reference, step.teacher))
    if teacher.part != reference.part:
        yield Mistake(
            ("steps", name, "reference"),
            f'{step.reference!r} scores the part "{reference.part}", {step.teacher!r} the part '
            f'"{teacher.part}"; give both the same',
        )
    sizes = ((each.chunks, each.seed if each.chunks else None) for each in (teacher, reference))
    if len(set(sizes)) > 1:
        yield Mistake(
            ("steps", name, "reference"),
            f"{step.teacher!r} and {step.reference!r} score different samples; give both the same "
            "chunks and seed",
        )


def _of_reference(
    recipe: Recipe, folder: Path, name: str, step: SelectStep | ProxyStep, reference: ScoreStep
) -> Iterator[Mistake]:
    for learner in _training_of(recipe, reference.model):
        train = recipe.steps[learner]
        seen = _scored_text_it_saw(recipe, folder, train, step.data, reference.part)
        if seen:
            yield Mistake(
                ("steps", name, "reference"),
                f"the reference {reference.model!r} is trained on what it scores: step {learner!r} "
                f"reads {seen}; train it on data = {step.data!r} with "
                f'part = "reserved", and reserve a share where {step.data!r} is tokenized',
            )


def _training_of(recipe: Recipe, word: str) -> Iterator[str]:
    """The train steps that a model comes from, last first."""
    seen: set[str] = set()
    while isinstance(step := recipe.steps.get(word), TrainStep) and word not in seen:
        seen.add(word)
        yield word
        word = referenced_model(step.model) or ""


def _scored_text_it_saw(
    recipe: Recipe, folder: Path, step: object, corpus: str, scored: str
) -> str | None:
    """The scored text that a train step reads; None if none."""
    assert isinstance(step, TrainStep)
    word = step.data_name
    read = recipe.steps.get(word)
    origin = _origin(recipe, word)
    (one, is_selected), (other, _) = (_corpus_of(recipe, folder, w) for w in (origin, corpus))
    if one is not None and one == other:
        if is_selected or origin != word:
            what = (
                "written from its chunks" if isinstance(read, GenerateStep) else "selected from it"
            )
            return f"{word!r}, which is {what}"
        other = "reserved" if scored == "scored" else "scored"
        return None if step.part == other else f'the part "{step.part}" of {word!r}'
    tables = (getattr(recipe.steps.get(each), "data", each) for each in (origin, corpus))
    if _same_texts(recipe, folder, *tables):
        return f"{word!r}, whose texts are those of the corpus"
    return None


def _origin(recipe: Recipe, word: str) -> str:
    """The corpus or table that chunks are selected or generated from."""
    seen: set[str] = set()
    while isinstance(step := recipe.steps.get(word), SelectStep | GenerateStep):
        if word in seen:
            break  # a cycle, reported elsewhere
        seen.add(word)
        word = step.data
    return word


def _corpus_of(recipe: Recipe, folder: Path, word: str) -> tuple[str | None, bool]:
    """An identifier of a corpus, equal for copies, or None if it is not a corpus or does not exist;
    and whether the name refers to a selection of another run."""
    table = recipe.data.get(word)
    if not isinstance(table, CorpusData):
        return (word if isinstance(recipe.steps.get(word), TokenizeStep) else None), False
    from attar.data.corpus.published import open_published  # imports numpy

    try:
        found = open_published(table.path, folder, table.corpus)
    except AttarError:
        return None, False  # reported elsewhere
    return found.corpus_fingerprint, found.is_selection


def _same_texts(recipe: Recipe, folder: Path, one: str, other: str) -> bool:
    """Whether two data tables have the same texts, ignoring limits and labels."""
    if one == other:
        return True
    first, second = recipe.data.get(one), recipe.data.get(other)
    if first is None or second is None:
        return False
    if isinstance(first, CorpusData) or isinstance(second, CorpusData):
        return False
    files, others = _files_of(first, folder), _files_of(second, folder)
    if files and others:
        return not files.isdisjoint(others)
    told = ("source", "path", "task", "name", "config", "split")
    return all(getattr(first, of, None) == getattr(second, of, None) for of in told)


def _files_of(table: TextConfig, folder: Path) -> set[Path]:
    """The files of training texts; empty if they are elsewhere or missing."""
    from attar.data.fingerprint import data_files

    try:
        files = data_files(table, folder) or {}
    except AttarError:
        return set()  # reported elsewhere
    return {file.resolve() for file in files.get("train", ())}
