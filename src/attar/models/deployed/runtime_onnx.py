"""ONNX Runtime on a CPU. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from attar.errors import ArtifactError
from attar.extras import require
from attar.models.deployed.graph_files import inputs_of, require_one_output

ERRORS_ONLY = 3
"""Log level: warnings about its own optimizer are no concern of a user's."""


class OnnxRuntime:
    """An ONNX Runtime session, whose `run` may be called by several threads at once.

    Args:
        optimized: where to write the graph that really runs; None: nowhere.
    """

    def __init__(self, file: Path, threads: int, optimized: Path | None = None) -> None:
        onnxruntime = require("onnxruntime", "export")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no class below Exception
            raise ArtifactError(
                f"ONNX Runtime cannot open {file} ({error}); export the model again"
            ) from error
        self._names = [port.name for port in self._session.get_inputs()]
        require_one_output(len(self._session.get_outputs()), file)

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits (B, C) of one batch."""
        result = self._session.run(None, inputs_of(batch, self._names))[0]
        return np.array(result, dtype=np.float32)

    def padded(self, tokens: int) -> int:
        return tokens
