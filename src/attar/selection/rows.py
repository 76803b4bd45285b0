"""Chunks of a corpus or a selection as training data of a recipe.

The chunks are the training rows, in corpus order, and read only on demand. The validation split is
that of the original table of texts: the one the corpus was made from, or, for generated text, the
one that its prompts come from.
"""

from __future__ import annotations

from dataclasses import replace

from attar.data.config import CorpusData
from attar.data.corpus.published import corpus_of, load_corpus
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView
from attar.data.documents import without_answers
from attar.data.load import load_data
from attar.data.tables import TextData
from attar.step import MadeRows, StepContext
from attar.tasks.table import CAUSAL_LM


def corpus_rows(made: MadeRows, context: StepContext) -> TextData:
    """The chunks of a corpus that a step made: all, or those of one part.

    Raises:
        DataError, ArtifactError: the table of the validation split, or a shard, cannot be read.
    """
    return _with_chunks(made, context, CorpusView(Corpus.open(made.folder), made.part))


def selected_rows(made: MadeRows, context: StepContext) -> TextData:
    """The chunks that a select step kept.

    Raises:
        DataError, ArtifactError: as `corpus_rows`.
    """
    corpus = corpus_of(context, made.step.data)
    return _with_chunks(made, context, CorpusView.of_selection(corpus, made.folder))


def _with_chunks(made: MadeRows, context: StepContext, view: CorpusView) -> TextData:
    config, name = made, ""
    seed = made.seed
    while isinstance(config, MadeRows):
        seed, name = config.seed, config.step.data
        config = context.data[name]
    if isinstance(config, CorpusData):
        data = load_corpus(config, context.recipe_folder, view.name)
        return replace(data, splits={**data.splits, "train": view.split()})
    table = without_answers(config, context.recipe_folder)
    data = load_data(table, context.recipe_folder, name=name, seed=seed, train=False)
    return replace(
        data,
        objective=CAUSAL_LM.name,
        label_names=(),
        metrics=CAUSAL_LM.metrics,
        splits={"train": view.split(), "validation": data.split("validation")},
    )
