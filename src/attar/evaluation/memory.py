"""Peak memory of a model at inference, measured in a separate process.

A fresh interpreter opens the model, runs it once at each batch size, and reads its peak resident
memory from the kernel.

    peak_rss_mib = peak at the end                 memory needed to serve the model
    model_mib    = peak minus the peak after importing the runtime, before opening the model

    python -P -m attar.evaluation.memory FOLDER --threads 2 --batches 1 8  < texts.json

On Linux, `ru_maxrss` of a child process starts at its *parent's* peak, so VmHWM of
/proc/self/status is read instead. Memory-mapped weights count only after they are accessed, so the
model is run on real token ids.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from attar.artifacts import read_json
from attar.errors import ResourceError
from attar.extras import require
from attar.untrusted import has_entry
from attar.usable_memory import kernel_peak_mib

TIMEOUT_S = 900
"""Much longer than a measurement takes, so that a hanging process does not block the run."""
RUNTIME_IMPORTS = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime",)}
TORCH_IMPORTS = ("torch", "transformers", "safetensors.torch")


@dataclass(frozen=True)
class PeakMemory:
    """Peak resident memory in MiB, and the model's share of it."""

    peak_rss_mib: float
    model_mib: float
    """Peak minus that of the interpreter with the runtime imported."""
    torch_loaded: bool


def peak_memory_mib() -> float:
    """Peak resident memory of this process, in MiB."""
    if (peak := kernel_peak_mib()) is not None:
        return peak
    import resource

    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib


def measure_here(
    folder: Path,
    texts: Sequence[tuple[str, ...]],
    tokens: int,
    batch_sizes: Sequence[int],
    threads: int,
) -> PeakMemory:
    """Open the model in this process and run it once at each batch size. Use a fresh process.

    Args:
        texts: repeated if there are fewer than the batch size.
    """
    from attar.evaluation.inputs import exact_batch
    from attar.scoring.forms import open_form

    for module in _runtime_of(folder):
        require(module, "export")
    before = peak_memory_mib()
    form = open_form(folder, threads)
    for batch in batch_sizes:
        rows = [texts[i % len(texts)] for i in range(batch)]
        inputs = exact_batch(form.folder, form.task, rows, tokens)
        if form.task.kind.writes:
            form.generate(inputs)
        elif form.task.kind.hides_spans:  # the decoder reads as many tokens, as in the FLOP count
            ids = inputs["input_ids"]
            form.nats_of_targets({**inputs, "decoder_input_ids": ids}, ids)
        else:
            form.logits(inputs)
    after = peak_memory_mib()
    return PeakMemory(round(after, 1), round(after - before, 1), "torch" in sys.modules)


def measure_memory(
    folder: Path,
    texts: Sequence[tuple[str, ...]],
    *,
    tokens: int,
    batch_sizes: Sequence[int],
    threads: int,
) -> PeakMemory:
    """Measure the peak memory of one model in a separate process.

    Raises:
        ResourceError: the process died, most likely out of memory; the message has its last output.
    """
    # -P: never import from the working directory, which may be an untrusted model folder
    command = [sys.executable, "-P", "-m", "attar.evaluation.memory", str(folder)]
    command += ["--threads", str(threads), "--tokens", str(tokens)]
    command += ["--batches", *map(str, batch_sizes)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(list(texts)),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIMEOUT_S,
            start_new_session=True,  # Ctrl-C must stop the run, not this process
            env={**os.environ, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": str(threads)},
        )
    except subprocess.TimeoutExpired as error:
        raise ResourceError(f"measuring the memory of {folder} took over {TIMEOUT_S} s") from error
    figures = done.stdout.splitlines()[-1:]
    if done.returncode != 0 or not figures:
        words = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ResourceError(
            f"the process measuring the memory of {folder} ended with {done.returncode} "
            f"({words[0]}); a negative number is a signal, -9 usually means out of memory; set "
            "memory = false to skip this"
        )
    return PeakMemory(**json.loads(figures[0]))


def _runtime_of(folder: Path) -> tuple[str, ...]:
    """Modules of a model's runtime, from `deploy.json`; torch if there is none."""
    file = folder / "deploy.json"
    content = read_json(file) if has_entry(file) else None
    form = content.get("format") if isinstance(content, dict) else None
    return RUNTIME_IMPORTS.get(str(form), TORCH_IMPORTS)


def main() -> None:
    """Measure in this process. Reads texts as JSON from stdin and prints the result as JSON."""
    parser = argparse.ArgumentParser(prog="python -P -m attar.evaluation.memory")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    asked = parser.parse_args()
    texts = [tuple(text) for text in json.load(sys.stdin)]
    found = measure_here(asked.folder, texts, asked.tokens, asked.batches, asked.threads)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
