"""Texts a second and Spearman of a sentence-embedding model: int8 in OpenVINO against torch fp32
and against sentence-transformers' own int8.

    python benchmarks/embedding.py --data FOLDER --peer PYTHON --seeds 0 1 2
    python benchmarks/embedding.py --data FOLDER --trial

FOLDER holds stsb/ and squad_question_sentence/. PYTHON is the interpreter of an environment of its
own for the peer, whose pins exclude ours:

    python -m venv PEER && PEER/bin/pip install 'sentence-transformers[openvino]'

Without it, only attar's rows and torch's are measured. All entrants read the same weights, are
calibrated on the same 256 pairs (--examples), and embed the same texts in turns, tokenizing
included, with the same number of threads. A ratio is the median of the ratios of the rounds, with
smallest and largest. With several seeds, attar's int8 model is also made of as many choices of
pairs, for what it loses; the first is the one that is timed. The student has three of the model's
six blocks and learned its vectors. A trial is as small as it can be and writes no page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from attar.cores import usable_cores
from attar.data.config import FilesData
from attar.data.load import load_data
from attar.export.config import ExportStep, Parity
from attar.export.deployed import Deployed
from attar.export.run import export
from attar.models.foreign import task_of
from attar.models.sources.references import resolve_model
from attar.numerics.metrics import METRICS
from attar.numerics.statistics import bootstrap, bootstrap_interval, paired_bootstrap
from attar.progress import Progress
from attar.quantization.calibration.calibrate import choose_examples
from attar.quantization.config import QuantizeStep
from attar.quantization.run import quantize
from attar.scoring.forms import open_form
from attar.scoring.rows import longest_first, score_rows
from attar.scoring.vectors import TextPairs
from attar.step import StepContext
from attar.tasks.embedding import Embedding
from attar.training.config import TrainStep
from attar.training.run import train
from record import table, write_page

BATCH = 32
ANY_PARITY = Parity(examples=64, max_relative_error=1e6)
"""The benchmark itself measures how near the models are."""
PEER = Path(__file__).with_name("embedding_peer.py")
STUDENT = {
    **{"run": "train", "teacher": "float", "data": "questions", "batch_size": 64},
    **{"learning_rate": 3e-4, "precision": "fp32"},
    "losses": [{"kind": "vector_mse", "weight": 10.0}, {"kind": "similarity_kl"}],
}
TRIAL = {"examples": 16, "rows": 64, "timed": 32, "rounds": 1, "epochs": 1.0, "dry": True}
Embed = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Entrant:
    """Whoever embeds texts, and how: all of them tokenize in the call."""

    name: str
    embed: Embed


class Bench:
    """The steps' surroundings: data, one model, a folder for what is made."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.arguments, self.scratch = arguments, scratch
        folder = arguments.data.resolve()
        limits = {"train_rows": arguments.rows or None, "validation_rows": arguments.rows or None}
        questions = scratch / "questions"
        questions.mkdir()
        for stem, split in (("test", "train"), ("validation", "validation")):  # it has no train
            source = folder / "squad_question_sentence" / f"{stem}.jsonl.gz"
            shutil.copyfile(source, questions / f"{split}.jsonl.gz")
        self.data: dict[str, FilesData] = {
            "stsb": FilesData(
                path=str(folder / "stsb"),
                text=("sentence1", "sentence2"),
                label="score",
                objective="sentence_embedding",
                **limits,
            ),
            "questions": FilesData(
                path=str(questions),
                text=("question", "sentence"),
                objective="sentence_embedding",
                **limits,
            ),
        }
        self.model = resolve_model(arguments.model, {}, Path.cwd())
        self.threads = arguments.threads or usable_cores()

    def context(self, name: str, **inputs: Path) -> StepContext:
        folder = self.scratch / name
        folder.mkdir()
        return StepContext(
            name=name,
            folder=folder,
            scratch=self.scratch / f".{name}",
            inputs=inputs,
            data=dict(self.data),
            recipe_folder=Path.cwd(),
            progress=Progress(quiet=True),
            seed=self.arguments.seeds[0],
            recipe={"name": "embedding", "data": {}, "steps": {}},
        )

    def student(self) -> Path:
        length = min(128, task_of(self.model).max_length)
        settings = STUDENT | {"epochs": self.arguments.epochs, "max_length": length}
        step = TrainStep.model_validate(
            {**settings, "model": {"from": "float", "keep_blocks": self.arguments.keep_blocks}}
        )
        context = self.context("student", float=self.model)
        train(step, context)
        return context.folder / "model"

    def int8(self, name: str, source: Path, seed: int | None = None) -> Entrant:
        """Args: seed: which pairs calibrate; None: the first."""
        examples = self.arguments.examples
        calibration = {"data": "questions", "examples": examples, "seed": seed}
        step = TypeAdapter(QuantizeStep).validate_python(
            {"method": self.arguments.method, "model": "float", "calibration": calibration}
        )
        made = self.context(f"{name}-int8", float=source)
        quantize(step, made)
        file = self.context(f"{name}-openvino", int8=made.folder)
        export(ExportStep(model="int8", data="questions", parity=ANY_PARITY), file)
        model = Deployed(file.folder, threads=self.threads)
        return Entrant(f"attar int8, OpenVINO{_of(name)}", lambda texts: model.embed(texts))

    def torch(self) -> Entrant:
        form = open_form(self.model, self.threads)

        def embed(texts: Sequence[str]) -> np.ndarray:
            encoded = form.encoder.encode([(text,) for text in texts])
            batches = longest_first(encoded.lengths, BATCH)
            return score_rows(form.logits, encoded, batches, "torch")

        return Entrant("torch fp32 (attar's loop)", embed)

    def calibration_file(self) -> Path:
        """The same rows as attar's, a text a line."""
        rows = load_data(self.data["questions"], Path.cwd()).split("train").texts
        file = self.scratch / "calibration.jsonl"
        examples, seed = self.arguments.examples, self.arguments.seeds[0]
        chosen = choose_examples(len(rows), examples, seed, "questions")
        lines = [json.dumps({"text": text}) for row in chosen for text in rows[row]]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return file


