"""The artifacts of a made-up run: what the real steps write, with plausible figures, in
milliseconds.

`write_run` writes the folders of the demo recipe's steps; `recipe` is that recipe as the report is
given it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attar.artifacts import Result, key_of, write_json
from attar.progress import Progress
from attar.report.config import ReportStep
from attar.report.run import report
from attar.step import StepContext

PARAMS = {6: 22_713_216, 3: 17_388_096}
MODELS: dict[str, tuple[str, int, float, float, float, float]] = {
    # form, blocks, accuracy, p50 ms, MiB, peak MiB
    "teacher": ("float", 6, 0.7486, 41.2, 86.7, 412.0),
    "student": ("float", 3, 0.7409, 20.9, 66.4, 371.0),
    "int8": ("simulated", 3, 0.7401, 33.4, 16.8, 398.0),
    "deploy": ("openvino", 3, 0.7391, 6.92, 17.3, 164.0),
    "deploy_ort": ("onnxruntime", 3, 0.7403, 8.11, 17.1, 131.0),
}
STEPS: dict[str, dict[str, Any]] = {
    "teacher": {"run": "train", "model": "demo:minilm-l6", "data": "docs", "epochs": 3},
    "student": {
        "run": "train",
        "model": {"from": "teacher", "keep_blocks": [1, 3, 5]},
        "teacher": "teacher",
        "data": "docs",
        "losses": [{"kind": "forward_kl", "temperature": 2.0}, {"kind": "hidden_mse"}],
    },
    "int8": {"run": "quantize", "model": "student", "method": "percentile"},
    "deploy": {"run": "export", "model": "int8", "format": "openvino"},
    "deploy_ort": {"run": "export", "model": "int8", "format": "onnxruntime"},
    "scores": {"run": "evaluate", "models": list(MODELS), "data": "docs"},
    "report": {"run": "report"},
}
INPUTS = {
    "student": ["teacher"],
    "int8": ["student"],
    "deploy": ["int8"],
    "deploy_ort": ["int8"],
    "scores": list(MODELS),
}
SECONDS = {"teacher": 151.2, "student": 118.4, "int8": 9.7, "deploy": 14.1, "deploy_ort": 11.3}


def recipe(**changes: Any) -> dict[str, Any]:
    """The demo's recipe as plain data."""
    return {
        "name": "demo",
        "seed": 0,
        "data": {"docs": {"source": "stdlib_docs"}},
        "steps": STEPS,
        "gates": [
            {
                "metric": "scores.deploy.accuracy",
                "of": "scores.student.accuracy",
                "max_drop": 0.01,
            },
            {"metric": "scores.deploy.size_mib", "at_most": 16.0},
        ],
    } | changes


def train_metrics(name: str) -> dict[str, Any]:
    return {
        "objective": "classification",
        "num_params": PARAMS[MODELS[name][1]] if name in MODELS else PARAMS[3],
        "steps": 555,
        "epochs": 3.0,
        "best_step": 555,
        "precision": "bf16",
        "train_seconds": SECONDS.get(name, 118.4),
        "examples_per_s": 151.3,
        "validation": {"accuracy": MODELS[name][2] if name in MODELS else 0.74},
        "data": {
            "name": "docs",
            "train_rows": 5921,
            "validation_rows": 1480,
            "set_aside": {"longer than 400 characters": 212, "seen before": 341},
        },
        "losses": [{"kind": "cross_entropy", "weight": 1.0}],
    }


