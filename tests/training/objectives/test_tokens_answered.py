"""What is learned of tags and of parts of texts: the right tokens, once, whatever the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import finding_run
import tiny
from attar.data.config import FilesData
from attar.data.load import load_data
from attar.data.tables import Marks, Split, TextData
from attar.data.windows import NOWHERE, WindowEncoder
from attar.losses.config import CrossEntropy, ForwardKl
from attar.losses.targets import UNLABELLED
from attar.losses.term import Needs
from attar.losses.total import TotalLoss
from attar.tasks.task import Task
from attar.training.forward import forward
from attar.training.objectives.quoted import QuotedTexts
from attar.training.objectives.tagged import TaggedTexts

CPU = torch.device("cpu")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
KINDS = ("token_classification", "question_answering")


def ready(folder: Path, objective: str) -> tuple[TextData, Any, Any]:
    """Data, its training rows as examples, and a random model for them."""
    tiny.write_tokenizer(folder)
    is_tagged = objective == KINDS[0]
    write = finding_run.write_things if is_tagged else finding_run.write_asked
    write(folder / "rows", train=20, validation=4)
    data = load_data(FilesData(path="rows", objective=objective), folder, name="rows")
    task = Task(
        objective=objective, label_names=data.label_names, max_length=24, input_names=INPUTS
    )
    encoder, split = WindowEncoder(folder, task), data.split("train")
    head = "TokenClassification" if is_tagged else "QuestionAnswering"
    sizes = {"vocab_size": 120, "num_labels": task.num_labels, "pad_token_id": 0}
    model = tiny.tiny_model("bert", head=head, **sizes)
    if is_tagged:
        return data, TaggedTexts.of(split, data.label_names, encoder), model
    return data, QuotedTexts.of(split, encoder), model


def test_each_word_of_a_text_has_one_label_at_its_first_token(tmp_path: Path) -> None:
    data, examples, _ = ready(tmp_path, KINDS[0])
    split = data.split("train")
    assert len(examples) > len(split)  # some texts are several windows
    words = sum(len(row.words or ()) for row in split.marks or () if row is not None)
    rows = np.arange(len(examples))
    assert examples.counts(rows)["labelled"] == words == (examples.labels != UNLABELLED).sum()
    _, targets = examples.batch(rows, CPU)
    assert int((targets.labels != UNLABELLED).sum()) == words
    marked = sum(len(row.marks) for row in split.marks or () if row is not None)
    begun = [name.startswith("B-") for name in data.label_names]
    assert sum(begun[i] for i in examples.labels[examples.labels >= 0]) == marked


def test_a_window_points_at_its_answer_or_at_its_first_token(tmp_path: Path) -> None:
    data, examples, _ = ready(tmp_path, KINDS[1])
    split, windows = data.split("train"), examples.rows.windows
    seen = set()
    for window, (first, last) in enumerate(examples.labels.tolist()):
        row, begin = int(windows.rows[window]), int(windows.encoded.starts[window])
        if (first, last) == (0, 0):
            continue
        seen.add(row)
        found = split.texts[row][1][windows.begins[begin + first] : windows.ends[begin + last]]
        assert found == examples.golds[row][0]
    assert seen == {row for row, golds in enumerate(examples.golds) if golds}


def test_an_answer_that_a_window_has_in_part_is_not_in_it(tmp_path: Path) -> None:
    """Three words from each place of a text in several windows."""
    tiny.write_tokenizer(tmp_path)
    task = Task(objective=KINDS[1], max_length=15, window_overlap=3, input_names=INPUTS)
    text = " ".join(["film", "list", "read", "open", "close", "write", "bad"] * 3)
    begins = [at for at in range(len(text)) if at == 0 or text[at - 1] == " "]
    ends = [at for at in range(1, len(text) + 1) if text[at : at + 1] in (" ", "")]
    answers = list(zip(begins, ends[2:], strict=False))
    marks = tuple(Marks(((*answer, ""),)) for answer in answers)
    split = Split((("list", text),) * len(marks), np.zeros(len(marks)), marks=marks)
    examples = QuotedTexts.of(split, WindowEncoder(tmp_path, task))
    windows = examples.rows.windows
    assert len(windows) > 2 * len(split)
    for window, (first, last) in enumerate(examples.labels.tolist()):
        begin, end = answers[windows.rows[window]]
        whole = slice(*windows.encoded.starts[window : window + 2])
        inside = windows.begins[whole] != NOWHERE
        is_whole = windows.begins[whole][inside][0] <= begin <= end <= windows.ends[whole].max()
        assert (first > 0) == is_whole
        if is_whole:
            assert (windows.begins[whole][first], windows.ends[whole][last]) == (begin, end)


@pytest.mark.parametrize("objective", KINDS)
def test_the_loss_of_a_batch_is_that_of_its_parts(tmp_path: Path, objective: str) -> None:
    """With other padding, and so with other numbers of classes where places are classes."""
    _, examples, model = ready(tmp_path, objective)
    loss = TotalLoss([CrossEntropy()], objective)
    rows = np.arange(8)
    counts = examples.counts(rows)

    def of(some: np.ndarray) -> torch.Tensor:
        inputs, targets = examples.batch(some, CPU)
        with torch.no_grad():
            return loss(forward(model, inputs, Needs()), None, targets, counts).total

    order = rows[np.argsort(examples.lengths[rows])]
    torch.testing.assert_close(of(rows), of(order[:3]) + of(order[3:]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", KINDS)
def test_forward_kl_is_zero_where_student_and_teacher_agree_and_not_where_they_differ(
    tmp_path: Path, objective: str
) -> None:
    _, examples, model = ready(tmp_path, objective)
    loss = TotalLoss([ForwardKl(temperature=2.0)], objective)
    rows = np.arange(6)
    inputs, targets = examples.batch(rows, CPU)
    counts = examples.counts(rows)
    with torch.no_grad():
        own = forward(model, inputs, Needs())
        same = loss(own, own, targets, counts).total
        assert isinstance(own.logits, torch.Tensor)
        noise = torch.where(own.logits > -1e8, torch.randn_like(own.logits), 0)
        other = type(own)(own.logits + noise)
        apart = loss(other, own, targets, counts).total
    assert float(same) == pytest.approx(0.0, abs=1e-6)
    assert 1e-3 < float(apart) < 1e3
