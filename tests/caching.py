"""A cache of a tiny teacher, made by the real step, and students that learn from it.

`python caching.py <folder> [setting=json …]` makes the cache as a process that can be killed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import training_runs

SETTINGS: dict[str, Any] = {
    "teacher": "teacher",
    "data": "films",
    "max_length": 24,
    "batch_size": 8,
    "precision": "fp32",
    "dtype": "fp32",
    "hidden_states": "uniform:2",
}
"""What `training_runs.SETTINGS` needs of a teacher."""
LOSSES = [{"kind": "forward_kl"}, {"kind": "hidden_mse"}]


def prepare(folder: Path) -> Path:
    """Films, the student `bert/` and the teacher `teacher/`, whose classes have names."""
    import tiny

    training_runs.prepare(folder)
    tiny.write_tiny_bert(folder / "teacher", seed=1)
    name_classes(folder / "teacher", ["bad", "good"])
    name_classes(folder / "bert", ["bad", "good"])
    return folder


def name_classes(model: Path, names: list[str]) -> None:
    """Write names into a model's config."""
    config = json.loads((model / "config.json").read_text())
    config["id2label"] = dict(enumerate(names))
    config["label2id"] = {name: i for i, name in enumerate(names)}
    (model / "config.json").write_text(json.dumps(config))


def run_cache(folder: Path, **settings: Any) -> dict[str, Any]:
    """Run the step as the engine would, into `<folder>/cached`; its metrics."""
    import torch

    from attar.training.cache_config import CacheStep
    from attar.training.teaching.cache import cache

    for_context = ("should_stop", "inputs", "recipe_folder", "data_config", "seed", "made")
    surroundings = {k: settings.pop(k) for k in for_context if k in settings}
    context = training_runs.context_for(folder, **surroundings)
    (folder / "cached").mkdir(exist_ok=True)
    (folder / "scratch-cached").mkdir(exist_ok=True)
    context = dataclasses.replace(
        context, name="cached", folder=folder / "cached", scratch=folder / "scratch-cached"
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return cache(CacheStep(**{**SETTINGS, **settings}), context)
    finally:
        torch.set_num_threads(threads)


def contents(cached: Path) -> dict[str, bytes]:
    """Every file of a cache."""
    return {p.relative_to(cached).as_posix(): p.read_bytes() for p in cached.rglob("*.*")}


if __name__ == "__main__":
    from attar.training.teaching import asking

    asking.SAVE_EVERY_S = 0.0  # a tiny cache is done before the first save
    given = dict(argument.split("=", 1) for argument in sys.argv[2:])
    run_cache(Path(sys.argv[1]), **{name: json.loads(value) for name, value in given.items()})
