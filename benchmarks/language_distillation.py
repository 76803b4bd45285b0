"""Does minding outliers help language models that are distilled in one step?

    python benchmarks/language_distillation.py FOLDER --kind gpt2 --work WORK
    python benchmarks/language_distillation.py FOLDER --kind t5 --work WORK
    python benchmarks/language_distillation.py FOLDER --work WORK --render

FOLDER holds english_novels/<split>.jsonl.gz, running text in the column `text`. Everything is made
here: a byte-pair tokenizer of 4,000 tokens, a teacher of six blocks (gpt2: next tokens; t5: the
words that were cut out of a passage), and students of its blocks 1, 3 and 5 (counted from 0) that
learn from it by predictions alone, with a plain hidden loss, and with EOFD. Equal steps, equal
texts, several seeds. λ brings the hidden loss to the size of the prediction loss, as in the paper;
the same λ serves both hidden losses, and none was searched for.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from attar.data.config import FilesData
from attar.numerics.paired import paired
from attar.progress import Progress
from attar.step import StepContext
from attar.training.config import TrainStep
from attar.training.run import train
from record import append_cell, table, write_page

VOCABULARY = 4000
END, PAD, GAP = "<end>", "<pad>", "<gap>"
TRAIN_ROWS, VALIDATION_ROWS = 2500, 100
"""Passages of about 2,000 characters: 5 million characters, of 47."""
LENGTH = 128
TEACHER_STEPS, STUDENT_STEPS = 700, 250
BATCH_SIZE = 16
WIDTH = {"hidden": 192, "intermediate": 768, "heads": 6, "blocks": 6}
KEPT = (1, 3, 5)
PREDICTIONS = ({"kind": "forward_kl", "weight": 1.0},)
METHODS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "next words alone": ({"kind": "cross_entropy"},),
    "predictions": PREDICTIONS,
    "predictions + hidden MSE": (*PREDICTIONS, {"kind": "hidden_mse"}),
    "predictions + EOFD 0.5": (*PREDICTIONS, {"kind": "eofd", "power": 0.5}),
    "predictions + EOFD 1.0": (*PREDICTIONS, {"kind": "eofd", "power": 1.0}),
}
CELLS = "cells.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="teachers and cells are kept here")
    parser.add_argument("--kind", choices=("gpt2", "t5"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--teacher-steps", type=int, default=TEACHER_STEPS)
    parser.add_argument("--steps", type=int, default=STUDENT_STEPS)
    parser.add_argument("--render", action="store_true")
    arguments = parser.parse_args()
    arguments.work = arguments.work.resolve()
    if arguments.render:
        cells = read_cells(arguments.work / CELLS)
        question = "Does minding outliers help language models?"
        write_page("language-distillation", question, page(cells), cells)
        return
    if arguments.kind is None:
        parser.error("--kind says which models are made: gpt2 or t5")
    bench = Bench(arguments)
    done = {
        (c["kind"], c["method"], c["seed"], c["steps"]) for c in read_cells(arguments.work / CELLS)
    }
    for seed, name in product(arguments.seeds, arguments.methods):
        if (arguments.kind, name, seed, arguments.steps) not in done:
            cell = bench.student(name, seed)
            append_cell(arguments.work / CELLS, cell)


class Bench:
    """One kind of model: its texts, its teacher, its students."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.kind, self.work, self.steps = arguments.kind, arguments.work, arguments.steps
        self.texts = self.work / f"texts-{self.kind}"
        self.tokenizer = self.work / "tokenizer"
        passages = {
            split: list(read_passages(arguments.folder, split, rows))
            for split, rows in (("train", TRAIN_ROWS), ("validation", VALIDATION_ROWS))
        }
        if not self.tokenizer.is_dir():
            write_tokenizer(self.tokenizer, passages["train"])
        for split, texts in passages.items():
            write_rows(self.texts / f"{split}.jsonl", self.kind, texts)
        self.teacher = self.work / f"teacher-{self.kind}" / "model"
        self.teacher_nll = self._teach(arguments.teacher_steps)
        self.weight = self._weight()

    def student(self, name: str, seed: int) -> dict[str, Any]:
        """One student; its nats a token on the validation texts."""
        terms = [
            {**term, "weight": self.weight} if term["kind"] in ("hidden_mse", "eofd") else term
            for term in METHODS[name]
        ]
        began = time.perf_counter()
        number = list(METHODS).index(name)
        folder = self.work / f"student-{self.kind}-{number}-{seed}"  # of its own, to be resumed
        found = self._train(folder, self._settings(terms, self.steps), seed)
        return {
            "kind": self.kind,
            "method": name,
            "seed": seed,
            "nll": found["validation"]["nll"],
            "teacher": self.teacher_nll,
            "weight": self.weight,
            "steps": self.steps,
            "seconds": time.perf_counter() - began,
        }

    def _teach(self, steps: int) -> float:
        result = self.teacher.parent / "nll.json"
        if not result.is_file():
            model = {"config": model_config(self.kind), "tokenizer": str(self.tokenizer)}
            settings = {"model": model, "max_steps": steps, "learning_rate": 2e-3}
            found = self._train(self.teacher.parent, settings, seed=0)
            result.write_text(json.dumps(found["validation"]["nll"]))
        return float(json.loads(result.read_text()))

    def _weight(self) -> float:
        """λ that makes the plain hidden loss as large as the prediction loss at the first step."""
        terms = [*PREDICTIONS, {"kind": "hidden_mse"}]
        folder = self.work / f"probe-{self.kind}"
        self._train(folder, self._settings(terms, 1), seed=0)
        line = json.loads((folder / "history.jsonl").read_text().splitlines()[0])
        return line["losses"]["forward_kl"] / line["losses"]["hidden_mse"]

    def _settings(self, terms: Sequence[Mapping[str, Any]], steps: int) -> dict[str, Any]:
        return {
            "model": {"from": str(self.teacher), "keep_blocks": KEPT},
            "teacher": str(self.teacher),
            "losses": terms,
            "max_steps": steps,
            "learning_rate": 1e-3,
        }

    def _train(self, folder: Path, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
        objective = "causal_lm" if self.kind == "gpt2" else "text_to_text"
        data = FilesData.model_validate(
            {"path": str(self.texts), "text": "text", "objective": objective}
        )
        config = TrainStep(
            data="novels",
            max_length=LENGTH,
            max_target_length=16,
            batch_size=BATCH_SIZE,
            evaluations=1,
            keep="last",
            **settings,
        )
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / "scratch"
        context = StepContext(
            *(folder.name, folder, scratch, {}, {"novels": data}, self.work.resolve()),
            Progress(quiet=True),
            seed=seed,
        )
        found = train(config, context)
        for file in sorted(scratch.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        return found


def read_passages(folder: Path, split: str, rows: int) -> Iterator[str]:
    """The first passages of a split, spread over it."""
    file = folder / "english_novels" / f"{split}.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        total = sum(1 for _ in lines)
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        step = max(1, total // rows)
        for line in islice(lines, 0, rows * step, step):
            yield json.loads(line)["text"]


def write_tokenizer(folder: Path, texts: Sequence[str]) -> None:
    """Byte-pair encoding learned from the texts; every text for T5 ends with the end token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, GAP],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A $B {END}", special_tokens=[(END, 1)]
    )
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": PAD, "eos_token": END, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def write_rows(file: Path, kind: str, passages: Sequence[str]) -> None:
    """gpt2: the passages. t5: pieces of 40 words with 2 to 6 of them cut out, and those."""
    draw = random.Random(0)
    rows: list[dict[str, str]] = []
    for passage in passages:
        if kind == "gpt2":
            rows.append({"text": passage})
            continue
        words = passage.split()
        for begin in range(0, len(words) - 40, 80):
            piece = words[begin : begin + 40]
            size = draw.randint(2, 6)
            at = draw.randint(5, 30)
            cut = [*piece[:at], GAP, *piece[at + size :]]
            rows.append({"text": " ".join(cut), "target": " ".join(piece[at : at + size])})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")


def model_config(kind: str) -> dict[str, Any]:
    """A GPT-2 or a T5 of about 3.5 and 7 million parameters."""
    ids = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    hidden, wide = WIDTH["hidden"], WIDTH["intermediate"]
    if kind == "gpt2":
        size = {"n_embd": hidden, "n_inner": wide, "n_head": WIDTH["heads"]}
        depth = {"n_layer": WIDTH["blocks"], "n_positions": LENGTH}
        return {"model_type": "gpt2", **ids, **size, **depth}
    size = {"d_model": hidden, "d_ff": wide, "num_heads": WIDTH["heads"], "d_kv": 32}
    depth = {"num_layers": WIDTH["blocks"], "num_decoder_layers": WIDTH["blocks"]}
    start = {"decoder_start_token_id": 0, "feed_forward_proj": "gated-gelu"}
    return {"model_type": "t5", **ids, **size, **depth, **start}


def read_cells(file: Path) -> list[dict[str, Any]]:
    """What has been measured so far."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def page(cells: Sequence[Mapping[str, Any]]) -> str:
    """A table a kind: mean ± sd over seeds, and the paired difference to the plain hidden loss."""
    parts = [
        f"Nats a token on the validation texts, lower is better; {TRAIN_ROWS:,} passages of "
        f"English novels, students of three of six blocks, batches of {BATCH_SIZE} × {LENGTH} "
        "tokens. Differences are paired by seed."
    ]
    for kind in dict.fromkeys(cell["kind"] for cell in cells):
        own = [cell for cell in cells if cell["kind"] == kind]
        by_method = {
            name: {c["seed"]: c["nll"] for c in own if c["method"] == name} for name in METHODS
        }
        reference = by_method["predictions + hidden MSE"]
        rows = [_row(name, found, reference) for name, found in by_method.items() if found]
        head = ("method", "nll", "seeds", "against hidden MSE", "95 %", "verdict")
        about = f"{kind}: teacher {own[0]['teacher']:.3f}, λ {own[0]['weight']:.2g}"
        parts.append(f"**{about}, {own[0]['steps']} steps**\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def _row(
    name: str, found: Mapping[int, float], reference: Mapping[int, float]
) -> tuple[object, ...]:
    values = list(found.values())
    spread = statistics.stdev(values) if len(values) > 1 else float("nan")
    own = (name, f"{statistics.mean(values):.4f} ± {spread:.4f}", len(values))
    shared = sorted(set(found) & set(reference))
    if found is reference or not shared:
        return (*own, "", "", "")
    # the smaller is the better: what is saved is compared
    saved = paired([-found[seed] for seed in shared], [-reference[seed] for seed in shared])
    if saved.low is None or saved.high is None:
        return (*own, f"{-saved.mean:+.4f}", "", saved.verdict)
    interval = f"{-saved.high:+.4f} … {-saved.low:+.4f}"
    return (*own, f"{-saved.mean:+.4f}", interval, saved.verdict)


if __name__ == "__main__":
    main()
