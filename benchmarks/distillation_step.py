"""What does a distillation step cost beside its parts? The loop's own step, live, cached and plain.

    python benchmarks/distillation_step.py --data DATA           # holds sst2/train.jsonl.gz
    python benchmarks/distillation_step.py --data DATA --rounds 3 --no-page

Teacher: the demo's MiniLM-L6 with a new head (what it says does not matter here, how long it takes
does); student: three of its blocks. The limits are measured in the same rounds: the teacher's plain
forward pass, and the student's whole step with the same losses against answers that are there at
once, already padded and in float32. All ways take turns on the same batches (A B C, A B C, …), so
that a busy moment hits all alike; a ratio is the median of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from attar.data.config import GlueData
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.losses.targets import Outputs
from attar.losses.term import Pair
from attar.losses.total import TotalLoss, needs_of
from attar.models.load import LoadedModel, load_model, save_model
from attar.models.sources.demo import demo_folder
from attar.models.surgery import keep_blocks
from attar.progress import Progress
from attar.step import StepContext
from attar.tasks.task import Task
from attar.training.cache_config import CacheStep
from attar.training.config import TrainStep
from attar.training.forward import shape_of
from attar.training.job import Job
from attar.training.loop import Loop
from attar.training.objectives.labelled import LabelledTexts
from attar.training.teachers import Teacher, load_teacher
from attar.training.teaching.cache import cache
from attar.training.teaching.teacher_inputs import TeacherInputs
from attar.training.update.precision import open_accelerator
from record import table, write_page

BATCH = 32
KEPT = (1, 3, 5)
FIXED = 128
LOSSES: dict[str, list[dict[str, Any]]] = {
    "forward_kl": [{"kind": "forward_kl"}],
    "forward_kl + hidden_mse": [{"kind": "forward_kl"}, {"kind": "hidden_mse"}],
    "forward_kl + eofd": [{"kind": "forward_kl"}, {"kind": "eofd"}],
}
PLAIN = "forward_kl + hidden_mse"
"""What the plain loop computes too."""
GOAL = 1.05
Step = Callable[[], None]


class InstantTeacher:
    """A teacher whose answers are there before they are asked for: the student's part alone."""

    def __init__(self, behind: Teacher) -> None:
        self.behind, self.input_names, self.columns = behind, behind.input_names, None
        self._ready: dict[bytes, Outputs] = {}

    def __call__(self, inputs: Mapping[str, Tensor], rows: np.ndarray | None = None) -> Outputs:
        assert rows is not None
        return self._ready[rows.tobytes()]

    def get_ready(self, train: LabelledTexts, batches: Sequence[np.ndarray]) -> None:
        device = torch.device("cpu")
        self._ready = {
            rows.tobytes(): self.behind(train.batch(rows, device)[0], rows) for rows in batches
        }


