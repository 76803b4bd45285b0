"""An observer sees real tokens only, wherever the padding is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attar.progress import Progress
from attar.quantization.calibration.calibrate import TEXTS_KEY, Calibration
from attar.quantization.calibration.observers import SiteStatistics
from attar.quantization.calibration.real_tokens import RealTokens, TokensAt
from attar.step import StepContext

POISON = 1e9
MASKS = {
    "right": [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]],
    "left": [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]],
    "between": [[1, 0, 1, 0, 1], [0, 0, 1, 0, 0]],
}


@pytest.fixture(params=list(MASKS))
def mask(request) -> torch.Tensor:
    return torch.tensor(MASKS[request.param])


def observe(x: torch.Tensor, texts: torch.Tensor) -> SiteStatistics:
    statistics = SiteStatistics()
    statistics.add(TokensAt(RealTokens(texts), "encoder", "encoder").values_of(x))
    return statistics


def test_values_at_padding_are_never_seen(mask):
    x = torch.full((2, 5, 3), POISON)
    real = torch.linspace(-1, 1, 12).reshape(4, 3)
    x[mask > 0] = real
    seen = observe(x, mask)
    assert (seen.mean_low, seen.mean_high) == (-1, 1)
    assert seen.histogram.num_values == 12


def test_probabilities_from_or_to_padding_are_never_seen(mask):
    """Keys at padding have probability 0: not poison, but zeros that would move every quantile."""
    pairs = (mask[:, :, None] * mask[:, None, :]).bool()
    x = torch.where(pairs[:, None], 0.25, POISON).expand(2, 4, 5, 5)
    seen = observe(x, mask)
    assert (seen.mean_low, seen.mean_high) == (0.25, 0.25)
    assert seen.histogram.num_values == 4 * (3 * 3 + 1)


def test_texts_packed_in_a_row_do_not_look_at_each_other():
    texts = torch.tensor([[1, 1, 2, 2, 2, 0]])
    x = torch.full((1, 2, 6, 6), POISON)
    x[:, :, :2, :2], x[:, :, 2:5, 2:5] = 0.5, 0.75
    seen = observe(x, texts)
    assert (seen.mean_low, seen.mean_high) == (0.5, 0.75)
    assert seen.histogram.num_values == 2 * (4 + 9)


def test_pooled_rows_all_count(mask):
    seen = observe(torch.tensor([[1.0, -2.0], [3.0, 4.0]]), mask)
    assert (seen.mean_low, seen.mean_high, seen.histogram.num_values) == (-2, 4, 4)


def test_a_batch_of_padding_alone_adds_nothing():
    seen = observe(torch.full((1, 2, 3), POISON), torch.zeros(1, 2, dtype=torch.int64))
    assert seen.batch_lows == []
    assert seen.histogram.num_values == 0


def test_a_tensor_of_another_shape_than_the_mask_is_refused(mask):
    with pytest.raises(ValueError, match="the batch's mask"):
        observe(torch.zeros(2, 7, 3), mask)


def test_the_error_of_outputs_is_the_mean_square_or_the_kl_from_float_to_quantized() -> None:
    """Of batches of different sizes: every text counts alike."""
    random = torch.Generator().manual_seed(0)
    floats, found = ([torch.randn(n, 3, generator=random) * 2 for n in (5, 2)] for _ in range(2))
    here = Path()
    context = StepContext("int8", here, here, {}, {}, here, Progress(quiet=True))
    known = Calibration([{}, {}], {}, floats, 0.0, context)
    ours, theirs = torch.cat(found).double(), torch.cat(floats).double()
    assert known.error_of(found) == pytest.approx(float((ours - theirs).square().mean()))
    p, q = theirs.softmax(-1), ours.softmax(-1)
    kl = float((p * (p / q).log()).sum(-1).mean())
    assert known.error_of(found, "kl") == pytest.approx(kl)


def test_tokens_of_both_sides_count_and_padding_of_neither() -> None:
    source = torch.tensor([[1, 1, 1], [1, 0, 0]])
    target = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    batch = {"input_ids": source, "attention_mask": source, "decoder_attention_mask": target}
    packed = {"input_ids": source, TEXTS_KEY: torch.tensor([[1, 1, 2], [3, 0, 0]])}
    here = Path()
    context = StepContext("int8", here, here, {}, {}, here, Progress(quiet=True))
    known = Calibration([batch, packed], {}, [], 0.0, context)
    assert (known.num_examples, known.num_tokens) == (4, 4 + 6 + 4)


def test_the_range_of_batches_is_the_mean_of_their_ends():
    statistics = SiteStatistics()
    for low, high in ((-1.0, 2.0), (-3.0, 10.0)):
        statistics.add(torch.tensor([low, high]))
    assert (statistics.mean_low, statistics.mean_high) == (-2, 6)
