"""How fast is a language model pre-trained, beside plain transformers and matrix products?

    python benchmarks/training_speed.py [--size nano | --llama-135m] [--steps 20] [--rounds 5]
    python benchmarks/training_speed.py --family t5 [--size nano]

In turns, in one process, with the same config, tokenizer, batch, optimizer, schedule, gradient
clipping, float32 and threads:

- attar: `run = "train"` over the shards of a corpus, with everything that it does at a step
- Trainer: the same text, made into rows beforehand, so it has no padding to compute, no mask to
  make and no span to hide; logging and checkpoints are off
- plain loop: forward, backward, optimizer and schedule on these rows, and nothing else; with each
  attention of transformers that the family may be faster with
- products only: those of every Linear of the model, forward and backward, on as many tokens, and
  nothing else: the floor of all

A Llama reads blocks of `--length` tokens, as transformers' own example of language modelling packs
them. A T5 reads `--length` tokens of corrupted text and writes the hidden spans. A turn's time is
the median over its steps, from the end of one to the end of the next; the first two are left out.
`--profile` prints where attar's time goes instead; `--shrink` is a trial without a page.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)
from transformers.optimization import Adafactor, get_scheduler

import attar.training.run as training
from attar.data.config import StdlibTextData
from attar.data.corpus.spans import Corruption
from attar.data.corpus.stream import StreamRows
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView
from attar.models.config import FromConfig
from attar.models.cost import Cost
from attar.progress import Progress
from attar.selection.config import TokenizeStep
from attar.selection.tokenize import tokenize
from attar.step import MadeRows, StepContext
from attar.tasks.denoising import PUBLISHED
from attar.training.config import TrainStep
from attar.training.loop import Loop
from attar.training.work import matmul_seconds
from record import table, write_page

SMOLLM2 = {
    **{"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536},
    **{"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3},
    **{"vocab_size": 49_152, "tie_word_embeddings": True, "max_position_embeddings": 8192},
}
"""The shape of SmolLM2-135M: 134.5 M parameters."""
LEFT_OUT = 2
"""Steps at the beginning of a turn that are not timed."""
Row = dict[str, np.ndarray]


def blocks(view: CorpusView, folder: Path, length: int) -> list[Row]:
    """The text in blocks of exactly `length` tokens."""
    stream = np.concatenate(view.ids(np.arange(len(view)))).astype(np.int64)
    cut = stream[: len(stream) // length * length].reshape(-1, length)
    return [{"input_ids": block, "labels": block} for block in cut]


def corrupted(view: CorpusView, folder: Path, length: int) -> list[Row]:
    """The text with hidden spans, as attar hides them in its first epoch, without the last row,
    which is shorter."""
    corruption = Corruption.of(PUBLISHED, length, folder, seed=0)
    stream = StreamRows(view, corruption.raw_tokens)
    texts = enumerate(stream.ids(np.arange(len(stream) - 1)))
    pairs = (corruption.of_text(ids, number, epoch=0) for number, ids in texts)
    return [{"input_ids": read, "labels": written} for read, written in pairs]


@dataclass(frozen=True)
class Kind:
    """What is pre-trained, and how."""

    page: str
    model_class: Any
    rows: Callable[[CorpusView, Path, int], list[Row]]
    batch: int
    length: int
    tokenizer: Mapping[str, Any]
    step: Mapping[str, Any]
    """Settings of attar's train step."""
    optimizer: partial[torch.optim.Optimizer]
    schedule: str
    max_grad_norm: float
    """0: gradients are not clipped."""
    attentions: tuple[str, ...]
    """Those that a plain loop is tried with."""
    config: dict[str, Any] = field(default_factory=dict)


KINDS = {
    "llama": Kind(
        page="training_speed",
        model_class=AutoModelForCausalLM,
        rows=blocks,
        batch=4,
        length=256,
        tokenizer={"vocab_size": 4096},
        step={"schedule": "cosine"},
        optimizer=partial(torch.optim.AdamW, lr=5e-5, weight_decay=0.01, fused=True),
        schedule="cosine",
        max_grad_norm=1.0,
        attentions=("sdpa",),
    ),
    "t5": Kind(
        page="training_speed_t5",
        model_class=AutoModelForSeq2SeqLM,
        rows=corrupted,
        batch=16,
        length=128,
        tokenizer={"vocab_size": 2048, "sentinels": 100},
        step={
            **{"objective": "span_corruption", "optimizer": "adafactor", "learning_rate": 0.02},
            **{"schedule": "inverse_sqrt", "weight_decay": 0.0, "max_grad_norm": False},
        },
        optimizer=partial(Adafactor, lr=0.02, relative_step=False),
        schedule="inverse_sqrt",
        max_grad_norm=0.0,
        attentions=("sdpa", "eager"),
        config={"dropout_rate": 0.0},
    ),
}
"""Family → how it is pre-trained; T5 as in `small_t5`."""