@dataclass
class Bench:
    """Everything the ways share."""

    folder: Path
    teacher: LoadedModel
    student: LoadedModel
    train: LabelledTexts
    steps: int
    rounds: int

    def context(self, name: str) -> StepContext:
        for folder in (name, f"{name}-scratch"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        return StepContext(
            name=name,
            folder=self.folder / name,
            scratch=self.folder / f"{name}-scratch",
            inputs={},
            data={},
            recipe_folder=self.folder,
            progress=Progress(quiet=True),
        )

    def loop(self, name: str, losses: Sequence[dict[str, Any]], teacher: Any) -> Loop:
        """The real loop with a student of its own."""
        config = TrainStep(
            model="m",
            data="d",
            teacher="t" if teacher is not None else None,
            losses=tuple(losses),  # pyright: ignore[reportArgumentType]
            batch_size=BATCH,
            max_steps=100_000,
            schedule="constant",
            learning_rate=1e-5,
            checkpoint_every=100_000,
        )
        model = copy.deepcopy(self.student.model)
        pair = Pair(shape_of(model), shape_of(self.teacher.model))
        task = self.teacher.task
        assert task is not None
        job = Job(
            name=name,
            config=config,
            seed=0,
            model=model,
            input_names=task.input_names,
            teacher=teacher,
            loss=TotalLoss(config.losses, task.objective, pair),
            train=self.train,
            validation=self.train,
            metrics=task.metrics,
        )
        context = self.context(name)
        if teacher is not None and not isinstance(teacher, InstantTeacher):
            wanted = TeacherInputs(
                name, self.train, 128, job.loss, 0, model.device, context.progress
            )
            teacher.prepare(wanted)
        accelerator, _ = open_accelerator("auto", context)
        model.train()
        return Loop(job, accelerator, context)

    def teachers(self, losses: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A live one, and one of a cache that holds what these losses need."""
        settings = TrainStep(model="m", data="d", teacher="t", losses=tuple(losses))  # pyright: ignore[reportArgumentType]
        needs = needs_of(settings.losses)
        live, cached = (
            load_teacher(folder, self.student, needs=needs, seed=0)[0]
            for folder in (self.teacher.folder, self.folder / "cache" / "model")
        )
        return {"live": live, "cached": cached}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of GLUE data")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps of a way in a round")
    parser.add_argument("--rows", type=int, default=2000, help="training rows")
    parser.add_argument("--lengths", nargs="*", default=["sst2", str(FIXED)])
    parser.add_argument("--no-page", action="store_true", help="print, and write no page")
    arguments = parser.parse_args()
    sections: list[str] = []
    for lengths in arguments.lengths:
        with tempfile.TemporaryDirectory() as temporary:
            bench = set_up(arguments, lengths, Path(temporary))
            sections.append(section(lengths, bench, measure(bench)))
    body = "\n\n".join(sections)
    if arguments.no_page:
        print(body)
    else:
        write_page("distillation-step", "What does a distillation step cost?", body)


def set_up(arguments: argparse.Namespace, lengths: str, folder: Path) -> Bench:
    """Teacher and student as folders, and the rows, as they are or all of one length."""
    settings = GlueData(
        task="sst2", path=str(arguments.data.resolve()), train_rows=arguments.rows, rows_seed=0
    )
    data = load_data(settings, folder, name="sst2")
    task = Task(
        objective="classification",
        label_names=data.label_names,
        max_length=FIXED,
        input_names=("input_ids", "attention_mask", "token_type_ids"),
        metrics=data.metrics,
    )
    save_model(load_model(demo_folder("demo:minilm-l6"), task=task), folder / "teacher")
    teacher = load_model(folder / "teacher")
    student = replace(teacher, model=keep_blocks(teacher.model, KEPT))
    encoder = TextEncoder.from_folder(teacher.folder, FIXED, task.input_names)
    train = LabelledTexts.of(data.split("train"), encoder)
    if lengths != "sst2":
        train = of_length(train, int(lengths))
    bench = Bench(folder, teacher, student, train, arguments.steps, arguments.rounds)
    make_cache(bench, settings)
    return bench


def of_length(train: LabelledTexts, tokens: int) -> LabelledTexts:
    """Every text repeated until it fills `tokens`, so that every computed token is a real one."""
    old = train.encoded
    ids = [np.resize(row, tokens) for row in np.split(old.ids, old.starts[1:-1])]
    starts = np.arange(len(train) + 1, dtype=np.int64) * tokens
    same = np.concatenate(ids)
    return replace(
        train, encoded=replace(old, ids=same, type_ids=np.zeros(len(same), np.int8), starts=starts)
    )


def make_cache(bench: Bench, settings: GlueData) -> None:
    """By the real step, but of the bench's rows, whatever their length."""
    from attar.training.teaching import cache as step

    made = step.examples_for
    step.examples_for = lambda *_: bench.train  # type: ignore[assignment]
    context = replace(bench.context("cache"), data={"sst2": settings})
    try:
        cache(CacheStep(teacher="teacher", data="sst2", hidden_states="uniform:3"), context)
    finally:
        step.examples_for = made


def measure(bench: Bench) -> dict[str, list[float]]:
    """Way → seconds of each round; one round before them warms everything up."""
    loops: dict[str, Loop] = {
        "student, cross_entropy": bench.loop("alone", [{"kind": "cross_entropy"}], None)
    }
    instants: list[InstantTeacher] = []
    for losses, terms in LOSSES.items():
        teachers = bench.teachers(terms)
        for kind, teacher in teachers.items():
            loops[f"{kind}, {losses}"] = bench.loop(f"{kind}-{losses}", terms, teacher)
        instants.append(InstantTeacher(teachers["cached"]))
        loops[f"student, {losses}"] = bench.loop(f"instant-{losses}", terms, instants[-1])
    first = next(iter(loops.values()))
    plain = PlainLoop(bench, first)
    seconds: dict[str, list[float]] = {}
    for turn in range(bench.rounds + 1):
        place = turn * bench.steps
        batches = [first._rows(place + i) for i in range(bench.steps)]
        for instant in instants:
            instant.get_ready(bench.train, batches)
        ways: dict[str, Step] = {name: loop._step for name, loop in loops.items()}
        found = {name: timed(way, bench.steps) for name, way in ways.items()}
        found["teacher's forward pass"] = plain.time_teacher(batches)
        found[f"plain loop, {PLAIN}"] = plain.time_steps(batches)
        if turn > 0:
            for name, value in found.items():
                seconds.setdefault(name, []).append(value / bench.steps)
    return seconds


def timed(action: Step, times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        action()
    return time.perf_counter() - started


class PlainLoop:
    """What one would write with transformers and torch alone, in the same precision."""

    def __init__(self, bench: Bench, like: Loop) -> None:
        self._train, self._autocast = bench.train, like._accelerator.autocast
        self._teacher = copy.deepcopy(bench.teacher.model).eval().requires_grad_(False)
        self._student = copy.deepcopy(bench.student.model).train()
        self._optimizer = torch.optim.AdamW(self._student.parameters(), lr=1e-5, fused=True)

    def time_teacher(self, batches: Sequence[np.ndarray]) -> float:
        ready = [self._train.batch(rows, torch.device("cpu"))[0] for rows in batches]
        started = time.perf_counter()
        with torch.no_grad():
            for inputs in ready:
                with self._autocast():
                    self._teacher(**inputs)
        return time.perf_counter() - started

    def time_steps(self, batches: Sequence[np.ndarray]) -> float:
        started = time.perf_counter()
        for rows in batches:
            self._step(self._train.batch(rows, torch.device("cpu"))[0])
        return time.perf_counter() - started

    def _step(self, inputs: Mapping[str, Tensor]) -> None:
        with self._autocast():
            with torch.no_grad():
                taught = self._teacher(**inputs, output_hidden_states=True)
            own = self._student(**inputs, output_hidden_states=True)
        log_p, log_q = (out.logits.float().log_softmax(-1) for out in (taught, own))
        loss = functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
        mask = inputs["attention_mask"].unsqueeze(-1)
        width = own.hidden_states[0].shape[-1]
        for index, state in enumerate(own.hidden_states):
            difference = (state.float() - taught.hidden_states[2 * index].float()) * mask
            mean = difference.square().sum() / (mask.sum() * width)
            loss = loss + mean / len(own.hidden_states)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._student.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def section(lengths: str, bench: Bench, seconds: dict[str, list[float]]) -> str:
    """Times, and the ratios that are to be at most 1.05."""
    rows = [(name, *described([1000 * s for s in found], 1)) for name, found in seconds.items()]
    head = ["what", "median ms a step", "min … max"]
    forward = seconds["teacher's forward pass"]
    ratios: list[tuple[object, ...]] = []
    for losses in LOSSES:
        student = seconds[f"student, {losses}"]
        both = [a + b for a, b in zip(forward, student, strict=True)]
        for kind, limit, what in (
            ("live", both, "teacher's forward + student"),
            ("cached", student, "student"),
            ("live", None, "plain loop"),
        ):
            if limit is None and losses != PLAIN:
                continue
            under = seconds[f"plain loop, {PLAIN}"] if limit is None else limit
            above = seconds[f"{kind}, {losses}"]
            found = [a / b for a, b in zip(above, under, strict=True)]
            ratios.append((f"{kind} ÷ ({what})", losses, *described(found, 3)))
    mean = float(bench.train.lengths.mean())
    return (
        f"## Lengths: {lengths} (mean {mean:.1f} tokens)\n\n{table(head, rows)}\n\n"
        f"{table(['ratio', 'losses', 'median', 'min … max'], ratios)}\n\n"
        f"Goal: at most {GOAL} of each limit. {bench.rounds} rounds of {bench.steps} steps each, "
        f"batch {BATCH}, {torch.get_num_threads()} threads."
    )


def described(values: Sequence[float], digits: int) -> tuple[str, str]:
    return (
        f"{statistics.median(values):.{digits}f}",
        f"{min(values):.{digits}f} … {max(values):.{digits}f}",
    )


if __name__ == "__main__":
    main()
