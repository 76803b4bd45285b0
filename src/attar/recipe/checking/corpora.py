"""Checks settings against the corpora of a recipe before anything runs: columns, sources, lengths
and tokenizers.

Only certain mistakes are reported. Models that do not exist yet and hub ids are checked when the
step runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from attar.config import in_recipe_folder
from attar.data.config import CorpusData, FilesData, StdlibTextData
from attar.data.corpus.config import LearnedTokenizer
from attar.distillation.config import GenerateStep
from attar.errors import AttarError, did_you_mean
from attar.evaluation.config import EvaluateStep
from attar.models.config import FromConfig, referenced_model
from attar.models.sources.demo import demo_model
from attar.models.sources.references import DEMO_PREFIX, PROXY_FILE, find_model_folder
from attar.recipe.checking.mistakes import Mistake
from attar.recipe.checking.relations import ModelFamilies
from attar.recipe.checking.tasks_of_steps import kind_of_model
from attar.recipe.schema import Recipe
from attar.recipe.steps import as_table
from attar.selection.config import ProxyStep, ScoreStep, SelectStep, TokenizeStep
from attar.tasks.denoising import PUBLISHED, most_spans, raw_tokens
from attar.tasks.table import CAUSAL_LM, KINDS
from attar.training.cache_config import CacheStep
from attar.training.config import TrainStep


def check_corpora(recipe: Recipe, recipe_folder: Path) -> list[Mistake]:
    """Every setting that does not fit its corpus.

    Raises:
        DataError: the files do not have the source column.
        AttarError: a corpus of another run is missing or damaged.
    """
    corpora = _Corpora(recipe, recipe_folder)
    found: list[Mistake] = []
    for name, step in recipe.steps.items():
        if isinstance(step, TokenizeStep):
            _look_at_columns(recipe, recipe_folder, step)
        elif isinstance(step, SelectStep):
            found += _of_sources(name, step, corpora.of(step.data))
        elif isinstance(step, ScoreStep | ProxyStep | GenerateStep | TrainStep):
            # chunks that are packed again fit any reader
            corpus = corpora.of(step.data) if isinstance(step.data, str) else None
            found += [] if corpus is None else _of_model(name, step, corpus, corpora)
        elif isinstance(step, CacheStep) and (corpus := corpora.of(step.data)) is not None:
            found += _of_tokenizer(name, "teacher", step.teacher, corpus, corpora)
        elif isinstance(step, EvaluateStep) and step.tasks:
            for index, word in enumerate(step.models):
                problem = corpora.no_language_model(word) or _other_objective(recipe, word)
                found += [Mistake(("steps", name, "models", index), problem)] if problem else []
    return found


def _other_objective(recipe: Recipe, word: str) -> str | None:
    """Why a model trained by this recipe is not a language model; None if it is, or if unknown."""
    kind = kind_of_model(recipe, word)
    if kind is None or kind.name == CAUSAL_LM.name:
        return None
    return (
        f"step {word!r} is trained for {kind.name}, and zero-shot tasks are asked of models that "
        f'predict the next token: set objective = "{CAUSAL_LM.name}" there, or name another model'
    )


@dataclass(frozen=True)
class _Corpus:
    """What is known about an existing or future corpus."""

    name: str
    max_length: int
    sources: tuple[str, ...] | None
    """None: unknown."""
    tokenizer: Callable[[], str | None]
    """Returns the digest of the tokenizer; None: unknown."""
    sentinels: int | None = None
    """Number of sentinels of the tokenizer; None: unknown."""


class _Corpora:
    def __init__(self, recipe: Recipe, recipe_folder: Path) -> None:
        self._recipe, self._folder = recipe, recipe_folder
        tables = {name: as_table(step) for name, step in recipe.steps.items()}
        self.families = ModelFamilies(tables, recipe_folder)
        self._digest = cache(self._read_digest)

    def of(self, word: str) -> _Corpus | None:
        """The corpus that a data word refers to, directly or through a selection; None if none."""
        step, table = self._recipe.steps.get(word), self._recipe.data.get(word)
        if isinstance(step, SelectStep):
            return self.of(step.data)
        if isinstance(step, GenerateStep):
            read = self.of(step.data)
            return read and replace(read, name=word, max_length=step.max_length)
        if isinstance(step, TokenizeStep):
            sources = _sources(self._recipe.data.get(step.data), step.source_column)
            made = step.tokenizer
            count = made.sentinels if isinstance(made, LearnedTokenizer) else None
            return _Corpus(word, step.max_length, sources, lambda: self.digest(word), count)
        if isinstance(table, CorpusData):
            from attar.data.corpus.published import open_published

            about = open_published(table.path, self._folder, table.corpus).corpus.about
            sources = tuple(about["sources"])
            return _Corpus(word, about["max_length"], sources, lambda: about["tokenizer"])
        return None

    def no_language_model(self, word: str) -> str | None:
        """Why a model from outside the recipe cannot score text; None if it can, or if unknown."""
        if word in self._recipe.steps:
            return None
        if word.startswith(DEMO_PREFIX):
            named: Any = [demo_model(word).architecture]
        else:
            folder = find_model_folder(in_recipe_folder(word, self._folder))
            config = self.families.config_of(word) or {}
            named = None if (folder / PROXY_FILE).exists() else config.get("architectures")
        if not isinstance(named, list) or not named or not isinstance(named[0], str):
            return None
        if named[0].endswith(CAUSAL_LM.heads):
            return None
        return (
            f"{word!r} is a {named[0]}, which does not predict the next token; name a causal "
            "language model"
        )

    def digest(self, word: str) -> str | None:
        """Digest of the tokenizer of a model; None: unknown."""
        passed: set[str] = set()
        while (step := self._recipe.steps.get(word)) is not None and word not in passed:
            passed.add(word)
            if isinstance(step, GenerateStep):
                corpus = self.of(step.data)
                return None if corpus is None else corpus.tokenizer()
            if isinstance(step, TokenizeStep):
                model: Any = step.tokenizer
            elif isinstance(step, TrainStep | ProxyStep):
                model = step.model
            else:
                return None
            if isinstance(model, FromConfig):
                word = model.tokenizer
            elif isinstance(model, str):
                word = model
            else:
                word = getattr(model, "source", "")  # a tokenizer to be trained has no digest yet
        return None if word in passed or not word else self._digest(word)

    def _read_digest(self, word: str) -> str | None:
        from attar.special_tokens import TOKENIZER_FILE, open_tokenizer, tokenizer_digest

        try:
            folder = find_model_folder(in_recipe_folder(word, self._folder))
            if not (folder / TOKENIZER_FILE).is_file():
                return None
            return tokenizer_digest(open_tokenizer(folder))
        except (AttarError, OSError, ValueError):
            return None  # reported by the first step that reads it


def _look_at_columns(recipe: Recipe, recipe_folder: Path, step: TokenizeStep) -> None:
    table = recipe.data.get(step.data)
    if step.expect_tokens is not None:
        return  # it may be on another machine
    if isinstance(table, FilesData) and step.source_column is not None:
        from attar.data.documents import require_source_column

        require_source_column(table, recipe_folder, step.data, step.source_column)


def _sources(table: object, column: str | None) -> tuple[str, ...] | None:
    """Sources of a corpus that will be made from a table; None if only reading all of it tells."""
    if column is not None:
        return None
    if isinstance(table, StdlibTextData):
        from attar.data.stdlib_areas import AREAS
        from attar.data.stdlib_text import REFERENCE

        return ("", *AREAS, REFERENCE)
    return ("",)


def _of_sources(name: str, step: SelectStep, corpus: _Corpus | None) -> Iterator[Mistake]:
    if corpus is None or corpus.sources is None:
        return
    for source in step.keep_by_source:
        if source not in corpus.sources:
            known = [word for word in corpus.sources if word]
            has = (
                f"has the sources {', '.join(map(repr, known))}"
                if known
                else ("has only one source; set source_column in its tokenize step")
            )
            yield Mistake(
                ("steps", name, "keep_by_source", source),
                f"no source {source!r}{did_you_mean(source, known)}; the corpus "
                f"{corpus.name!r} {has}",
            )


def _of_model(
    name: str,
    step: ScoreStep | ProxyStep | GenerateStep | TrainStep,
    corpus: _Corpus,
    corpora: _Corpora,
) -> Iterator[Mistake]:
    word = referenced_model(step.model) or name
    if isinstance(step, ScoreStep | GenerateStep) and (problem := corpora.no_language_model(word)):
        yield Mistake(("steps", name, "model"), problem)
    length, positions = corpus.max_length, None
    kind = KINDS[getattr(step, "objective", None) or CAUSAL_LM.name]
    if isinstance(step, TrainStep) and kind.hides_spans:
        yield from _of_sentinels(name, step, corpus)
    if isinstance(step, TrainStep) and not kind.hides and length > step.max_length:
        yield Mistake(
            ("steps", name, "max_length"),
            f"is {step.max_length}, and the corpus {corpus.name!r} has chunks of up to {length} "
            f"tokens; set max_length = {length}, or pack its texts again with data = "
            f'{{ from = "{step.data}", retokenize = true, max_length = {step.max_length} }}',
        )
    if not isinstance(step, TrainStep):  # the step itself raises
        positions = (corpora.families.config_of(word) or {}).get("max_position_embeddings")
    if isinstance(step, GenerateStep):
        yield from _of_prompts(name, step, corpus, word, positions)
    elif isinstance(positions, int) and length > positions:
        yield Mistake(
            ("steps", name, "model"),
            f"{word!r} has {positions} positions, and the corpus {corpus.name!r} has chunks of up "
            f"to {length} tokens; tokenize with max_length = {positions} or less",
        )
    yield from _of_tokenizer(name, "model", word, corpus, corpora)
    if isinstance(step, TrainStep) and step.teacher is not None:
        yield from _of_tokenizer(name, "teacher", step.teacher, corpus, corpora)


def _of_tokenizer(
    name: str, setting: str, word: str, corpus: _Corpus, corpora: _Corpora
) -> Iterator[Mistake]:
    """Models whose tokenizer differs from the corpus's, as far as the recipe determines it."""
    own, other = corpora.digest(word), corpus.tokenizer()
    if None not in (own, other) and own != other:
        yield Mistake(
            ("steps", name, setting),
            f"{word!r} has another tokenizer than the corpus {corpus.name!r}, whose tokens mean "
            "something else to it; tokenize with this model's tokenizer, or name another model",
        )


