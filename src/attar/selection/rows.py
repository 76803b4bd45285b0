"""A corpus, and what was selected of it, where a recipe names data.

The chunks' texts are the training rows, in corpus order; the validation split is that of the table
which the corpus was made of. Rows are held in memory, as those of every table are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from attar.data.corpus.token_store import Corpus
from attar.data.load import load_data
from attar.data.tables import UNLABELLED, Split, TextData
from attar.selection.select import kept_rows
from attar.step import MadeRows, StepContext
from attar.tasks.table import CAUSAL_LM


def corpus_rows(made: MadeRows, context: StepContext) -> TextData:
    """The chunks of a tokenize step, all or those of one part.

    Raises:
        DataError, ArtifactError: the table of the validation split, or a shard, cannot be read.
    """
    rows = None if made.part == "all" else Corpus.open(made.folder).rows_of(made.part)
    return _with_chunks(made, context, rows)


def selected_rows(made: MadeRows, context: StepContext) -> TextData:
    """The chunks that a select step kept.

    Raises:
        DataError, ArtifactError: as `corpus_rows`.
    """
    return _with_chunks(context.data[made.step.data], context, kept_rows(made.folder))


def _with_chunks(
    corpus: MadeRows, context: StepContext, rows: NDArray[np.int64] | None
) -> TextData:
    table = context.data[corpus.step.data]
    data = load_data(table, context.recipe_folder, name=corpus.step.data, seed=corpus.seed)
    texts = tuple((text,) for text in Corpus.open(corpus.folder).texts(rows))
    train = Split(texts, np.full(len(texts), UNLABELLED, np.int64))
    validation = data.split("validation")
    return replace(
        data,
        objective=CAUSAL_LM.name,
        label_names=(),
        metrics=CAUSAL_LM.metrics,
        splits={"train": train, "validation": validation},
    )
