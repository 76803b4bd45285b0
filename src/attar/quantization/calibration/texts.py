"""The texts a model is calibrated on, ready to be run: whoever looks at a model's activations, the
step `quantize` or a study, looks at the same ones.

    seeded choice of training rows → tokens → batches of like length → what a decoder would write

The last arrow is for models with a decoder only: what it would write (`generations`), or the words
by which it names classes (`words`). Without it their decoders would read the article itself,
shifted by one, which no summariser ever does.
"""

from __future__ import annotations

from dataclasses import dataclass

from attar.data.tables import TextData
from attar.data.tokenize import TextEncoder
from attar.models.load import LoadedModel
from attar.quantization.calibration import generations
from attar.quantization.calibration.calibrate import (
    Batch,
    choose_examples,
    length_sorted,
    to_tensors,
)
from attar.quantization.calibration.words import with_label_words
from attar.quantization.config import BATCH_SIZE
from attar.scoring.label_words import LabelWords
from attar.step import StepContext


@dataclass(frozen=True)
class CalibrationTexts:
    """Which rows were chosen, and the rows as batches."""

    batches: list[Batch]
    indices: list[int]
    """Of the train split."""
    seed: int


def calibration_texts(
    loaded: LoadedModel,
    encoder: TextEncoder,
    data: TextData,
    context: StepContext,
    *,
    examples: int,
    batch_size: int | None,
    seed: int | None,
    named: LabelWords | None = None,
) -> CalibrationTexts:
    """Choose `examples` training rows of `data` and make batches of them.

    Args:
        batch_size: None: 32, and 4 for a model that writes text.
        seed: which examples; None: the recipe's seed.
        named: how the model is asked for a class; None: as its task says.
    Raises:
        DataError: fewer training rows than examples, or a row without a text that the model's
            template names.
        StoppedError: the process was asked to stop while the model wrote.
    """
    seed = context.seed if seed is None else seed
    train = data.split("train")
    rows = choose_examples(len(train), examples, seed, data.name)
    named = named or LabelWords.of_task(loaded.model, loaded.folder, loaded.task)
    texts = train.rows(rows).texts
    if named is not None:
        texts = named.render(texts)
    elif loaded.task is not None:
        texts = loaded.task.texts_read(texts)
    encoded = encoder.encode(texts)
    is_writer = loaded.task is not None and loaded.task.kind.writes
    writes_text = is_writer and named is None
    usual = generations.BATCH_SIZE if writes_text else BATCH_SIZE
    numbers = length_sorted(encoded.lengths, batch_size or usual)
    batches = [to_tensors(encoded.batch(batch)) for batch in numbers]
    if named is not None:
        batches = with_label_words(named, loaded.model, batches)
    elif writes_text:
        batches = generations.with_generations(loaded, batches, context)
    return CalibrationTexts(list(batches), rows.tolist(), seed)