class TimedLoop(Loop):
    """attar's loop, which notes when each step ended."""

    ends: ClassVar[list[float]] = []

    def _step(self) -> None:
        super()._step()
        self.ends.append(time.perf_counter())


class Ends(TrainerCallback):
    """Notes when each step of a Trainer ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=KINDS, default="llama")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--size", default="nano")
    which.add_argument("--llama-135m", action="store_true")
    parser.add_argument("--batch", type=int, help="rows of a step")
    parser.add_argument("--length", type=int, help="tokens that are read of a row")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--documents", type=int, default=120)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--shrink", action="store_true", help="3 steps, 2 rounds, no page")
    arguments = parser.parse_args()
    if arguments.shrink:
        arguments.steps, arguments.rounds, arguments.documents = 3, 2, 20
    torch.set_num_threads(arguments.threads)
    kind = KINDS[arguments.family]
    arguments.batch = arguments.batch or kind.batch
    arguments.length = arguments.length or kind.length
    shape: dict[str, Any] = {"family": arguments.family, "size": arguments.size}
    shape = {"config": SMOLLM2} if arguments.llama_135m else {**shape, "config": kind.config}
    reference = FromConfig(tokenizer="corpus", **shape)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), kind, reference, arguments)
        if arguments.profile:
            bench.profile()
        elif arguments.shrink:
            print(bench.body())
        else:
            write_page(
                f"{kind.page}_{'135m' if arguments.llama_135m else arguments.size}",
                "How fast is a language model pre-trained?",
                bench.body(),
            )


class Bench:
    """One model, one corpus, and who trains on it: each gives a step's tokens and seconds."""

    def __init__(self, folder: Path, kind: Kind, reference: FromConfig, arguments: Any) -> None:
        self.folder, self.kind = folder, kind
        self.reference, self.arguments = reference, arguments
        self.library = StdlibTextData(validation_rows=1)
        learned = {"train_on": "library", **kind.tokenizer}
        step = TokenizeStep.model_validate(
            {
                **{"data": "library", "tokenizer": learned, "max_length": arguments.length},
                "max_documents": arguments.documents,
            }
        )
        tokenize(step, self._context("corpus", {"library": self.library}))
        self.made = MadeRows("attar.selection.rows:corpus_rows", folder / "corpus", step, 0)
        view = CorpusView(Corpus.open(folder / "corpus"))
        self.rows = kind.rows(view, folder / "corpus", arguments.length)
        plain = reference.plain(kind.tokenizer["vocab_size"], 0)
        self.model_config = AutoConfig.for_model(**plain, use_cache=False)
        self.turns, self.attar_tokens = 0, 0.0

    def _context(self, name: str, data: dict[str, Any]) -> StepContext:
        (self.folder / name).mkdir(parents=True)
        return StepContext(
            name=name,
            folder=self.folder / name,
            scratch=self.folder / f"{name}.scratch",
            inputs={"corpus": self.folder / "corpus"},
            data=data,
            recipe_folder=self.folder,
            progress=Progress(quiet=True),
        )

    def _model(self, **settings: Any) -> Any:
        return self.kind.model_class.from_config(self.model_config, **settings)

    @property
    def num_steps(self) -> int:
        return self.arguments.steps + LEFT_OUT

    @property
    def warmup(self) -> int:
        return max(1, self.num_steps // 10)

    @property
    def written(self) -> int | None:
        """Tokens of a row that a decoder after an encoder reads."""
        return len(self.rows[0]["labels"]) if self.model_config.is_encoder_decoder else None

    @property
    def tokens(self) -> int:
        """Of a step of everyone but attar, whose chunks may be shorter."""
        return self.arguments.batch * (self.arguments.length + (self.written or 0))

    def attar(self) -> tuple[float, float]:
        self.turns += 1
        config = TrainStep.model_validate(
            {
                **{"model": self.reference, "data": "corpus", "max_steps": self.num_steps},
                **{"batch_size": self.arguments.batch, "max_length": self.arguments.length},
                **{"precision": "fp32", "evaluations": 1, "keep": "last"},
                **{"warmup_steps": self.warmup, **self.kind.step},
            }
        )
        TimedLoop.ends.clear()
        training.Loop = TimedLoop
        data = {"library": self.library, "corpus": self.made}
        found = training.train(config, self._context(f"attar_{self.turns}", data))
        self.attar_tokens = found["tokens"] / found["steps"]
        return self.attar_tokens, _seconds(TimedLoop.ends)

    def trainer(self) -> tuple[float, float]:
        ends, model = Ends(), self._model()
        arguments = TrainingArguments(
            output_dir=str(self.folder / "trainer"),
            max_steps=self.num_steps,
            per_device_train_batch_size=self.arguments.batch,
            max_grad_norm=self.kind.max_grad_norm,
            warmup_steps=self.warmup,
            lr_scheduler_type=self.kind.schedule,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer: Any = Trainer(
            model,
            arguments,
            data_collator=default_data_collator,
            train_dataset=self.rows,  # pyright: ignore[reportArgumentType]
            optimizers=(self.kind.optimizer(model.parameters()), None),
        )
        trainer.add_callback(ends)
        trainer.train()
        return self.tokens, _seconds(ends.ends)

    def loop(self, attention: str) -> tuple[float, float]:
        model = self._model(attn_implementation=attention).train()
        optimizer = self.kind.optimizer(model.parameters())
        schedule = get_scheduler(self.kind.schedule, optimizer, self.warmup, self.num_steps)
        size, ends = self.arguments.batch, []
        for step in range(self.num_steps):
            places = range(step * size, (step + 1) * size)
            rows = default_data_collator([self.rows[i % len(self.rows)] for i in places])
            model(**rows).loss.backward()
            if self.kind.max_grad_norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), self.kind.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            ends.append(time.perf_counter())
        return self.tokens, _seconds(ends)

    def products(self) -> tuple[float, float]:
        """On the tokens that a Trainer reads."""
        model, batch = self._model(), self.arguments.batch
        read, written = batch * self.arguments.length, self.written and batch * self.written
        taken = (matmul_seconds(model, read, written, dtype=torch.float32) for _ in range(3))
        return self.tokens, statistics.median(taken)

    def body(self) -> str:
        """The page's text."""
        rivals = {
            "Trainer": self.trainer,
            **{f"plain loop, {name}": partial(self.loop, name) for name in self.kind.attentions},
        }
        jobs = {"attar": self.attar, **rivals, "products only": self.products}
        rates: dict[str, list[float]] = {job: [] for job in jobs}
        for _ in range(self.arguments.rounds):
            for job, run in jobs.items():
                tokens, seconds = run()
                rates[job].append(tokens / seconds)
        best = max(rivals, key=lambda job: statistics.median(rates[job]))
        asked = self.arguments
        a_step = 3 * Cost(self._model()).flops(asked.batch, asked.length, self.written)
        rows = [
            [
                job,
                round(statistics.median(found)),
                f"{statistics.median(found) * a_step / self.tokens / 1e9:.1f}",
                *(_ratios(found, rates[other]) for other in (best, "products only")),
            ]
            for job, found in rates.items()
        ]
        return self._said(a_step) + table(
            ["", "tokens/s", "GFLOP/s", f"beside {best}", "beside products only"], rows
        )

    def _said(self, flops: int) -> str:
        config, asked, model = self.model_config, self.arguments, self._model()
        own = self.attar_tokens / asked.batch
        return (
            f"{type(model).__name__} of {model.num_parameters():,} parameters "
            f"({config.hidden_size} wide, {config.num_hidden_layers} blocks"
            f"{' a stack' if self.written else ''}, {config.vocab_size:,} tokens), "
            f"{self.kind.optimizer.func.__name__}, float32, {torch.get_num_threads()} threads, "
            f"{asked.batch} × {self.tokens // asked.batch} "
            f"tokens and {flops / 1e9:.2f} GFLOP a step; {asked.rounds} rounds in turns of "
            f"{asked.steps} steps. attar's rows have {own:.0f} tokens on average, and only these "
            "are counted. FLOPs: all matrix products, forward and backward, as torch's own "
            "counter gives them. Median (min … max of the rounds).\n\n"
        )

    def profile(self) -> None:
        """Print the functions in which attar's loop spends its time."""
        profiler = cProfile.Profile()
        inner = TimedLoop.run

        def run(loop: TimedLoop) -> Any:
            return profiler.runcall(inner, loop)

        TimedLoop.run = run  # type: ignore[method-assign]
        print(f"{self.attar()[1]:.4f} s a step; products only {self.products()[1]:.4f}")
        pstats.Stats(profiler).sort_stats("tottime").print_stats(28)


def _seconds(ends: Sequence[float]) -> float:
    steps = np.diff(np.array(ends))[LEFT_OUT - 1 :]
    return float(np.median(steps))


def _ratios(found: Sequence[float], others: Sequence[float]) -> str:
    ratios = [own / other for own, other in zip(found, others, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"


if __name__ == "__main__":
    main()
