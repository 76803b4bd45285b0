"""attar's W8A8 against the runtimes' own static int8: same model, same calibration rows.

    python benchmarks/peers_int8.py MODEL --task sst2 --data FOLDER
    python benchmarks/peers_int8.py MODEL --task sst2 --data FOLDER --seeds 0 1 2 \
        --runtimes openvino --methods auto 'auto, int8 scores'
    python benchmarks/peers_int8.py MODEL --data FOLDER --trial

MODEL is the folder of a train step (or its model folder). Every entrant gets the same float model
and the same texts of the train split, and answers the whole validation split. With several seeds
each is calibrated on as many choices of texts; accuracy and agreement are then means with smallest
and largest, and the first choice is timed. Latencies take turns, so a busy moment hits all alike; a
ratio is the median of the ratios of the rounds. A trial is as small as it can be and writes no
page.

NNCF is no dependency of attar. Where it is not importable its row is left out with a word; to add
it

    pip install --no-deps --target FOLDER \
        nncf==3.4.0 'networkx<3.7' 'ninja<1.14' 'pydot<4.1' tabulate psutil
    PYTHONPATH=FOLDER python benchmarks/peers_int8.py …
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from attar.cores import usable_cores
from attar.data.config import GlueData
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.export.config import ExportStep, Parity
from attar.export.onnxruntime import write_onnx
from attar.export.openvino import write_openvino
from attar.export.run import export
from attar.models.deployed.cpu import needs_unsigned_weights
from attar.models.deployed.cpu_runtimes import OnnxRuntime, OpenVinoRuntime, the_core
from attar.models.deployed.runtimes import MODEL_FILES, model_size_mib
from attar.models.foreign import task_of
from attar.models.sources.references import find_model_folder
from attar.progress import Progress
from attar.quantization.calibration.calibrate import choose_examples
from attar.quantization.config import QuantizeStep
from attar.quantization.run import quantize
from attar.step import StepContext
from record import table, write_page

METHODS: Mapping[str, dict[str, Any]] = {
    "minmax": {"method": "minmax"},
    "percentile": {"method": "percentile"},
    "outlier_suppression without its fine stage": {
        "method": "outlier_suppression",
        "refine": False,
    },
    "auto": {"method": "auto"},
    "percentile, int8 scores": {"method": "percentile", "query_key_grids": "symmetric"},
    "auto, int8 scores": {"method": "auto", "query_key_grids": "symmetric"},
}
"""attar's entrants: name → settings. The paper's fine stage is not run: at 8 bits it has nothing to
mend. With symmetric queries and keys OpenVINO multiplies them in int8; ONNX Runtime is not given
them."""
TRIAL = {"examples": 32, "rows": 64, "rounds": 1, "seeds": [0, 1], "dry": True}
RUNTIMES = ("openvino", "onnxruntime")
SHAPES = ((1, 128), (8, 128))
CALLS = {1: 10, 8: 3}
"""Calls in a round: the fastest counts."""
ANY_PARITY = Parity(examples=64, max_relative_error=1e6, max_label_flips=1)
"""The benchmark itself measures how near the models are."""

Batch = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Entrant:
    """A model that is open, and what it weighs."""

    name: str
    runtime: Any
    size_mib: float


class Bench:
    """One model, one task, one set of rows for all."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path, seed: int) -> None:
        self.folder = find_model_folder(arguments.model)
        self.task = task_of(self.folder)
        self.scratch, self.arguments, self.seed = scratch / str(seed), arguments, seed
        self.scratch.mkdir()
        self.data = GlueData(task=arguments.task, path=str(arguments.data.resolve()))
        loaded = load_data(self.data, Path.cwd(), name="data", seed=0)
        encoder = TextEncoder.from_folder(self.folder, self.task.max_length, self.task.input_names)
        train, validation = loaded.split("train"), loaded.split("validation")
        chosen = choose_examples(len(train), arguments.examples, seed, "data")
        self.calibration = encoder.encode(train.rows(chosen).texts)
        count = arguments.rows or len(validation)
        self.validation = encoder.encode(validation.texts[:count])
        self.labels = np.asarray(validation.labels[:count])

    def batches(self, encoded: Any) -> list[Batch]:
        by_length = np.argsort(encoded.lengths, kind="stable")
        return [encoded.batch(by_length[i : i + 32]) for i in range(0, len(encoded), 32)]

    def answers(self, runtime: Any) -> np.ndarray:
        by_length = np.argsort(self.validation.lengths, kind="stable")
        logits = np.concatenate([runtime.logits(batch) for batch in self.batches(self.validation)])
        return logits[np.argsort(by_length)]

    def context(self, name: str, inputs: dict[str, Path]) -> StepContext:
        folder = self.scratch / name
        folder.mkdir()
        return StepContext(
            name=name,
            folder=folder,
            scratch=self.scratch / f".{name}",
            inputs=inputs,
            data={"data": self.data},
            recipe_folder=Path.cwd(),
            progress=Progress(quiet=True),
            seed=self.seed,
            recipe={"name": "peers", "data": {"data": {}}, "steps": {}},
        )