def quantize_metrics() -> dict[str, Any]:
    kinds = ("query", "key", "value", "probabilities", "context", "attention_norm", "ffn_act")
    draw = np.random.default_rng(7)
    sites = {
        f"bert.encoder.layer.{block}.{kind}": {
            "kind": kind,
            "block": block,
            "scale": 0.021,
            "zero_point": 117,
            "quant_min": 0,
            "quant_max": 255,
            "low": -2.4,
            "high": 3.1,
            "sqnr_db": round(float(draw.uniform(22, 44)), 2),
        }
        for block in range(3)
        for kind in kinds
    }
    weights = {
        f"bert.encoder.layer.{block}.attention.self.{part}.weight": {
            "bits": 8,
            "sqnr_db": round(float(draw.uniform(41, 44)), 2),
        }
        for block in range(3)
        for part in ("query", "key", "value")
    }
    return {
        "method": "percentile",
        "weight_bits": 8,
        "activation_bits": 8,
        "embedding_bits": 8,
        "num_sites": len(sites),
        "calibration": {"examples": 256, "batches": 8, "tokens": 8123, "seconds": 7.9},
        "sites": sites,
        "weights": weights,
        "mean_sqnr_db": 33.4,
        "logits_sqnr_db": 24.8,
        "size_mib": 16.8,
    }


def export_metrics(name: str) -> dict[str, Any]:
    reason = "scores of attention stay in float32"
    return {
        "format": MODELS[name][0],
        "parity": {
            "examples": 128,
            "relative_error": 0.31,
            "label_flips": 0.0078,
            "max_relative_error": 1.0,
            "max_label_flips": 0.02,
        },
        "fusion": {
            "num_matmuls": 26,
            "num_int8": 23,
            "float": [{"name": f"/layer.{i}/attention/MatMul", "reason": reason} for i in range(3)],
        },
        "size_mib": MODELS[name][4],
        "num_params": PARAMS[3],
    }


def evaluate_metrics(
    models: Mapping[str, tuple[str, int, float, float, float, float]] = MODELS,
) -> dict[str, Any]:
    figures = {name: _measured(*facts) for name, facts in models.items()}
    names = list(models)
    differences = []
    for name, against in [(n, names[0]) for n in names[1:]] + list(
        zip(names[2:], names[1:], strict=False)
    ):
        change = models[name][2] - models[against][2]
        noise = abs(change) < 0.012
        side = "below" if change < 0 else "above"
        differences.append(
            {
                "model": name,
                "against": against,
                "metric": "accuracy",
                "value": change,
                "ci95": [change - 0.012, change + 0.012],
                "n": 1480,
                "within_noise": noise,
                "sentence": f"{name} is {abs(change) * 100:.1f} points {side} {against} "
                f"(95 % interval {change * 100 - 1.2:.1f} … {change * 100 + 1.2:.1f}, "
                f"n = 1,480): "
                f"{'inside' if noise else 'outside'} the noise.",
            }
        )
    return {
        "data": {
            "name": "docs",
            "split": "validation",
            "rows": 1480,
            "label_names": ["io", "text"],
        },
        "models": figures,
        "differences": differences,
        "machine": {
            "cpu": "An example CPU @ 2.0 GHz",
            "cores": 2,
            "threads": 2,
            "memory_gib": 7.8,
            "isa": ["avx2", "avx512_vnni"],
        },
    }


def _measured(
    form: str, blocks: int, accuracy: float, p50: float, mib: float, peak: float
) -> dict[str, Any]:
    reach = 1.96 * math.sqrt(accuracy * (1 - accuracy) / 1480)
    f1 = accuracy - 0.013
    latency = [
        {
            "p50": p50 * factor,
            "p95": p50 * factor * 1.09,
            "batch": batch,
            "tokens": 128,
            "threads": 2,
            "speedup": {
                "against": "teacher",
                "median": 41.2 / p50,
                "min": 38.0 / p50,
                "max": 44.1 / p50,
                "rounds": 12,
            },
        }
        for batch, factor in ((1, 1.0), (8, 7.4))
    ]
    return {
        "form": form,
        "accuracy": {"value": accuracy, "ci95": [accuracy - reach, accuracy + reach], "n": 1480},
        "f1": {"value": f1, "ci95": [f1 - reach, f1 + reach], "n": 1480},
        "latency_ms": latency[0],
        "latency": latency,
        "size_mib": mib,
        "num_params": PARAMS[blocks],
        "flops": 465_000_000 * blocks,
        "peak_memory_mib": peak,
    }


