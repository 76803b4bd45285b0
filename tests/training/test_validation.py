"""Validation sees every row once, without dropout, and leaves the model as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from attar.data.tables import Split
from attar.data.tokenize import TextEncoder
from attar.models.load import LoadedModel, input_names_of, load_model
from attar.numerics.metrics import METRICS
from attar.training.objectives.examples import Validation
from attar.training.objectives.labelled import LabelledTexts

TEXTS = tuple((f"a good film {'and great ' * (i % 5)} {chr(97 + i)}",) for i in range(23))
LABELS = np.arange(23) % 2


@pytest.fixture
def loaded(tiny_bert: Path) -> LoadedModel:
    return load_model(tiny_bert)


def examples_for(loaded: LoadedModel) -> LabelledTexts:
    names = input_names_of(loaded.model.config)
    encoder = TextEncoder.from_folder(loaded.folder, 32, names)
    return LabelledTexts.of(Split(TEXTS, LABELS), encoder)


def balance_(loaded: LoadedModel, examples: LabelledTexts) -> None:
    """Shift the head's bias so that half of the rows are predicted to be of each class."""
    inputs, _ = examples.batch(np.arange(len(examples)), torch.device("cpu"))
    with torch.no_grad():
        logits_NC = loaded.model(**inputs).logits
        gaps = (logits_NC[:, 1] - logits_NC[:, 0]).sort().values
        middle = gaps[10:12].mean()  # between two rows, so that none of them is a tie
        loaded.model.get_parameter("classifier.bias")[0] += middle


def test_metrics_and_loss_are_those_of_one_row_at_a_time(loaded: LoadedModel) -> None:
    examples = examples_for(loaded)
    balance_(loaded, examples)
    found = examples.validate(Validation(loaded.model, ("matthews",), 4))
    logits = []
    with torch.no_grad():
        for row in range(len(TEXTS)):
            inputs, _ = examples.batch(np.array([row]), torch.device("cpu"))
            logits.append(loaded.model(**inputs).logits[0])
    logits_NC = torch.stack(logits)
    expected = METRICS["matthews"](logits_NC.argmax(-1).numpy(), LABELS)
    assert expected != 0, "the test needs predictions that vary"
    loss = torch.nn.functional.cross_entropy(logits_NC, torch.from_numpy(LABELS)).item()
    assert found == {"matthews": pytest.approx(expected), "loss": pytest.approx(loss, rel=1e-5)}


def test_validation_has_no_dropout_and_gives_the_train_mode_back(loaded: LoadedModel) -> None:
    examples = examples_for(loaded)
    calm = examples.validate(Validation(loaded.model.eval(), ("accuracy",), 4))
    assert not loaded.model.training
    assert examples.validate(Validation(loaded.model.train(), ("accuracy",), 4)) == calm
    assert loaded.model.training


class NoDoubleOnTheDevice(TorchFunctionMode):
    """float64 only of tensors that were brought to the CPU before: Apple's GPU has none."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        found = func(*args, **(kwargs or {}))
        if func is torch.Tensor.cpu:
            found.was_brought_to_the_cpu = True
        if getattr(found, "dtype", None) == torch.float64:
            assert any(getattr(arg, "dtype", None) == torch.float64 for arg in args) or getattr(
                args[0], "was_brought_to_the_cpu", False
            ), f"{func} makes float64 on the device"
        return found


def test_no_float64_is_made_on_the_device(loaded: LoadedModel) -> None:
    with NoDoubleOnTheDevice():
        examples_for(loaded).validate(Validation(loaded.model, ("accuracy",), 4))


def test_an_interrupted_validation_gives_the_train_mode_back(loaded: LoadedModel) -> None:
    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examples_for(loaded).validate(Validation(loaded.model.train(), ("accuracy",), 4, stop))
    assert loaded.model.training