def _of_sentinels(name: str, step: TrainStep, corpus: _Corpus) -> Iterator[Mistake]:
    """Too few sentinels in a tokenizer that will be trained on the corpus."""
    denoisers = step.denoisers or PUBLISHED
    needed = most_spans(denoisers, raw_tokens(denoisers, step.max_length))
    if corpus.sentinels is not None and corpus.sentinels < needed:
        yield Mistake(
            ("steps", name, "objective"),
            f"with max_length = {step.max_length} needs {needed} sentinels, and the tokenizer of "
            f"{corpus.name!r} has {corpus.sentinels}; set steps.{corpus.name}.tokenizer.sentinels "
            "= 100, as T5 has",
        )


def _of_prompts(
    name: str, step: GenerateStep, corpus: _Corpus, word: str, positions: object
) -> Iterator[Mistake]:
    given, length = step.prompt_tokens, step.prompt_tokens + step.new_tokens
    if given > corpus.max_length + 1:
        yield Mistake(
            ("steps", name, "prompt_tokens"),
            f"is {given}, and the longest chunk of {corpus.name!r} has {corpus.max_length + 1} "
            f"tokens; set prompt_tokens = {corpus.max_length // 2} or less",
        )
    elif isinstance(positions, int) and length > positions:
        yield Mistake(
            ("steps", name, "new_tokens"),
            f"is {step.new_tokens}, with prompt_tokens = {given} a text has {length} tokens, and "
            f"{word!r} has {positions} positions; set the two to {positions} together, or less",
        )


def expected_elsewhere(recipe: Recipe) -> set[str]:
    """The data tables whose size is given in the recipe itself."""
    steps = recipe.steps.values()
    return {s.data for s in steps if isinstance(s, TokenizeStep) and s.expect_tokens is not None}
