"""The three runtimes of an exported model on a CPU. Only the last one imports torch.

*OpenVINO* rounds every float operation to bf16 on CPUs that support it, unless told otherwise. The
float operations of our graphs are compared with torch's float32, so the precision hint is pinned.
Its CPU plugin compiles and keeps kernels for every shape it encounters: 600 text lengths cost a
tiny int8 model 1.7 GiB. So there are few shapes: lengths are padded in steps (`padded`), and rows
are split into powers of two, which reduced this to 51 MiB. (With CPU_RUNTIME_CACHE_CAPACITY, memory
still grew by 250 MiB, and calls took three times as long.)

*Torch* computes with packed integers that are unpacked once to floats, exactly as in the
evaluation. Its number of threads is a setting of the whole process: it is set for a call and
restored after it, one call at a time. Its threads are not copied by `os.fork`, and a forked process
would wait for them forever; with one thread there is nothing to wait for.

Shapes: B texts, T tokens, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from attar.cores import prepare_torch, torch_threads, waiting
from attar.errors import ArtifactError, UsageError
from attar.extras import require
from attar.models.deployed.graph_files import inputs_of, require_one_output

ERRORS_ONLY = 3
"""Log level: hides the warnings of its own optimizer."""


class OnnxRuntime:
    """An ONNX Runtime session; several threads may call it at the same time.

    Args:
        optimized: file to which the optimized graph is written; None: not written.
    """

    def __init__(self, file: Path, threads: int, optimized: Path | None = None) -> None:
        onnxruntime = require("onnxruntime", "onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", str(int(waiting().spins))
        )
        options.log_severity_level = ERRORS_ONLY
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no common base class below Exception
            raise ArtifactError(
                f"ONNX Runtime cannot open {file} ({error}); export the model again"
            ) from error
        self._names = [port.name for port in self._session.get_inputs()]
        require_one_output(len(self._session.get_outputs()), file)

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        result = self._session.run(None, inputs_of(batch, self._names))[0]
        return np.array(result, dtype=np.float32)

    def padded(self, tokens: int) -> int:
        return tokens


SMALLEST_STEP = 16
"""In tokens; shorter texts are padded to a multiple of it."""
_opening = Lock()


def the_core() -> Any:
    """The process's only `openvino.Core`, which is never released.

    The CPU plugin of a Core gives the main thread an alternate signal stack (AMX needs a large one)
    and restores the previous one when it is destroyed. If two Cores exist at the same time, the
    second restores a stack that the first has freed, and the next signal, such as the SIGTERM that
    asks a run to save itself, kills the process.

    Raises:
        UsageError: OpenVINO is not installed.
    """
    with _opening:  # otherwise two threads loading their first models would each create one
        return _core()


@cache
def _core() -> Any:
    return require("openvino", "openvino").Core()


def cpu_settings(threads: int) -> dict[str, Any]:
    """Settings for float32 without rounding, and all threads for one call at a time.

    Threads are not pinned to cores if cores are shared: a pinned thread would wait for other
    processes on its core.
    """
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        **({} if waiting().spins else {"ENABLE_CPU_PINNING": False}),
    }


class OpenVinoRuntime:
    """A compiled OpenVINO model; `compiled` shows the graph that is executed.

    An infer request can serve only one caller at a time: a second caller would get an error, or the
    first one's results. One request behind a lock serves all threads: with one stream (which gives
    a single caller all cores), the requests of a pool would wait for each other too, each with its
    own memory.

    Args:
        max_length: number of tokens of the longest text; None: unknown, and not checked.
    """

    def __init__(self, file: Path, threads: int, max_length: int | None = None) -> None:
        core = the_core()
        try:
            model = core.read_model(file)
            if max_length is not None:
                _require_length(model, max_length, file)
            self.compiled = core.compile_model(model, "CPU", cpu_settings(threads))
            self._names = [port.get_any_name() for port in self.compiled.inputs]
        except ArtifactError:
            raise
        except Exception as error:  # its Python API raises KeyError and others besides RuntimeError
            raise ArtifactError(
                f"OpenVINO cannot open {file} ({_first_line(error)}); export the model again"
            ) from error
        require_one_output(len(self.compiled.outputs), file)
        self._request = self.compiled.create_infer_request()
        self._turn = Lock()

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        inputs = inputs_of(batch, self._names)
        parts = [self._infer(inputs, rows) for rows in powers_of_two(len(inputs[self._names[0]]))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _infer(self, inputs: Mapping[str, np.ndarray], rows: slice) -> np.ndarray:
        some = {name: values[rows] for name, values in inputs.items()}
        with self._turn:
            # copied before the next caller's turn
            return np.array(self._request.infer(some)[0], dtype=np.float32)

    def padded(self, tokens: int) -> int:
        return next_step(tokens)


def _require_length(model: Any, tokens: int, file: Path) -> None:
    """Raise if a graph cannot process texts of this length.

    If a tensor of T rows is added to a table with fewer, compiled kernels check nothing: they
    return an empty result and write out of bounds, and the process crashes in a later call. With
    fixed shapes, the graph's own shape inference detects this in advance.
    """
    fixed = model.clone()
    try:
        fixed.reshape({port.get_any_name(): [1, tokens] for port in fixed.inputs})
    except Exception as error:
        raise ArtifactError(
            f"{file} takes no texts of {tokens} tokens, which is max_length in task.json "
            f"({_first_line(error)}); export the model again"
        ) from error


def next_step(tokens: int) -> int:
    """The next length for which kernels are compiled: multiples of 16 up to 64, then two per
    doubling.

    Example:
        >>> [next_step(tokens) for tokens in (5, 17, 65, 300, 512)]
        [16, 32, 96, 384, 512]
    """
    step = SMALLEST_STEP
    while step * 4 < tokens:
        step *= 2
    return -(-tokens // step) * step


def powers_of_two(count: int) -> Iterator[slice]:
    """Split `count` rows into the fewest parts whose sizes are powers of two, largest first.

    Example:
        >>> [(part.start, part.stop) for part in powers_of_two(13)]
        [(0, 8), (8, 12), (12, 13)]
    """
    start = 0
    while start < count:
        size = 1 << ((count - start).bit_length() - 1)
        yield slice(start, start + size)
        start += size


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


_turn = Lock()
"""One lock for all models, because the number of threads is a setting of the process."""
_is_forked = False


def _after_fork_in_child() -> None:
    global _is_forked, _turn
    _is_forked = True
    _turn = Lock()  # the parent's lock may have been held


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class TorchRuntime:
    """The simulated model of a folder.

    Raises:
        UsageError: several threads are requested in a process forked from one that had a torch
            model.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        if _is_forked and threads > 1:
            raise UsageError(
                f"{folder} runs in torch, which can only use 1 thread in a forked process, got "
                f"threads={threads}; load it with threads=1, or start processes with the method "
                'spawn (multiprocessing.get_context("spawn"))'
            )
        prepare_torch()
        from attar.models.simulated.quantized import load_simulated

        self._threads = threads
        self._model = load_simulated(folder).model

    def logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        import torch

        from attar.models.heads import logits_in

        with _turn, torch_threads(self._threads), torch.inference_mode():
            tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
            logits = logits_in(self._model(**tensors))
            assert logits is not None, "a model without a head is refused"
            return np.array(logits.float().numpy())

    def padded(self, tokens: int) -> int:
        return tokens