def attar_entrants(bench: Bench, form: str) -> list[Entrant]:
    """Each method, quantized once and exported to this runtime."""
    found = []
    for number, name in enumerate(bench.arguments.methods):
        settings, quantized = METHODS[name], bench.scratch / f"{number}-int8"
        if form == "onnxruntime" and "query_key_grids" in settings:
            continue
        if not quantized.is_dir():
            calibration = {"data": "data", "examples": bench.arguments.examples}
            config = TypeAdapter(QuantizeStep).validate_python(
                {"model": "float", "calibration": calibration, **settings}
            )
            quantize(config, bench.context(quantized.name, {"float": bench.folder}))
        context = bench.context(f"{number}-{form}", {"int8": quantized})
        step = ExportStep(model="int8", format=form, data="data", parity=ANY_PARITY)  # pyright: ignore[reportArgumentType]
        export(step, context)
        found.append(entrant(f"attar {name}", form, context.folder))
    return found


def entrant(name: str, form: str, folder: Path) -> Entrant:
    open_file = OpenVinoRuntime if form == "openvino" else OnnxRuntime
    runtime = open_file(folder / MODEL_FILES[form][0], usable_cores())  # pyright: ignore[reportArgumentType]
    return Entrant(f"{name}, {form}", runtime, model_size_mib(folder, form))  # pyright: ignore[reportArgumentType]


def float_entrant(bench: Bench, form: str) -> Entrant:
    folder = bench.scratch / f"float-{form}"
    folder.mkdir()
    write = write_openvino if form == "openvino" else write_onnx
    write(bench.folder, folder, bench.task.input_names)
    return entrant("float", form, folder)


def nncf_entrants(bench: Bench, form: str) -> list[Entrant]:
    """NNCF's post-training quantization of the float OpenVINO model, as it does transformers."""
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    try:
        import nncf  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        print(f"NNCF is left out ({error}); see this file's docstring", file=sys.stderr)
        return []
    import openvino

    source = the_core().read_model(bench.scratch / f"float-{form}" / MODEL_FILES[form][0])
    rows = [bench.calibration.batch([row]) for row in range(len(bench.calibration))]
    quantized = nncf.quantize(
        source, nncf.Dataset(rows), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows)
    )
    folder = bench.scratch / "nncf"
    folder.mkdir()
    openvino.save_model(quantized, folder / MODEL_FILES[form][0], compress_to_fp16=False)
    return [entrant("NNCF", form, folder)]


def nncf_version() -> str:
    try:
        return version("nncf")
    except PackageNotFoundError:
        return "not installed, so it has no row"


def ort_entrants(bench: Bench, form: str) -> list[Entrant]:
    """ONNX Runtime's static quantization of the float ONNX model: its own preprocessing, its
    min-max calibrator, types and ranges as its documentation advises for this CPU; one scale a
    tensor (its default) and one a channel for weights."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(range(len(bench.calibration)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.left, None)
            return None if row is None else dict(bench.calibration.batch([row]))

    source = bench.scratch / f"float-{form}" / MODEL_FILES[form][0]
    ready = bench.scratch / "ready.onnx"
    # its symbolic shape inference stops at a graph of dynamic shapes; the rest is done
    quant_pre_process(source, ready, skip_symbolic_shape=True)
    found = []
    for per_channel in (False, True):
        folder = bench.scratch / f"ort-{per_channel}"
        folder.mkdir()
        file = folder / MODEL_FILES[form][0]
        quantize_static(
            *(ready, file, Rows()),
            per_channel=per_channel,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=needs_unsigned_weights(),
        )
        scales = "a scale a channel" if per_channel else "a scale a tensor"
        found.append(entrant(f"ONNX Runtime, {scales}", form, folder))
    return found


def in_turns(
    entrants: list[Entrant], bench: Bench, rounds: int
) -> dict[int, dict[str, list[float]]]:
    """Texts → entrant → milliseconds of each round."""
    random = np.random.default_rng(0)
    times: dict[int, dict[str, list[float]]] = {}
    for rows, tokens in SHAPES:
        ids = random.integers(1000, 20_000, (rows, tokens))
        every = {"input_ids": ids, "attention_mask": 0 * ids + 1, "token_type_ids": 0 * ids}
        batch = {name: every[name] for name in bench.task.input_names}
        times[rows] = {each.name: [] for each in entrants}
        for number in range(rounds + 1):
            for each in entrants:
                fastest = min(timed(partial(each.runtime.logits, batch), CALLS[rows]))
                if number:  # the first round warms up
                    times[rows][each.name].append(fastest)
    return times


def timed(call: Callable[[], object], count: int) -> list[float]:
    found = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        found.append((time.perf_counter() - started) * 1e3)
    return found


def entrants_of(bench: Bench) -> list[Entrant]:
    """All who take part, the float model of the first runtime first."""
    forms = bench.arguments.runtimes
    entrants = [float_entrant(bench, form) for form in forms]
    for form in forms:
        peers = nncf_entrants if form == "openvino" else ort_entrants
        entrants += attar_entrants(bench, form) + peers(bench, form)
    return entrants


@dataclass(frozen=True)
class Agreement:
    """How good an entrant's answers are, in percent, at one choice of calibration texts."""

    accuracy: float
    same_label: float


