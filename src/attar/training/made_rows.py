"""The rows a step learns from: the train split, and beside it what an augment step made of it."""

from __future__ import annotations

from attar.data.augmented import joined, read_augmented
from attar.data.tables import Split, TextData
from attar.errors import UsageError
from attar.step import StepContext
from attar.training.config import TrainStep


def rows_to_learn(
    config: TrainStep, context: StepContext, data: TextData, *, labelled: bool
) -> Split:
    """The train split, and behind it the made rows where the step names some.

    Args:
        labelled: every row needs a label, because no teacher answers or a class's word is written.
    Raises:
        UsageError: made rows without labels, where every row needs one.
        DataError: the rows were made from others.
    """
    train = data.split("train", labelled=labelled)
    if config.augmentation is None:
        return train
    made = read_augmented(context.inputs[config.augmentation], train, data=data.name)
    if labelled and not made.is_labelled:
        raise UsageError(
            f"{context.name}: the {len(made)} rows of {config.augmentation!r} have no labels, and "
            "this step needs one for every row: without a teacher to answer for them, and for "
            f"words of classes to be written; set keep_labels = true in {config.augmentation!r}, "
            "or let a teacher judge them for a classifier's head"
        )
    context.progress.say(f"  {context.name}: {len(made)} rows of {config.augmentation} added")
    return joined(train, made)
