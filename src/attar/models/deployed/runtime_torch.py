"""Packed integers in torch: the smallest file, and the simulation as its runtime.

Where no runtime has a kernel, or none is wanted, the artifact of the quantizer is what is deployed:
its integers at 2 to 8 bits, unpacked once, and computed with in floats exactly as they were
measured. Slow; for machines that have torch anyway.

The number of threads is a setting of torch's whole process. It is set for a call and put back
after it, one call at a time, so that two models cannot change it under each other and the caller's
own models keep theirs.

torch's threads are not copied by `os.fork`, and a process made by it waits for them for ever; with
one thread there is nothing to wait for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import numpy as np

from attar.errors import UsageError

_turn = Lock()
"""One for all models, since the setting is the process's."""
_is_forked = False


def _after_fork_in_child() -> None:
    global _is_forked, _turn
    _is_forked = True
    _turn = Lock()  # the parent's may have been taken


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class TorchRuntime:
    """The simulated model of a folder.

    Raises:
        UsageError: several threads in a process that was forked from one that had a torch model.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        if _is_forked and threads > 1:
            raise UsageError(
                f"{folder} runs in torch, which in a forked process can use 1 thread only, asked "
                f"for {threads}; load it with threads=1, or start processes with the method spawn "
                '(multiprocessing.get_context("spawn"))'
            )
        from attar.models.simulated.quantized import load_simulated

        self._threads = threads
        self._model = load_simulated(folder).model

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits (B, C) of one batch."""
        import torch

        with _turn, _threads(self._threads), torch.inference_mode():
            tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
            return np.array(self._model(**tensors).logits.float().numpy())

    def padded(self, tokens: int) -> int:
        return tokens


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads, and as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
