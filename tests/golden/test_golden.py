"""Whole recipes on tiny models give the weights and the figures they gave before.

A change of structure must leave every number here alone. A change of mathematics moves some: then
`python tests/golden/test_golden.py` writes the new ones, and the commit says why they moved.

Weights are compared bit for bit on the kind of processor that recorded them (`RECORDED_ON` of the
expectations); elsewhere kernels sum in another order, and figures are compared instead.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
RECIPES = ("classifier", "language")
NOT_REPEATABLE = (
    "seconds",
    "seconds_per_step",
    "per_s",
    "latency",
    "latency_ms",
    "stages",
    "machine",
    "sentence",
    "page_kib",
)
"""What a clock measured, the words about it, and sizes of files that hold names."""
DIGESTED = ("sites", "weights")
"""What the tensors say already."""
SAME_FIGURE = 0.05
"""Of 1 or of the figure, on another kind of processor: six updates of a tiny model drift apart."""


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    wide = " ".join(
        sorted(flag for flag in flags if flag.startswith(("avx512", "amx", "avx_vnni")))
    )
    return f"{platform.machine()}, {model}, {wide}, torch {torch.__version__}"


def _write_inputs(folder: Path, recipe: str) -> None:
    import language_runs
    import tiny
    import training_runs

    training_runs.write_films(folder / "films")
    tiny.write_tiny_bert(folder / "bert")
    if recipe == "language":
        tiny.write_tiny_masked_lm(folder / "masked")
        language_runs.write_running_text(folder / "text")
        language_runs.write_pairs(folder / "pairs")
        language_runs.write_random(folder / "gpt2", "gpt2", objective="causal_lm")
        generation = {"max_new_tokens": 4}
        language_runs.write_random(
            folder / "t5", "t5", objective="text_to_text", generation=generation
        )


def _run(folder: Path, recipe: str) -> dict[str, Any]:
    """What the real command makes of a recipe: step → digest of its tensors, and its figures."""
    import tiny_recipe

    _write_inputs(folder, recipe)
    file = folder / f"{recipe}.toml"
    file.write_text((HERE / file.name).read_text())
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = tiny_recipe.attar("run", file, "--out", folder / "runs", env=one_thread, timeout=280)
    assert done.returncode == 0, done.stderr
    run = folder / "runs" / recipe
    steps = sorted(
        place.parent for place in run.glob("*/result.json") if place.parent.name[0] != "."
    )
    return {step.name: _made(step) for step in steps}


def _made(step: Path) -> dict[str, Any]:
    metrics = json.loads((step / "result.json").read_text())["metrics"]
    found: dict[str, Any] = {"figures": dict(_figures(metrics))}
    if tensors := sorted(step.glob("**/*.safetensors")):
        found["tensors"] = _digest(tensors)
    return found


def _digest(files: list[Path]) -> str:
    """SHA-256 over names, types and bytes of all tensors; where they lie in a file is left out."""
    digest = hashlib.sha256()
    for file in files:
        for name, tensor in sorted(load_file(file).items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _figures(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if not name.endswith(NOT_REPEATABLE) and name not in DIGESTED:
                yield from _figures(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _figures(inner, f"{place}.{index}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_gives_what_it_gave_before(recipe: str, tmp_path: Path) -> None:
    expected = json.loads((HERE / f"{recipe}.json").read_text())
    is_same_processor = expected["recorded_on"] == _processor()
    made = _run(tmp_path, recipe)
    differ: list[str] = []
    for step, before in expected["steps"].items():
        now = made[step]
        if is_same_processor and now.get("tensors") != before.get("tensors"):
            differ.append(f"{step}: other tensors")
        near = 1e-9 if is_same_processor else SAME_FIGURE
        for place, figure in before["figures"].items():
            new = now["figures"].get(place)
            if new is None or not math.isclose(new, figure, rel_tol=near, abs_tol=near):
                differ.append(f"{step}.{place}: {figure} before, {new} now")
    assert not differ, "\n".join(differ)


if __name__ == "__main__":
    import tempfile

    sys.path.insert(0, str(HERE.parent))
    for name in sys.argv[1:] or RECIPES:
        with tempfile.TemporaryDirectory() as scratch:
            recorded = {"recorded_on": _processor(), "steps": _run(Path(scratch), name)}
        (HERE / f"{name}.json").write_text(json.dumps(recorded, indent=1) + "\n")
