"""OpenVINO on a CPU, with the one setting that must never be left to it.

On CPUs with bf16 OpenVINO rounds every float operation to bf16 unless told otherwise. What is float
in our graphs (norms, softmax, a whole float model) is meant to be float32 and is compared with
torch's float32, so the precision hint is pinned. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from attar.errors import ArtifactError
from attar.extras import require
from attar.models.deployed.graph_files import inputs_of, require_one_output


@cache
def the_core() -> Any:
    """The process's one `openvino.Core`, never given back.

    The CPU plugin of a Core gives the main thread an alternate signal stack (AMX needs a large one)
    and puts the former one back when it goes. Of two whose lives overlap, the second puts back a
    stack that the first has freed, and the next signal, such as the SIGTERM that asks a run to save
    itself, kills the process.

    Raises:
        UsageError: OpenVINO is not installed.
    """
    return require("openvino", "export").Core()


def cpu_settings(threads: int) -> dict[str, Any]:
    """Float stays float32; one call at a time gets all the threads."""
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }


class OpenVinoRuntime:
    """A compiled OpenVINO model; `compiled` shows what really runs."""

    def __init__(self, file: Path, threads: int) -> None:
        core = the_core()
        try:
            self.compiled = core.compile_model(core.read_model(file), "CPU", cpu_settings(threads))
            self._names = [port.get_any_name() for port in self.compiled.inputs]
        except Exception as error:  # its Python side adds KeyError and others to RuntimeError
            raise ArtifactError(
                f"OpenVINO cannot open {file} ({_first_line(error)}); export the model again"
            ) from error
        require_one_output(len(self.compiled.outputs), file)
        self._request = self.compiled.create_infer_request()

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits (B, C) of one batch."""
        results = self._request.infer(inputs_of(batch, self._names))
        return np.asarray(results[0], dtype=np.float32)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
