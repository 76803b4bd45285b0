"""Recipes of UCB/EECS-2023-141 have the settings that its tables print."""

from __future__ import annotations

from pathlib import Path

import pytest

from attar.recipe.load import load_recipe

BEST = {
    **{("near", "mini"): (0.1, 3), ("far", "mini"): (0.9, 4)},
    **{("near", "tiny"): (0.1, 2), ("far", "tiny"): (0.9, 4)},
}
"""Teacher and student → alpha and T, table 4.6."""


def test_table_4_6_weighs_labels_by_alpha_and_the_teacher_by_the_rest(repository: Path) -> None:
    file = repository / "recipes" / "small_t5" / "table_4_6_nano.toml"
    steps = {name: step.model_dump() for name, step in load_recipe(file).steps.items()}
    for (teacher, student), (alpha, temperature) in BEST.items():
        step = steps[f"{teacher}_to_{student}"]
        labels, taught = step["losses"]
        assert (step["teacher"], step["model"]) == (teacher, f"{student}_pretrained")
        assert (labels["kind"], labels["weight"]) == ("cross_entropy", alpha)
        assert taught["kind"] == "soft_cross_entropy"
        assert taught["weight"] == pytest.approx(1 - alpha)
        assert taught["temperature"] == temperature
        # a baseline differs by its teacher and losses alone
        same = {**step, "teacher": None, "losses": ()}
        assert same == {**steps[student], "losses": ()}
