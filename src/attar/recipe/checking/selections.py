"""What a selection compares: scores of the same chunks, by a reference that never saw them.

A reference that was trained on the text it scores knows it by heart, and what teaches most then
looks easy. The part of a corpus that is reserved for it is never scored.
"""

from __future__ import annotations

from collections.abc import Iterator

from attar.models.config import referenced_model
from attar.recipe.checking.mistakes import Mistake
from attar.recipe.schema import Recipe
from attar.recipe.steps import STEPS
from attar.report.reading import base_name
from attar.selection.config import ScoreStep, SelectStep, TokenizeStep
from attar.training.config import TrainStep


def check_selections(recipe: Recipe) -> list[Mistake]:
    """Every selection whose scores cannot be compared, and every part that is not there.

    Args:
        recipe: with the copies of its sweep, whose settings count too.
    """
    found: dict[tuple[object, ...], Mistake] = {}
    for name, step in recipe.steps.items():
        mistakes: Iterator[Mistake] = iter(())
        if isinstance(step, SelectStep):
            mistakes = _of_scores(recipe, name, step)
        elif isinstance(step, TrainStep):
            mistakes = _of_part(recipe, name, step)
        elif isinstance(step, TokenizeStep):
            mistakes = _of_tables(recipe, name, step)
        for mistake in mistakes:  # copies of a step make the same mistake: it is said of the first
            _, copy, *inside = mistake.place
            place = ("steps", base_name(str(copy)), *inside)
            found.setdefault(place, Mistake(place, mistake.text))
    return list(found.values())


def _of_tables(recipe: Recipe, name: str, step: TokenizeStep) -> Iterator[Mistake]:
    """Documents are read from tables as a stream; a step's rows are no documents."""
    for table in STEPS["tokenize"].data_in(step):
        if table.word in recipe.steps:
            yield Mistake(
                ("steps", name, *table.place.split(".")),
                f"step {table.word!r} makes rows of its own; name the [data.<name>] table of texts",
            )


def _of_part(recipe: Recipe, name: str, step: TrainStep) -> Iterator[Mistake]:
    corpus = recipe.steps.get(step.data)
    if step.part == "all":
        return
    if not isinstance(corpus, TokenizeStep):
        yield Mistake(
            ("steps", name, "part"),
            f'part = "{step.part}" belongs to a corpus, and data {step.data!r} is none; name a '
            'step with run = "tokenize", or leave part out',
        )
    elif step.part == "reserved" and corpus.reserve == 0:
        yield Mistake(
            ("steps", name, "part"),
            f"no part of {step.data!r} is reserved; set steps.{step.data}.reserve = 0.05",
        )


def _of_scores(recipe: Recipe, name: str, step: SelectStep) -> Iterator[Mistake]:
    teacher, reference = (recipe.steps.get(word) for word in (step.teacher, step.reference))
    if not isinstance(teacher, ScoreStep) or not isinstance(reference, ScoreStep):
        return
    for place, scores in (("teacher", teacher), ("reference", reference)):
        if scores.data != step.data:
            yield Mistake(
                ("steps", name, place),
                f"{getattr(step, place)!r} scores the corpus {scores.data!r}, this step selects "
                f"from {step.data!r}; name scores of the same tokenize step",
            )
    if step.teacher == step.reference:
        yield Mistake(
            ("steps", name, "reference"),
            f"is the teacher's {step.teacher!r}, so every score would be 0; name the scores of a "
            "smaller model",
        )
    if teacher.part != reference.part:
        yield Mistake(
            ("steps", name, "reference"),
            f'{step.reference!r} scores the part "{reference.part}", {step.teacher!r} the part '
            f'"{teacher.part}"; give both the same',
        )
    for learner in _training_of(recipe, reference.model):
        seen = _scored_text_it_saw(recipe, recipe.steps[learner], step.data, reference.part)
        if seen:
            yield Mistake(
                ("steps", name, "reference"),
                f"the reference {reference.model!r} is trained on what it scores: step {learner!r} "
                f"reads {seen}; train it on data = {step.data!r} with "
                f'part = "reserved", and reserve a share in steps.{step.data}',
            )


def _training_of(recipe: Recipe, word: str) -> Iterator[str]:
    """The train steps a model comes from, the last one first."""
    seen: set[str] = set()
    while isinstance(step := recipe.steps.get(word), TrainStep) and word not in seen:
        seen.add(word)
        yield word
        word = referenced_model(step.model) or ""


def _scored_text_it_saw(recipe: Recipe, step: object, corpus: str, scored: str) -> str | None:
    """What a train step reads of the scored part; None: nothing."""
    assert isinstance(step, TrainStep)
    tokenize = recipe.steps.get(corpus)
    read = recipe.steps.get(step.data)
    if step.data == corpus and step.part != _other(scored):
        return f'the part "{step.part}" of {corpus!r}'
    if isinstance(read, SelectStep):
        selected_from = read.data
        if selected_from == corpus:
            return f"{step.data!r}, which is selected from it"
        read = recipe.steps.get(selected_from)
    if not isinstance(tokenize, TokenizeStep):
        return None
    table = read.data if isinstance(read, TokenizeStep) and step.data != corpus else step.data
    if _same_texts(recipe, table, tokenize.data):
        return f"{step.data!r}, whose texts are those of the corpus"
    return None


def _same_texts(recipe: Recipe, one: str, other: str) -> bool:
    """Whether two data tables have the same texts: limits and answers do not count."""
    tables = [recipe.data.get(name) for name in (one, other)]
    if one == other:
        return True
    if None in tables:
        return False
    first, second = (
        {name: getattr(table, name, None) for name in ("source", "path", "task", "train")}
        for table in tables
    )
    return first == second


def _other(part: str) -> str:
    return "reserved" if part == "scored" else "scored"
