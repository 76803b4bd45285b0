"""How fast is a language model pre-trained, beside a Hugging Face Trainer and matrix products?

    python benchmarks/training_speed.py [--size nano | --llama-135m] [--batch 4] [--length 256]
                                        [--steps 20] [--rounds 5] [--threads 2] [--profile]

In turns, in one process, with the same config, tokenizer, batch, optimizer (fused AdamW), schedule,
gradient clipping, float32 and threads:

- attar: `run = "train"` over the shards of a corpus, with everything that it does at a step
- Trainer: the same text in blocks of exactly `--length` tokens, so it has no padding to compute and
  no mask to make, as transformers' own example of language modelling packs it; logging and
  checkpoints are off
- products only: those of every Linear of the model, forward and backward, on as many tokens, and
  nothing else: the floor of both

A turn's time is the median over its steps, from the end of one to the end of the next; the first
two are left out. `--profile` prints where attar's time goes instead.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

import attar.training.run as training
from attar.data.config import StdlibTextData
from attar.data.corpus.token_store import Corpus
from attar.data.corpus.view import CorpusView
from attar.models.config import FromConfig
from attar.progress import Progress
from attar.selection.config import TokenizeStep
from attar.selection.tokenize import tokenize
from attar.step import MadeRows, StepContext
from attar.training.config import TrainStep
from attar.training.loop import Loop
from attar.training.work import matmul_seconds
from record import table, write_page

VOCABULARY = 4096
SMOLLM2 = {
    **{"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536},
    **{"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3},
    **{"vocab_size": 49_152, "tie_word_embeddings": True, "max_position_embeddings": 8192},
}
"""The shape of SmolLM2-135M: 134.5 M parameters."""
LEFT_OUT = 2
"""Steps at the beginning of a turn that are not timed."""


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
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--size", default="nano")
    which.add_argument("--llama-135m", action="store_true")
    parser.add_argument("--batch", type=int, default=4, help="chunks of a step")
    parser.add_argument("--length", type=int, default=256, help="tokens of a chunk")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--documents", type=int, default=120)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    reference = (
        FromConfig(config=SMOLLM2, tokenizer="corpus")
        if arguments.llama_135m
        else FromConfig(size=arguments.size, family="llama", tokenizer="corpus")
    )
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), reference, arguments)
        if arguments.profile:
            bench.profile()
        else:
            write_page(
                f"training_speed_{'135m' if arguments.llama_135m else arguments.size}",
                "How fast is a language model pre-trained?",
                bench.body(),
            )


class Bench:
    """One model, one corpus, and who trains on it."""

    def __init__(self, folder: Path, reference: FromConfig, arguments: Any) -> None:
        self.folder, self.reference, self.arguments = folder, reference, arguments
        self.library = StdlibTextData(validation_rows=1)
        learned = {"train_on": "library", "vocab_size": VOCABULARY}
        step = TokenizeStep.model_validate(
            {
                **{"data": "library", "tokenizer": learned, "max_length": arguments.length},
                "max_documents": arguments.documents,
            }
        )
        tokenize(step, self._context("corpus", {"library": self.library}))
        self.made = MadeRows("attar.selection.rows:corpus_rows", folder / "corpus", step, 0)
        view = CorpusView(Corpus.open(folder / "corpus"))
        stream = np.concatenate(view.ids(np.arange(len(view))))
        rows = len(stream) // arguments.length
        self.blocks = stream[: rows * arguments.length].reshape(rows, -1).astype(np.int64)
        config = reference.plain(VOCABULARY, 0)
        self.model_config = AutoConfig.for_model(**config)
        self.mean_length = (view.tokens - len(view)) / len(view)
        self.turns = 0

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

    @property
    def num_steps(self) -> int:
        return self.arguments.steps + LEFT_OUT

    def attar(self) -> float:
        """Seconds of a step."""
        self.turns += 1
        config = TrainStep.model_validate(
            {
                **{"model": self.reference, "data": "corpus", "max_steps": self.num_steps},
                **{"batch_size": self.arguments.batch, "max_length": self.arguments.length},
                **{"schedule": "cosine", "precision": "fp32", "evaluations": 1, "keep": "last"},
            }
        )
        TimedLoop.ends.clear()
        training.Loop = TimedLoop
        data = {"library": self.library, "corpus": self.made}
        training.train(config, self._context(f"attar_{self.turns}", data))
        return _seconds(TimedLoop.ends)

    def trainer(self) -> float:
        """Seconds of a step."""
        ends = Ends()
        model = AutoModelForCausalLM.from_config(self.model_config)
        data = [{"input_ids": block, "labels": block} for block in self.blocks]
        arguments = TrainingArguments(
            output_dir=str(self.folder / "trainer"),
            max_steps=self.num_steps,
            per_device_train_batch_size=self.arguments.batch,
            learning_rate=5e-5,
            weight_decay=0.01,
            warmup_steps=max(1, self.num_steps // 10),
            lr_scheduler_type="cosine",
            optim="adamw_torch_fused",
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer: Any = Trainer(
            model, arguments, data_collator=default_data_collator, train_dataset=data
        )
        trainer.add_callback(ends)
        trainer.train()
        return _seconds(ends.ends)

    def products(self) -> float:
        """Seconds of a step's products, on the tokens that a Trainer reads."""
        model = AutoModelForCausalLM.from_config(self.model_config)
        tokens = self.arguments.batch * self.arguments.length
        return statistics.median(
            matmul_seconds(model, tokens, dtype=torch.float32) for _ in range(3)
        )

    def body(self) -> str:
        """The page's text."""
        jobs = {"attar": self.attar, "Trainer": self.trainer, "products only": self.products}
        tokens = dict.fromkeys(jobs, self.arguments.batch * self.arguments.length)
        tokens["attar"] = round(self.arguments.batch * self.mean_length)
        rates: dict[str, list[float]] = {job: [] for job in jobs}
        for _ in range(self.arguments.rounds):
            for job, run in jobs.items():
                rates[job].append(tokens[job] / run())
        rows = [
            [
                job,
                round(statistics.median(found)),
                *(_ratios(found, rates[other]) for other in ("Trainer", "products only")),
            ]
            for job, found in rates.items()
        ]
        num_params = AutoModelForCausalLM.from_config(self.model_config).num_parameters()
        return (
            f"Llama of {num_params:,} parameters ({self.model_config.hidden_size} wide, "
            f"{self.model_config.num_hidden_layers} blocks, {self.model_config.vocab_size:,} "
            f"tokens), float32, {torch.get_num_threads()} threads, {self.arguments.batch} × "
            f"{self.arguments.length} tokens a step; {self.arguments.rounds} rounds in turns of "
            f"{self.arguments.steps} steps. attar's chunks have {self.mean_length:.0f} tokens on "
            "average, and only these are counted. Median (min … max of the rounds).\n\n"
            + table(["", "tokens/s", "beside Trainer", "beside products only"], rows)
        )

    def profile(self) -> None:
        """Print the functions in which attar's loop spends its time."""
        profiler = cProfile.Profile()
        inner = TimedLoop.run

        def run(loop: TimedLoop) -> Any:
            return profiler.runcall(inner, loop)

        TimedLoop.run = run  # type: ignore[method-assign]
        print(f"{self.attar():.4f} s a step; products only {self.products():.4f}")
        pstats.Stats(profiler).sort_stats("tottime").print_stats(28)


def _seconds(ends: Sequence[float]) -> float:
    steps = np.diff(np.array(ends))[LEFT_OUT - 1 :]
    return float(np.median(steps))


def _ratios(found: Sequence[float], others: Sequence[float]) -> str:
    ratios = [own / other for own, other in zip(found, others, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"


if __name__ == "__main__":
    main()