def write_step(
    out: Path, name: str, run: str, metrics: Mapping[str, Any], *, blocks: int | None = None
) -> Path:
    """One artifact folder, with a history when it is a training step."""
    folder = out / name
    folder.mkdir(parents=True)
    result = Result(
        step=name,
        run=run,
        key=key_of(name),
        inputs=dict.fromkeys(INPUTS.get(name.partition("@")[0], []), "0" * 16),
        seconds=SECONDS.get(name, 61.0),
        peak_rss_mib=1204.0,
        metrics=metrics,
        versions={"attar": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
    )
    write_json(folder / "result.json", dict(result.__dict__))
    if blocks:
        place = folder if run == "export" else folder / "model"
        place.mkdir(exist_ok=True)
        write_json(place / "config.json", {"num_hidden_layers": blocks})
    if run == "train":
        write_history(folder / "history.jsonl", name, seed=int(key_of(name)[:8], 16))
    return folder


def write_history(file: Path, name: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    is_student = name.startswith("student")
    lines: list[dict[str, Any]] = []
    for step in range(5, 556, 5):
        decay = math.exp(-step / 140)
        first = 0.7 + 1.7 * decay + float(draw.normal(0, 0.07))
        second = 0.25 + 0.6 * decay + float(draw.normal(0, 0.02))
        losses = (
            {"forward_kl": first, "hidden_mse": second} if is_student else {"cross_entropy": first}
        )
        lines.append(
            {
                "step": step,
                "epoch": step / 185,
                "loss": sum(losses.values()),
                "learning_rate": 1e-4,
                "grad_norm": 1.2,
                "losses": losses,
            }
        )
        if step in (185, 370, 555):
            accuracy = 0.74 - 0.12 * math.exp(-step / 150) + float(draw.normal(0, 0.004))
            figures = {"accuracy": accuracy, "loss": 0.85 + 0.4 * decay}
            lines.append({"step": step, "epoch": step / 185, "validation": figures})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_run(out: Path) -> dict[str, Path]:
    """All artifacts of the demo's steps: step → folder."""
    metrics = {
        "teacher": train_metrics("teacher"),
        "student": train_metrics("student"),
        "int8": quantize_metrics(),
        "deploy": export_metrics("deploy"),
        "deploy_ort": export_metrics("deploy_ort"),
        "scores": evaluate_metrics(),
    }
    return {
        name: write_step(
            out,
            name,
            STEPS[name]["run"],
            content,
            blocks=MODELS[name][1] if name in MODELS else None,
        )
        for name, content in metrics.items()
    }


def write_sweep(out: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Three seeds of the student and of all that hangs on it, judged by one evaluation."""
    inputs = {"teacher": write_step(out, "teacher", "train", train_metrics("teacher"), blocks=6)}
    models = {"teacher": MODELS["teacher"]}
    for seed, shift in ((0, 0.0), (1, 0.006), (2, -0.004)):
        for base in ("student", "int8", "deploy"):
            name = f"{base}@seed={seed}"
            form, blocks, accuracy, *rest = MODELS[base]
            models[name] = (form, blocks, accuracy + shift, *rest)
            metrics = {
                "student": train_metrics("student"),
                "int8": quantize_metrics(),
                "deploy": export_metrics("deploy"),
            }[base]
            inputs[name] = write_step(out, name, STEPS[base]["run"], metrics, blocks=blocks)
    inputs["scores"] = write_step(out, "scores", "evaluate", evaluate_metrics(models))
    return inputs, recipe(sweep={"steps": ["student"], "seed": [0, 1, 2]}, gates=[])


def context_of(
    folder: Path, inputs: Mapping[str, Path], content: Mapping[str, Any] | None = None
) -> StepContext:
    """What the engine would hand to the report."""
    folder.mkdir(parents=True, exist_ok=True)
    return StepContext(
        name="report",
        folder=folder,
        scratch=folder,
        inputs=inputs,
        data={},
        recipe_folder=folder,
        progress=Progress(quiet=True),
        recipe=recipe() if content is None else content,
    )


def make_report(
    folder: Path, inputs: Mapping[str, Path], content: Mapping[str, Any] | None = None
) -> Path:
    """Run the report step; the page's file."""
    report(ReportStep(), context_of(folder, inputs, content))
    return folder / "index.html"