def _of(name: str) -> str:
    return "" if name == "model" else f" ({name})"


class Peer:
    """A process of the peer's environment."""

    def __init__(self, bench: Bench, backend: str) -> None:
        command = [bench.arguments.peer, "-P", str(PEER), str(bench.model), "--backend", backend]
        command += ["--calibration", str(bench.calibration_file())]
        command += ["--threads", str(bench.threads)]
        self._scratch = bench.scratch
        self._process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.version = self._answer()["sentence-transformers"]
        self.name = f"sentence-transformers {self.version}, {backend}"

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{PEER.name} ended; see its words above")
        return json.loads(line)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        asked, vectors = self._scratch / "asked.json", self._scratch / "vectors.npy"
        asked.write_text(json.dumps(list(texts)), encoding="utf-8")
        self._ask({"texts": str(asked), "batch": BATCH, "vectors": str(vectors)})
        return np.load(vectors)

    def seconds(self, texts: Path) -> float:
        return self._ask({"texts": str(texts), "batch": BATCH, "vectors": None})["seconds"]

    def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def in_turns(
    entrants: Sequence[Entrant | Peer], texts: Sequence[str], scratch: Path, rounds: int
) -> dict[str, list[float]]:
    """Entrant → texts a second in each round."""
    file = scratch / "timed.json"
    file.write_text(json.dumps(list(texts)), encoding="utf-8")
    rates: dict[str, list[float]] = {each.name: [] for each in entrants}
    for number in range(rounds + 1):
        for each in entrants:
            if isinstance(each, Peer):
                seconds = each.seconds(file)
            else:
                started = time.perf_counter()
                each.embed(texts)
                seconds = time.perf_counter() - started
            if number:  # the first round warms up
                rates[each.name].append(len(texts) / seconds)
    return rates


