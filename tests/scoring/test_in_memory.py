"""Nats of tokens are those of whole logits, which are never made."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attar.numerics.logits
import tiny
from attar.scoring.in_memory import token_nats
from tensors_made import Largest

B, T, V = 5, 31, 3000
BLOCK = 8
"""Rows: 24,000 logits of 450,000."""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(attar.numerics.logits, "BLOCK_BYTES", BLOCK * 4 * V)
    return tiny.tiny_language_model("gpt2", vocab_size=V)


def test_nats_are_those_of_whole_logits_without_holding_them(model: Any) -> None:
    ids = torch.randint(3, V, (B, T), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        log_p = model(ids).logits[:, :-1].log_softmax(-1)
    wanted = -log_p.gather(2, ids[:, 1:, None])[..., 0]
    with Largest() as seen:
        found = token_nats(model, ids.numpy())
    assert seen.num_bytes <= 4 * V * 32 < 4 * B * (T - 1) * V, "the head's weight is larger"
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-6, atol=1e-6)
