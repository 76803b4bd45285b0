"""Packed integers in torch: the smallest file, and the simulation as its runtime.

Where no runtime has a kernel, or none is wanted, the artifact of the quantizer is what is deployed:
its integers at 2 to 8 bits, unpacked once, and computed with in floats exactly as they were
measured. Slow; for machines that have torch anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np


class TorchRuntime:
    """The simulated model of a folder."""

    def __init__(self, folder: Path, threads: int) -> None:
        from attar.models.simulated.quantized import load_simulated

        self._threads = threads
        self._model = load_simulated(folder).model

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits (B, C) of one batch."""
        import torch

        if torch.get_num_threads() != self._threads:
            # a setting of the whole process: the caller's other models may want another number
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
            return self._model(**tensors).logits.float().numpy()