def page(bench: Bench, entrants: Sequence[Entrant | Peer], choices: Sequence[Entrant]) -> str:
    """Args: choices: attar's int8 model, once for each choice of calibration pairs."""
    split = load_data(bench.data["stsb"], Path.cwd()).split("validation")
    pairs = TextPairs.of(split.texts)
    texts = [text for (text,) in pairs.read_by(Embedding())]
    cosines = {each.name: pairs.cosines(each.embed(texts)) for each in entrants}
    drawn = bootstrap("spearman", cosines, split.labels, seed=bench.arguments.seeds[0])
    rounds = bench.arguments.rounds
    timed = texts[: bench.arguments.timed]
    rates = in_turns(entrants, timed, bench.scratch, rounds) if rounds else {}
    first, rivals = entrants[0].name, [each.name for each in entrants if isinstance(each, Peer)]
    against = [first, *rivals[-1:]]
    rows = []
    for each in entrants:
        own = bootstrap_interval(drawn[each.name])
        lost = paired_bootstrap(drawn[each.name], drawn[first])
        cells = [
            each.name,
            f"{own.value:.4f}",
            f"{100 * lost.value:+.2f} ({100 * lost.low:+.2f} … {100 * lost.high:+.2f})",
        ]
        if rates:
            cells += [f"{statistics.median(rates[each.name]):,.0f}"]
            cells += [ratio(rates[each.name], rates[other]) for other in against]
        rows.append(cells)
    head = ["entrant", "Spearman, STS-B validation", "points against the first (95 %)"]
    if rates:
        head += ["texts/s", *(f"of {other} (min … max)" for other in against)]
    kept = [
        100 * METRICS["spearman"](pairs.cosines(each.embed(texts)), split.labels)
        for each in choices
    ]
    plain = 100 * METRICS["spearman"](cosines[first], split.labels)
    changes = ", ".join(f"{value - plain:+.2f}" for value in kept)
    return (
        f"{len(split):,} pairs; {len(timed):,} texts timed in batches of {BATCH}, {rounds} rounds "
        f"in turns, {bench.threads} threads; calibrated on {bench.arguments.examples} pairs.\n\n"
        + table(head, rows)
        + f"\n\nattar's int8 by choice of calibration pairs, points against the first: {changes}."
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Of two rates, round by round."""
    found = [own / other for own, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} … {max(found):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="demo:minilm-l6", help="a folder, or a demo model")
    parser.add_argument("--peer", help="python of the peer's environment; without it no peer")
    parser.add_argument("--method", default="percentile", help="attar's quantization method")
    parser.add_argument("--examples", type=int, default=256, help="pairs that calibrate")
    parser.add_argument("--keep-blocks", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--epochs", type=float, default=3.0, help="of the student; 0: no student")
    parser.add_argument("--rows", type=int, default=0, help="of each split; 0: all")
    parser.add_argument("--timed", type=int, default=1000, help="texts in a timed call")
    parser.add_argument("--rounds", type=int, default=12, help="of timing; 0: none")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the calibrations")
    parser.add_argument("--trial", action="store_true", help=f"as {TRIAL}")
    parser.add_argument("--dry", action="store_true", help="print only, write no page")
    arguments = parser.parse_args()
    if arguments.trial:
        vars(arguments).update(TRIAL)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(arguments, Path(scratch))
        peers: list[Entrant | Peer] = []
        if arguments.peer:
            peers = [Peer(bench, backend) for backend in ("torch", "openvino-qint8")]
        else:
            print("no --peer: sentence-transformers is left out", file=sys.stderr)
        choices = [bench.int8("model", bench.model)]
        choices += [bench.int8(f"model {s}", bench.model, s) for s in arguments.seeds[1:]]
        entrants = [bench.torch(), *peers, choices[0]]
        if arguments.epochs:
            kept = f"{len(arguments.keep_blocks)}-block student"
            entrants.append(bench.int8(kept, bench.student()))
        body = page(bench, entrants, choices)
        for peer in peers:
            peer.close()  # pyright: ignore[reportAttributeAccessIssue]
    if arguments.dry:
        print(body)
    else:
        write_page("embedding", "How fast does an int8 model embed, and what does it lose?", body)


if __name__ == "__main__":
    main()
