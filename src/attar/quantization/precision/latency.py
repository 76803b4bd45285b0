"""Measured latency of Linear layers on this CPU, in float and in int8.

Both runtimes compute matrix products in int8 or float only, and smaller widths run as int8, so time
depends only on whether input and weight of a Linear are both quantized. Every distinct Linear shape
is timed both ways in OpenVINO, interleaved with the whole float model:

    predicted(plan) = rest + Σ over Linears of its int8 or float milliseconds
    rest            = whole float model − Σ over Linears of their float milliseconds

Each timed graph has `COPIES` Linears with separate weights on one quantized input. A single weight
would stay in the cache, unlike in a model, and the call overhead would be counted for each Linear.
The graphs are interleaved, and the median of each over `ROUNDS` rounds is used.

The prediction does not model quantize operations that are not fused into their neighbour, nor cache
effects of the whole model (compared in benchmarks/latency_budget.py).
Left out: batches larger than one text, and ONNX Runtime, which ranks the shapes in the same order.
Shape letters: T tokens, O and I out and in features.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from attar.cores import usable_cores
from attar.errors import UsageError
from attar.extras import require
from attar.models.deployed.cpu_runtimes import cpu_settings, the_core
from attar.models.deployed.silent_conversion import nothing_reported
from attar.models.load import quiet_transformers
from attar.models.structure.families import max_tokens_of
from attar.models.structure.ports import inserted
from attar.models.structure.sites import Site
from attar.step import StepContext

TOKENS = 128
"""Tokens of the text that is timed, as in all latencies of attar."""
ROUNDS = 15
CALLS = 3
"""Timed calls per turn, after one warm-up call."""
COPIES = 6

Shape = tuple[int, int, int]
"""(T, I, O)."""


@dataclass(frozen=True)
class Group:
    """Linears that read the same site: all run in int8, or all in float."""

    site: Site
    linears: tuple[str, ...]
    """Names of their weights."""
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Latencies:
    """Measured latencies, in milliseconds."""

    rest_ms: float
    model_ms: float
    """The whole float model."""
    float_ms: Mapping[Shape, float]
    int8_ms: Mapping[Shape, float]

    def group_ms(self, group: Group, *, is_int8: bool) -> float:
        times = self.int8_ms if is_int8 else self.float_ms
        return sum(times[shape] for shape in group.shapes)

    def as_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "tokens": shape[0],
                "in_features": shape[1],
                "out_features": shape[2],
                "float_ms": round(self.float_ms[shape], 5),
                "int8_ms": round(self.int8_ms[shape], 5),
            }
            for shape in self.float_ms
        ]


class _Recorder(nn.Module):
    """Identity module that records the tensors at a site."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x


def groups_of(
    model: PreTrainedModel, sites: Sequence[Site], inputs: Mapping[str, Tensor]
) -> list[Group]:
    """Find which Linears read which site by running the model once: a Linear reads a site if its
    input has the same memory as the site's tensor.

    Args:
        inputs: one text of `TOKENS` tokens.
    """
    recorders = {site: _Recorder() for site in sites}
    read: list[tuple[str, nn.Linear, Tensor]] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            assert isinstance(module, nn.Linear)
            read.append((f"{name}.weight", module, args[0]))

        return hook

    with torch.inference_mode(), inserted(model, recorders):
        linears = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
        handles = [module.register_forward_pre_hook(note(name)) for name, module in linears]
        try:
            model(**inputs)
        finally:
            for handle in handles:
                handle.remove()
    found: dict[Site, list[tuple[str, Shape]]] = {}
    for name, linear, x in read:
        site = next((s for s, r in recorders.items() if any(_is_same(x, y) for y in r.seen)), None)
        if site is not None:
            tokens = x.numel() // linear.in_features
            shape = (tokens, linear.in_features, linear.out_features)
            found.setdefault(site, []).append((name, shape))
    return [
        Group(site, tuple(n for n, _ in readers), tuple(shape for _, shape in readers))
        for site, readers in found.items()
    ]


def _is_same(x: Tensor, y: Tensor) -> bool:
    return x.data_ptr() == y.data_ptr() and x.shape == y.shape


def one_text(model: PreTrainedModel, input_names: Sequence[str]) -> dict[str, Tensor]:
    """One text of `TOKENS` tokens, or of the model's maximum length if that is smaller."""
    tokens = min(TOKENS, max_tokens_of(model.config) or TOKENS)
    every = {
        "input_ids": torch.arange(tokens)[None] % (model.config.vocab_size - 5) + 4,
        "attention_mask": torch.ones(1, tokens, dtype=torch.int64),
        "token_type_ids": torch.zeros(1, tokens, dtype=torch.int64),
    }
    return {name: every[name] for name in input_names}


