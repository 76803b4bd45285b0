"""The published sizes come out, and what is counted is what lies on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from attar.analysis.studies.sizes import FLOAT_WIDTH, PUBLISHED, packed_bytes
from attar.models.load import load_model
from attar.models.simulated.qparams import WEIGHTS_FILE
from simulated import run_quantize
from studied import run_study

LAST_DIGIT_MIB = 0.06
"""Published to one decimal, partly cut rather than rounded."""


def test_every_published_size_is_reproduced_without_scales(tmp_path: Path) -> None:
    rows = [row for row in run_study(tmp_path, "sizes").rows if row["model"] in PUBLISHED]
    assert len(rows) == 6 * len(PUBLISHED)
    for row in rows:
        assert row["packed_mib"] == pytest.approx(row["published_mib"], abs=LAST_DIGIT_MIB), row
        has_scales = row["width"] != FLOAT_WIDTH
        assert (row["size_mib"] > row["packed_mib"]) == has_scales


@pytest.mark.parametrize(("weights", "embeddings"), [(8, 8), (4, 8), (3, 2)])
def test_the_counted_bytes_are_those_of_the_file(
    tmp_path: Path, weights: int, embeddings: int
) -> None:
    step = run_quantize(tmp_path, weight_bits=weights, embedding_bits=embeddings)
    with safe_open(step.folder / WEIGHTS_FILE, framework="pt") as file:
        stored = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    model = load_model(step.float_folder).model
    assert sum(packed_bytes(model, f"{weights}-{embeddings}-8")) == stored


def test_activations_take_no_space_and_fewer_bits_take_less(tmp_path: Path) -> None:
    sizes = run_study(tmp_path, "sizes").metrics["size_mib"]
    assert sizes["4-4-8"] == sizes["4-4-4"]
    falling = [sizes[width] for width in (FLOAT_WIDTH, "8-8-8", "6-6-6", "4-4-4", "2-2-4")]
    assert falling == sorted(falling, reverse=True)
    assert len(set(falling)) == len(falling)
