"""Studies of tiny models on tiny data, for every test that looks at what one finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import simulated
import tiny

WITHOUT_TEXTS = ("gamma",)
Change = Callable[[Any], None]


@dataclass(frozen=True)
class Studied:
    """What the step `analyze` left behind."""

    metrics: dict[str, Any]
    content: dict[str, Any]
    """study.json."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.content["rows"]

    @property
    def facts(self) -> dict[str, Any]:
        return self.content["facts"]


def run_study(
    root: Path,
    study: str,
    *,
    change: Change | None = None,
    bare: bool = False,
    family: str = "bert",
    **settings: Any,
) -> Studied:
    """Run the real step on a tiny model below `root`, made once and changed by `change`."""
    import torch
    from pydantic import TypeAdapter
    from transformers import AutoModelForSequenceClassification

    from attar.analysis.config import AnalyzeMetrics, AnalyzeStep
    from attar.analysis.run import analyze

    model_folder = root / "float"
    if not model_folder.exists():
        simulated.write_float_model(model_folder, family, bare=bare)
        if bare:
            (model_folder / "task.json").unlink()
        simulated.write_texts(root / "texts")
        if change is not None:
            model = AutoModelForSequenceClassification.from_pretrained(model_folder)
            with torch.no_grad():
                change(model)
            model.save_pretrained(model_folder)
    if study not in WITHOUT_TEXTS:
        calibration = {"examples": 24, "batch_size": 8} | settings.pop("calibration", {})
        settings = {"data": "texts", "calibration": calibration, **settings}
    config = TypeAdapter(AnalyzeStep).validate_python(
        {"run": "analyze", "model": "teacher", "study": study, **settings}
    )
    context = context_below(root)
    metrics: dict[str, Any] = {**analyze(config, context)}
    assert metrics.keys() <= AnalyzeMetrics.__annotations__.keys()
    return Studied(metrics, json.loads((context.folder / "study.json").read_text()))


def context_below(root: Path) -> Any:
    """What the engine would hand to the step, with a new empty folder."""
    from attar.data.config import FilesData
    from attar.progress import Progress
    from attar.step import StepContext

    folder = root / f"study{len(list(root.iterdir()))}"
    folder.mkdir()
    return StepContext(
        name="study",
        folder=folder,
        scratch=root / ".scratch",
        inputs={"teacher": root / "float"},
        data={"texts": FilesData(path=str(root / "texts"))},
        recipe_folder=root,
        progress=Progress(quiet=True),
    )


def vocabulary_for(folder: Path) -> dict[str, int]:
    """Word → its number in the models that `run_study` will make below `folder / "run"`."""
    tiny.write_tokenizer(folder / "tokenizer")
    (folder / "run").mkdir()
    content = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
    return content["model"]["vocab"]


def layer_norms(model: Any) -> list[Any]:
    """Every LayerNorm, in the order of the forward pass."""
    return [module for name, module in model.named_modules() if name.endswith("LayerNorm")]
