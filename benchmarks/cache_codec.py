"""Part of a teacher's distributions on disk: bytes, rounding, bias, and what reading them costs.

    python benchmarks/cache_codec.py --data DATA                 # holds english_novels/
    python benchmarks/cache_codec.py --data DATA --tokens 600 --rounds 1 --steps 1 --no-page

Teacher: demo:smollm2-135m. Text: novels, by the real tokenize and cache steps. The students whose
losses are estimated are the teacher without some of its blocks, which are at several distances from
it. The dense cross-entropy of the same tokens is the truth; a bias is a mean difference ± its
standard error. Times: the cached and the live teacher answer the same batches in turns, and so do
the training steps of a small student without a teacher, with the cache, and with the live teacher;
a ratio is the median of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attar.data.config import FilesData
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView
from attar.losses.term import Needs
from attar.losses.total import TotalLoss
from attar.models.config import FromConfig
from attar.models.load import build_model, load_model
from attar.models.sources.references import resolve_model
from attar.models.surgery import keep_blocks
from attar.numerics.distribution_codec import BITS
from attar.numerics.sparse_distributions import distributions_of, summarized, uniforms_of
from attar.progress import Progress
from attar.selection.config import TokenizeStep
from attar.selection.tokenize import tokenize
from attar.step import MadeRows, StepContext
from attar.tasks.task import Task
from attar.training.cache_config import CacheStep, Sparse
from attar.training.config import TrainStep
from attar.training.job import Job
from attar.training.loop import Loop
from attar.training.objectives.shards import Shards
from attar.training.teachers import load_teacher
from attar.training.teaching.cache import cache
from attar.training.teaching.header import codec_of
from attar.training.teaching.teacher_inputs import TeacherInputs
from attar.training.update.precision import open_accelerator
from record import table, write_page

TEACHER = "demo:smollm2-135m"
LENGTH = 256
BATCH = 8
CHARACTERS = 8
"""Of text for each token that is wanted; more than enough."""
LEFT_OUT = (1, 2, 4, 8)
"""Blocks that the students lack, from the middle on."""
KINDS = {
    "32 exact + 8 draws": Sparse(exact=32, tail_draws=8),
    "50 exact + bucket": Sparse(exact=50, tail="bucket"),
}
GOALS = {"bytes": 100, "rounding": 1e-3, "reading": 5, "step": 1.05}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of english_novels")
    parser.add_argument("--teacher", default=TEACHER, help="a demo model or a folder")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="training steps of a way in a round")
    parser.add_argument("--no-page", action="store_true", help="print, and write no page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary), arguments.data, arguments.teacher, arguments.tokens)
        body = "\n\n".join(
            [bench.accuracy(), bench.reading(arguments.rounds), bench.step_times(arguments)]
        )
    if arguments.no_page:
        print(body)
    else:
        write_page("cache-codec", "What does part of a teacher's distribution cost?", body)


class Bench:
    """A corpus of novels, its teacher, and the cache of the default form."""

    def __init__(self, folder: Path, data: Path, teacher: str, tokens: int) -> None:
        self.folder = folder
        self.teacher_folder = resolve_model(teacher, {}, Path.cwd()).resolve()
        (folder / "novels").mkdir()
        with gzip.open(data / "english_novels" / "validation.jsonl.gz", "rt") as stream:
            texts = [json.loads(line)["text"] for line in stream]
        most = CHARACTERS * tokens // len(texts)  # some of each, from its middle
        texts = [text[len(text) // 3 :][: max(most, 2000)] for text in texts]
        for split, kept in (("train", texts), ("validation", texts[:1])):
            lines = "".join(json.dumps({"text": text}) + "\n" for text in kept)
            (folder / "novels" / f"{split}.jsonl").write_text(lines)
        settings = {"path": "novels", "text": "text", "objective": "causal_lm"}
        novels = FilesData.model_validate({**settings, "label_names": None})
        step = TokenizeStep(data="novels", tokenizer=str(self.teacher_folder), max_length=LENGTH)
        tokenize(step, self.context("corpus", {"novels": novels}))
        corpus = Corpus.open(folder / "corpus")
        rows = np.arange(min(len(corpus), -(-tokens // LENGTH)))
        self.view = CorpusView(corpus, kept=rows)
        made = MadeRows("attar.selection.rows:corpus_rows", folder / "corpus", step, 0)
        self.data: dict[str, Any] = {"novels": novels, "corpus": made}
        self.shards = Shards.of(self.view, self.teacher_folder, LENGTH)
        self.cached = self.made_cache()

    def context(self, name: str, data: Mapping[str, Any]) -> StepContext:
        for folder in (name, f"{name}.scratch"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        return StepContext(
            name=name,
            folder=self.folder / name,
            scratch=self.folder / f"{name}.scratch",
            inputs={},
            data=data,
            recipe_folder=self.folder,
            progress=Progress(quiet=True),
        )

    def made_cache(self) -> dict[str, Any]:
        """By the real step, over the chunks of the bench alone."""
        from safetensors.numpy import save_file

        from attar.artifacts import write_json
        from attar.data.corpus.view import DIGEST_FILE, KEPT_FILE

        (self.folder / "kept").mkdir()
        assert self.view.kept is not None
        save_file({"row": self.view.kept}, self.folder / "kept" / KEPT_FILE)
        write_json(self.folder / "kept" / DIGEST_FILE, self.view.digest())
        reads: Any = type("Reads", (), {"data": "corpus"})()
        made = MadeRows("attar.selection.rows:selected_rows", self.folder / "kept", reads, 0)
        step = CacheStep(
            teacher=str(self.teacher_folder),
            data="kept",
            max_length=LENGTH,
            batch_size=BATCH,
            precision="fp32",
        )
        return dict(cache(step, self.context("cache", {**self.data, "kept": made})))

    @torch.no_grad()
    def accuracy(self) -> str:
        """Bytes, rounding, and bias of both forms against the dense loss."""
        teacher = load_model(self.teacher_folder).model.eval()
        blocks = int(teacher.config.num_hidden_layers)
        students = {
            f"without {count} blocks": keep_blocks(
                teacher,
                tuple(b for b in range(blocks) if not blocks // 2 <= b < blocks // 2 + count),
            ).eval()
            for count in LEFT_OUT
            if count < blocks
        }
        columns, seen = int(teacher.config.vocab_size), Counts()
        for place in range(len(self.view)):
            ids = torch.from_numpy(self.view.ids(np.array([place]))[0])[None]
            key = self.view.digests(np.array([place]))
            logits = teacher(input_ids=ids[:, :-1]).logits[0]
            tokens = np.arange(len(logits))
            keys = np.repeat(key, len(tokens))
            given = {n: m(input_ids=ids[:, :-1]).logits[0] for n, m in students.items()}
            for kind, sparse in KINDS.items():
                codec = codec_of(sparse, columns)
                uniforms = uniforms_of(0, keys, tokens, codec.draws)
                records = summarized(logits, codec.exact, uniforms)
                stored = codec.decode(codec.encode(records))
                p = np.exp(records.log_p.astype(np.float64))
                seen.add(f"{kind}: rounding", (p * (records.log_p - stored.log_p)).sum(1))
                seen.add(f"{kind}: exact mass", 1 - records.tail)
                found = distributions_of(stored, is_bucket=sparse.is_bucket)
                for name, z in given.items():
                    dense = _kl(logits, z)
                    seen.add(f"{name}: dense", dense)
                    seen.add(f"{kind}: {name}", found.forward_kl(z).numpy() - dense)
        return self._accuracy_table(seen, columns, students)

    def _accuracy_table(self, seen: Counts, columns: int, students: Mapping[str, Any]) -> str:
        rows: list[list[object]] = []
        for kind, sparse in KINDS.items():
            size = codec_of(sparse, columns).record_bytes
            rounding, mass = seen.mean(f"{kind}: rounding"), seen.mean(f"{kind}: exact mass")
            for name in students:
                bias, error, spread = seen.figures(f"{kind}: {name}")
                dense = seen.mean(f"{name}: dense")
                cells = [kind, size, f"{rounding:.2e}", f"{mass:.3f}", name, f"{dense:.3f}"]
                rows.append([*cells, f"{bias:+.5f} ± {error:.5f}", f"{spread:.3f}"])
        heads = ("form", "bytes a token", "rounding, nats", "exact mass", "student", "KL")
        head = (*heads, "estimate − KL", "sd a token")
        count = seen.count(f"{next(iter(KINDS))}: rounding")
        return (
            f"{count:,} tokens, {BITS} bits a log-probability (goals: at most {GOALS['bytes']} "
            f"bytes for the default form, rounding below {GOALS['rounding']}):\n\n"
            + table(head, rows)
        )

    def teachers(self) -> dict[str, Any]:
        student = load_model(self.teacher_folder, task=self.task())
        needs = Needs(teacher_logits=True)
        return {
            name: load_teacher(folder, student, needs=needs, seed=0)[0]
            for name, folder in (
                ("live", self.teacher_folder),
                ("cached", self.folder / "cache" / "model"),
            )
        }

    def task(self) -> Task:
        names = ("input_ids", "attention_mask")
        return Task(objective="causal_lm", max_length=LENGTH, input_names=names)

    def inputs(self, loss: TotalLoss) -> TeacherInputs:
        progress = Progress(quiet=True)
        return TeacherInputs("bench", self.shards, LENGTH, loss, 0, torch.device("cpu"), progress)

    def reading(self, rounds: int) -> str:
        """A batch from the cache and from the live teacher, logits and all, in turns."""
        loss = TotalLoss(TrainStep(model="m", data="d", teacher="t").effective_losses, "causal_lm")
        teachers = self.teachers()
        teachers["cached"].prepare(self.inputs(loss))
        rows = np.arange(min(BATCH, len(self.shards)))
        inputs, targets = self.shards.batch(rows, torch.device("cpu"))
        index = targets.predicted.nonzero(as_tuple=True)

        def cached() -> object:
            return teachers["cached"](inputs, rows).sparse[index]

        def live() -> object:
            logits = teachers["live"](inputs, rows).logits
            return [logits[tuple(axis[i : i + 256] for axis in index)].sum() for i in _steps(index)]

        seconds = in_turns({"cached": cached, "live": live}, rounds)
        tokens = len(index[0])
        ratio = _median_ratio(seconds, "live", "cached")
        speeds = ", ".join(f"{n} {tokens / statistics.median(s):,.0f}" for n, s in seconds.items())
        return f"Tokens a second: {speeds}: {ratio:.0f} × (goal: {GOALS['reading']} ×)."

    def step_times(self, arguments: argparse.Namespace) -> str:
        """Whole optimizer steps of the real loop."""
        size: Any = {"size": "nano", "family": "llama", "tokenizer": str(self.teacher_folder)}
        reference = FromConfig.model_validate(size)
        student = build_model(reference, {}, self.folder, self.task(), 0)
        teachers: dict[str, Any] = {"no teacher": None, **self.teachers()}
        loops: dict[str, Callable[[], object]] = {}
        for name, teacher in teachers.items():
            loop = self.loop(name, copy.deepcopy(student.model), teacher)
            loops[name] = lambda loop=loop: [loop._step() for _ in range(arguments.steps)]
        seconds = in_turns(loops, arguments.rounds)
        rows = [
            [n, f"{statistics.median(s) / arguments.steps:.3f}", f"{_median_ratio(seconds, n):.3f}"]
            for n, s in seconds.items()
        ]
        return (
            f"A step of a `nano` Llama on {BATCH} chunks of {LENGTH} tokens (goal: the cache at "
            f"most {GOALS['step']} ×):\n\n" + table(("teacher", "seconds", "ratio"), rows)
        )

    def loop(self, name: str, model: Any, teacher: Any) -> Loop:
        config = TrainStep(
            model="m",
            data="d",
            teacher=None if teacher is None else "t",
            batch_size=BATCH,
            max_length=LENGTH,
            max_steps=100_000,
            schedule="constant",
            checkpoint_every=100_000,
        )
        loss = TotalLoss(config.effective_losses, "causal_lm")
        if teacher is not None:
            teacher.prepare(self.inputs(loss))
        task, context = self.task(), self.context(f"step {name}", {})
        job = Job(
            name=name,
            config=config,
            seed=0,
            model=model,
            input_names=task.input_names,
            teacher=teacher,
            loss=loss,
            train=self.shards,
            validation=self.shards,
            metrics=("nll",),
        )
        accelerator, _ = open_accelerator("fp32", context)
        model.train()
        return Loop(job, accelerator, context)


class Counts:
    """Figures a token, by name."""

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {}

    def add(self, name: str, values: np.ndarray) -> None:
        self._parts.setdefault(name, []).append(np.asarray(values, np.float64))

    def all(self, name: str) -> np.ndarray:
        return np.concatenate(self._parts[name])

    def count(self, name: str) -> int:
        return len(self.all(name))

    def mean(self, name: str) -> float:
        return float(self.all(name).mean())

    def figures(self, name: str) -> tuple[float, float, float]:
        """Mean, its standard error, and the standard deviation."""
        values = self.all(name)
        return float(values.mean()), float(values.std() / len(values) ** 0.5), float(values.std())


def _kl(teacher: Tensor, student: Tensor) -> np.ndarray:
    log_p, log_q = torch.log_softmax(teacher, -1), torch.log_softmax(student, -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1, dtype=torch.float64).numpy()


def _steps(index: tuple[Tensor, ...]) -> range:
    return range(0, len(index[0]), 256)


def in_turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round; one round before is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if round_:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def _median_ratio(seconds: Mapping[str, list[float]], name: str, to: str = "no teacher") -> float:
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True))


if __name__ == "__main__":
    main()
