"""attar's W8A8 against the runtimes' own static int8: same model, same calibration rows.

    python benchmarks/peers_int8.py MODEL --task sst2 --data FOLDER

MODEL is the folder of a train step (or its model folder). Every entrant gets the same float model
and the same texts of the train split, and answers the whole validation split. Latencies take turns,
so a busy moment hits all alike; a ratio is the median of the ratios of the rounds.

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
    "minmax": {},
    "percentile": {},
    "outlier_suppression": {"refine": False},
    "auto": {},
}
"""attar's entrants: method → settings beside its own. The paper's fine stage is not run: at 8 bits
it has nothing to mend."""
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

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.folder = find_model_folder(arguments.model)
        self.task = task_of(self.folder)
        self.scratch, self.arguments = scratch, arguments
        self.data = GlueData(task=arguments.task, path=str(arguments.data.resolve()))
        loaded = load_data(self.data, Path.cwd(), name="data", seed=0)
        encoder = TextEncoder.from_folder(self.folder, self.task.max_length, self.task.input_names)
        train, validation = loaded.split("train"), loaded.split("validation")
        chosen = choose_examples(len(train), arguments.examples, arguments.seed, "data")
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
            seed=self.arguments.seed,
            recipe={"name": "peers", "data": {"data": {}}, "steps": {}},
        )


def attar_entrants(bench: Bench, form: str) -> list[Entrant]:
    """Each method, quantized once and exported to this runtime."""
    found = []
    for method, settings in METHODS.items():
        quantized = bench.scratch / f"{method}-int8"
        if not quantized.is_dir():
            calibration = {"data": "data", "examples": bench.arguments.examples}
            config = TypeAdapter(QuantizeStep).validate_python(
                {"method": method, "model": "float", "calibration": calibration, **settings}
            )
            quantize(config, bench.context(quantized.name, {"float": bench.folder}))
        context = bench.context(f"{method}-{form}", {"int8": quantized})
        step = ExportStep(model="int8", format=form, data="data", parity=ANY_PARITY)  # pyright: ignore[reportArgumentType]
        export(step, context)
        shown = f"{method} without its fine stage" if settings else method
        found.append(entrant(f"attar {shown}", form, context.folder))
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


def page(bench: Bench, entrants: list[Entrant], rounds: int) -> str:
    answers = {each.name: bench.answers(each.runtime) for each in entrants}
    reference = answers[entrants[0].name].argmax(axis=1)
    times = in_turns(entrants, bench, rounds) if rounds else {}
    rows = []
    for each in entrants:
        chosen = answers[each.name].argmax(axis=1)
        cells = [
            each.name,
            f"{100 * (chosen == bench.labels).mean():.2f}",
            f"{100 * (chosen == reference).mean():.2f}",
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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print only, write no page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(arguments, Path(scratch))
        entrants = [float_entrant(bench, form) for form in ("openvino", "onnxruntime")]
        entrants += attar_entrants(bench, "openvino") + nncf_entrants(bench, "openvino")
        entrants += attar_entrants(bench, "onnxruntime") + ort_entrants(bench, "onnxruntime")
        body = (
            f"{arguments.task}: {arguments.examples} calibration rows, {len(bench.labels)} "
            f"validation rows, {arguments.rounds} rounds of latency in turns. Float is OpenVINO's. "
            f"NNCF: {nncf_version()}."
            f"\n\n{page(bench, entrants, arguments.rounds)}"
        )
    if arguments.dry:
        print(body)
    else:
        write_page(
            f"peers-int8-{arguments.task}",
            "How does attar's W8A8 stand beside the runtimes' own?",
            body,
        )


if __name__ == "__main__":
    main()