def measure_latencies(
    model: PreTrainedModel,
    groups: Sequence[Group],
    inputs: Mapping[str, Tensor],
    context: StepContext,
    threads: int | None = None,
) -> Latencies:
    """Time the float model and every distinct Linear shape of `groups`, interleaved.

    Raises:
        UsageError: OpenVINO is not installed, or cannot read the model.
    """
    openvino = require("openvino", "export")
    core = the_core()
    settings = cpu_settings(threads or usable_cores())
    shapes = list(dict.fromkeys(shape for group in groups for shape in group.shapes))

    def ready(graph: Any, feed: Sequence[np.ndarray]) -> Callable[[], object]:
        request = core.compile_model(graph, "CPU", settings).create_infer_request()
        return lambda: request.infer(list(feed))

    calls: dict[Any, Callable[[], object]] = {}
    arrays = [tensor.numpy() for tensor in inputs.values()]
    calls["model"] = ready(_float_graph(openvino, model, inputs), arrays)
    for shape in shapes:
        x = np.random.default_rng(0).standard_normal((1, *shape[:2]), dtype=np.float32)
        for is_int8 in (False, True):
            calls[shape, is_int8] = ready(_linear_graph(openvino, shape, is_int8), [x])
    medians = _medians(calls, context)
    times = [
        {shape: medians[shape, is_int8] / COPIES for shape in shapes} for is_int8 in (False, True)
    ]
    counted = [shape for group in groups for shape in group.shapes]
    return assembled(medians["model"], times[0], times[1], counted)


def assembled(
    model_ms: float,
    float_ms: Mapping[Shape, float],
    int8_ms: Mapping[Shape, float],
    counted: Sequence[Shape],
) -> Latencies:
    """Compute the latency of the rest of the model, without its Linears.

    On a busy machine or with cold caches, the Linears alone can sum up to more than the whole
    model. Then the rest is 0, and all times of Linears are scaled down by the same factor, so that
    the prediction for the float model always equals its measured latency.

    Args:
        counted: the shape of every Linear of the model.
    """
    linears_ms = sum(float_ms[shape] for shape in counted)
    share = min(1.0, model_ms / linears_ms)
    shrunk = [{shape: ms * share for shape, ms in each.items()} for each in (float_ms, int8_ms)]
    return Latencies(model_ms - share * linears_ms, model_ms, shrunk[0], shrunk[1])


def _medians(calls: Mapping[Any, Callable[[], object]], context: StepContext) -> dict[Any, float]:
    """Median milliseconds of every call. Calls are interleaved, so that other load affects all of
    them equally."""
    times: dict[Any, list[float]] = {name: [] for name in calls}
    with context.progress.task("latency of Linears", ROUNDS) as task:
        for _ in range(ROUNDS):
            context.stop_if_asked("timing")
            for name, call in calls.items():
                call()
                for _ in range(CALLS):
                    start = time.perf_counter()
                    call()
                    times[name].append((time.perf_counter() - start) * 1e3)
            task.advance()
    return {name: float(np.median(found)) for name, found in times.items()}


def _linear_graph(openvino: Any, shape: Shape, is_int8: bool) -> Any:
    """`COPIES` Linears on one input, in the form of the exported model: u8 × i8, or float."""
    ops = openvino.opset13
    tokens, columns, rows = shape
    draw = np.random.default_rng(0)
    x = ops.parameter([1, tokens, columns], np.float32)
    quantized = x
    if is_int8:
        ends = [np.float32(end) for end in (-4.0, 4.0, -4.0, 4.0)]
        quantized = ops.fake_quantize(x, *ends, 256)
    results = []
    for _ in range(COPIES):
        if is_int8:
            integers = ops.constant(draw.integers(-127, 128, (rows, columns), dtype=np.int8))
            scale = ops.constant(np.full((rows, 1), 1e-3, dtype=np.float32))
            weight = ops.multiply(ops.convert(integers, np.float32), scale)
        else:
            weight = ops.constant(draw.standard_normal((rows, columns), dtype=np.float32))
        product = ops.matmul(quantized, weight, False, True)
        bias = ops.constant(np.zeros((1, 1, rows), dtype=np.float32))
        results.append(ops.result(ops.add(product, bias)))
    return openvino.Model(results, [x], "linears")


class _Logits(nn.Module):
    """The float model with an additive padding mask computed first, as in the exported model."""

    def __init__(self, model: PreTrainedModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        inputs = dict(zip(self.names, tensors, strict=True))
        mask = inputs["attention_mask"][:, None, None, :].to(torch.float32)
        inputs["attention_mask"] = (1.0 - mask) * torch.finfo(torch.float32).min
        return self.model(**inputs).logits


def _float_graph(openvino: Any, model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Any:
    """Convert the float model to OpenVINO."""
    wrapped = _Logits(model, list(inputs)).eval()
    try:
        with (
            warnings.catch_warnings(),
            quiet_transformers(),
            torch.inference_mode(),
            nothing_reported(),
        ):
            warnings.simplefilter("ignore")  # tracer warnings about shapes, which are constant here
            return openvino.convert_model(wrapped, example_input=tuple(inputs.values()))
    except RuntimeError as error:
        raise UsageError(
            f"OpenVINO cannot convert the float model ({str(error).splitlines()[0]}), so its "
            "latency cannot be measured; budget max_latency_ms is for encoder classifiers, use "
            "average_bits or max_accuracy_drop"
        ) from error
