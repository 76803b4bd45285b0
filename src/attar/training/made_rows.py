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
        labelled: every row needs a label, because no teacher answers.
    Raises:
        UsageError: made rows without labels, and no teacher.
        DataError: the rows were made from others.
    """
    train = data.split("train", labelled=labelled)
    if config.augmentation is None:
        return train
    made = read_augmented(context.inputs[config.augmentation], train, data=data.name)
    if labelled and not made.is_labelled:
        raise UsageError(
            f"{context.name}: the {len(made)} rows of {config.augmentation!r} have no labels, and "
            "no teacher answers for them; name a teacher, or set keep_labels = true in "
            f"{config.augmentation!r}"
        )
    context.progress.say(f"  {context.name}: {len(made)} rows of {config.augmentation} added")
    return joined(train, made)