def agreements(bench: Bench, entrants: list[Entrant]) -> dict[str, Agreement]:
    chosen = {each.name: bench.answers(each.runtime).argmax(axis=1) for each in entrants}
    reference = chosen[entrants[0].name]
    return {
        name: Agreement(100 * (own == bench.labels).mean(), 100 * (own == reference).mean())
        for name, own in chosen.items()
    }


def spread(values: list[float]) -> str:
    shown = f"{statistics.mean(values):.2f}"
    return shown if len(values) == 1 else f"{shown} ({min(values):.2f} … {max(values):.2f})"


def page(
    entrants: list[Entrant],
    found: list[dict[str, Agreement]],
    times: dict[int, dict[str, list[float]]],
) -> str:
    rows = []
    for each in entrants:
        own = [of_seed[each.name] for of_seed in found]
        cells = [
            each.name,
            spread([seed.accuracy for seed in own]),
            spread([seed.same_label for seed in own]),
            f"{each.size_mib:.1f}",
        ]
        for by_name in times.values():
            first = by_name[entrants[0].name]
            ratios = [ours / theirs for ours, theirs in zip(by_name[each.name], first, strict=True)]
            cells.append(
                f"{statistics.median(by_name[each.name]):.2f}; {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} … {max(ratios):.2f})"
            )
        rows.append(cells)
    head = ["entrant", "accuracy, %", "same label as float, %", "MiB"]
    head += [f"ms at {texts} × 128; share of float's (min … max)" for texts in times]
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--task", default="sst2", help="a GLUE classification task")
    parser.add_argument("--data", type=Path, required=True, help="holds <task>/<split>.jsonl.gz")
    parser.add_argument("--examples", type=int, default=256, help="rows that calibrate")
    parser.add_argument("--rows", type=int, default=0, help="validation rows; 0: all")
    parser.add_argument("--rounds", type=int, default=12, help="of latency; 0: none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the calibrations")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES), help="the first is float"
    )
    parser.add_argument("--trial", action="store_true", help=f"as {TRIAL}")
    parser.add_argument("--dry", action="store_true", help="print only, write no page")
    arguments = parser.parse_args()
    if arguments.trial:
        vars(arguments).update(TRIAL)
    with tempfile.TemporaryDirectory() as scratch:
        first = Bench(arguments, Path(scratch), arguments.seeds[0])
        entrants = entrants_of(first)
        times = in_turns(entrants, first, arguments.rounds) if arguments.rounds else {}
        found = [agreements(first, entrants)]
        for seed in arguments.seeds[1:]:
            bench = Bench(arguments, Path(scratch), seed)
            found.append(agreements(bench, entrants_of(bench)))
        body = (
            f"{arguments.task}: {arguments.examples} calibration rows, {len(arguments.seeds)} "
            f"choice(s) of them, {len(first.labels)} validation rows, {arguments.rounds} rounds of "
            f"latency in turns. Float is that of {arguments.runtimes[0]}. NNCF: {nncf_version()}."
            f"\n\n{page(entrants, found, times)}"
        )
    if arguments.dry:
        print(body)
    else:
        write_page(
            f"peers-int8-{arguments.task}{'-seeds' if len(arguments.seeds) > 1 else ''}",
            "How does attar's W8A8 stand beside the runtimes' own?",
            body,
        )


if __name__ == "__main__":
    main()
