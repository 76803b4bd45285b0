"""What does a feed-forward matter in a tiny T5? Every simpler one, several seeds, and two teachers.

A nano T5 (two blocks a stack, hidden size 128) is pre-trained by span corruption on English novels
and fine-tuned to write the sentiment of SST-2 sentences. Settings differ in the feed-forward alone:

    base                                    the family's own, 512 wide
    skip, skip_encoder                      none; none in the encoder
    1w, 1w_relu                             one matrix; with a ReLU behind it
    2w, 3w, 3w_2x, 3w_1_5x, 3w_1_2x         chains, folded into one matrix and judged again

Then base's pre-trained weights are fine-tuned with a teacher: `by_near` (hidden size 192) with
α = 0.1 and T = 3, `by_far` (256, three blocks a stack) with α = 0.9 and T = 4, the best of table
4.6 of the report. A cell is one setting and one seed; seed s draws the weights, the hidden spans
and the order of the rows of all settings alike, so differences are taken within seeds. A run whose
pre-training loss fell off the path of its other seeds is named (`attar.numerics.failed_runs`).

    python benchmarks/small_t5.py NOVELS --glue GLUE --out FOLDER
    python benchmarks/small_t5.py NOVELS --glue GLUE --out FOLDER --task qqp

NOVELS holds train.jsonl.gz and validation.jsonl.gz, GLUE holds sst2/<split>.jsonl.gz and, for the
second task, qqp/: pairs of questions, of which the public split has validation (10,000 to learn
from) and test (the first 2,000 judge). It fine-tunes the pre-trained models of the first. Cells are
appended to results/small-t5_cells.jsonl, seed by seed, and the page is written from them; the same
command goes on where it was stopped, in the middle of a cell too. `--shrink 0.02 --seeds 2
--cells FILE`: a trial. Source: UCB/EECS-2023-141, tables 4.1, 4.4, 4.5 and 4.6.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from attar.numerics.failed_runs import FEWEST, failed_runs
from attar.numerics.paired import paired
from attar.progress import human_seconds
from attar.recipe.run import run_recipe
from attar.report.charts.curves import curves_svg
from attar.report.charts.pictures import CURVE_SHAPES
from attar.report.charts.seed_spread import seed_picture
from attar.report.sections.seed_comparisons import seed_comparisons, signed
from attar.report.sections.training import Curve
from ptq_table import read_cells
from record import RESULTS, append_cell, table, write_chart, write_page

TASKS = {"sst2": ("SST-2", 64), "qqp": ("QQP", 96)}
"""Task → its name, and the maximum number of tokens of a text."""
JUDGED = 2_000
PRETRAINING, FINE_TUNING, ROWS = 120, 600, 16_000
"""Optimizer steps of batches of 16 and of 32 rows, and the sentences to draw these from. Chosen on
seed 0 of `base` alone: after 120 steps of fine-tuning on 4,000 sentences it answers at chance."""
OWN = {
    "base": "",
    "skip": 'ffn = "skip"',
    "skip_encoder": 'ffn = "skip_encoder"',
    "1w": 'ffn = "1w"',
    "1w_relu": 'ffn = "1w_relu"',
    "2w": 'ffn = "2w"',
    "3w": 'ffn = "3w"',
    "3w_2x": 'ffn = "3w", ffn_expansion = 2',
    "3w_1_5x": 'ffn = "3w", ffn_expansion = 1.5',
    "3w_1_2x": 'ffn = "3w", ffn_expansion = 1.2',
}
"""Setting → what its model has beside the size."""
TEACHERS = {
    "near": "d_model = 192, d_ff = 768, num_heads = 6",
    "far": "d_model = 256, d_ff = 1024, num_heads = 8, num_layers = 3, num_decoder_layers = 3",
}
TAUGHT = {"by_near": ("near", 0.1, 3), "by_far": ("far", 0.9, 4)}
"""Setting → teacher, α (the weight of the labels) and T."""
SETTINGS = (*OWN, *TAUGHT)
NAMES = (*SETTINGS, *TEACHERS)
FOLDED = ("2w", "3w", "3w_2x", "3w_1_5x", "3w_1_2x")
ORDER = ("base", "3w", "2w", "1w", "skip")
"""That of the report, the best first."""
PAIRS = (
    *pairwise(ORDER),
    *(("base", name) for name in OWN if name not in ("base", "3w")),
    *(("1w_relu", "1w"), ("skip_encoder", "skip")),
    *(("3w_2x", "3w"), ("3w_1_5x", "3w"), ("3w_1_2x", "3w")),
    *(("by_near", "base"), ("by_far", "base"), ("by_near", "by_far")),
)
CURVE_POINTS = 40
"""Of a loss curve that a cell keeps."""
WORLD = """
name = "world"
seed = 0

[data.novels]
source = "files"
path = {novels}
text = "text"
objective = "causal_lm"

[steps.corpus]
run = "tokenize"
data = "novels"
tokenizer = {{ train_on = "novels", vocab_size = 2048, sentinels = 100 }}
max_length = 128
share = {share}
"""
DATA = """
name = "{name}"
seed = {seed}

[data.corpus]
source = "corpus"
path = {corpus}

[data.corpus.validation]
source = "files"
path = {novels}
text = "text"
objective = "causal_lm"
validation_rows = 24

[data.{task}]
source = "glue"
task = "{task}"
path = {glue}
train_rows = {rows}
rows_seed = 0
"""
ADAFACTOR = """optimizer = "adafactor"
weight_decay = 0.0
max_grad_norm = false
precision = "fp32"
keep = "last"
evaluations = 1
"""
PRETRAINED = """
[steps.pretrained]
run = "train"
model = {{ size = "nano", family = "t5", tokenizer = {corpus}, {model} }}
data = "corpus"
objective = "span_corruption"
max_length = 128
max_steps = {steps}
batch_size = 16
learning_rate = 0.02
schedule = "inverse_sqrt"
warmup_steps = {warmup}
{adafactor}"""
STUDENT = """
[steps.student]
run = "train"
model = {model}
data = "{task}"
objective = "text_to_text"
max_length = {max_length}
max_steps = {steps}
batch_size = 32
learning_rate = 1e-3
schedule = "constant"
warmup_ratio = 0.0
{taught}{adafactor}"""
FOLD = """
[steps.folded]
run = "fold"
model = "student"
data = "{task}"
fold_norms = true
"""
SCORES = """
[steps.scores]
run = "evaluate"
models = {models}
data = "{task}"
speed = {speed}
memory = false
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("novels", type=Path)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", choices=TASKS, default="sst2")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shrink", type=float, default=1.0, help="of all amounts; 0.02: a trial")
    parser.add_argument("--cells", type=Path, help="default: results/small-t5[-qqp]_cells.jsonl")
    parser.add_argument("--render", action="store_true", help="only write the page")
    asked = parser.parse_args()
    page_name = "small-t5" if asked.task == "sst2" else f"small-t5-{asked.task}"
    asked.cells = asked.cells or RESULTS / f"{page_name}_cells.jsonl"
    bench = Bench(asked)
    if not asked.render:
        bench.measure_all()
    cells = [cell for cell in read_cells(asked.cells) if cell["seed"] < asked.seeds]
    by_setting = {name: found for name in NAMES if (found := runs_of(name, cells))}
    missing = len(bench.wanted) - len(cells)
    body = f"{missing} of {len(bench.wanted)} cells are missing.\n\n" if missing else ""
    title = TASKS[asked.task][0]
    body += page(title, by_setting, bench.timed())
    if asked.shrink == 1:
        body += "\n\n".join(["\n\n## Seeds", *charts(page_name, title, by_setting)])
        question = f"Simpler feed-forwards and two teachers of a nano T5: {title}"
        write_page(page_name, question, body, cells)
    else:
        print(body)


class Bench:
    """The recipes of all cells, run one after the other."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked, self.folder = asked, asked.out.resolve()
        self.runs = self.folder / "runs"
        self.pretraining, self.fine_tuning, self.rows = (
            max(least, round(asked.shrink * amount))
            for amount, least in ((PRETRAINING, 4), (FINE_TUNING, 4), (ROWS, 64))
        )
        self.is_first = asked.task == "sst2"
        self.paths = {
            "task": asked.task,
            "novels": json.dumps(str(asked.novels.resolve())),
            "glue": json.dumps(str((asked.glue if self.is_first else self.joined()).resolve())),
            "corpus": json.dumps(str(self.runs / "world" / "corpus")),
        }

    def joined(self) -> Path:
        """The task's data with validation as train, and some of test as validation."""
        source, made = self.asked.glue / self.asked.task, self.folder / "glue"
        splits = made / self.asked.task
        splits.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / "validation.jsonl.gz", splits / "train.jsonl.gz")
        with gzip.open(source / "test.jsonl.gz") as rows:
            (splits / "validation.jsonl.gz").write_bytes(
                gzip.compress(b"".join(islice(rows, JUDGED)), mtime=0)
            )
        return made

    def run_name(self, setting: str, seed: int) -> str:
        return f"{'' if self.is_first else f'{self.asked.task}_'}{setting}{seed}"

    @property
    def wanted(self) -> list[tuple[str, int]]:
        """Setting and seed of every cell, in order."""
        every = [(name, seed) for seed in range(self.asked.seeds) for name in SETTINGS]
        return [*((name, 0) for name in TEACHERS), *every]

    def measure_all(self) -> None:
        """Every cell that is not in the file yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        share = 0.3 if self.asked.shrink == 1 else 0.02
        self.run("world", WORLD.format(**self.paths, share=share))
        known = {(cell["setting"], cell["seed"]) for cell in read_cells(self.asked.cells)}
        left = [key for key in self.wanted if key not in known]
        for place, (setting, seed) in enumerate(left):
            taken = [cell["seconds"] for cell in read_cells(self.asked.cells)]
            if taken:
                seconds = (len(left) - place) * statistics.mean(taken)
                print(f"{len(left) - place} cells left, about {human_seconds(seconds)}", flush=True)
            append_cell(self.asked.cells, self.measure(setting, seed))

    def measure(self, setting: str, seed: int) -> dict[str, Any]:
        began = time.perf_counter()
        run = self.run(self.run_name(setting, seed), self.recipe(setting, seed))
        seconds = time.perf_counter() - began
        student, judged = metrics_of(run / "student"), metrics_of(run / "scores")["models"]
        cell: dict[str, Any] = {
            "setting": setting,
            "seed": seed,
            "accuracy": judged["student"]["accuracy"]["value"],
            "num_params": student["num_params"],
            "flops": judged["student"]["flops"],
            "seconds": round(seconds, 1),
        }
        if self.is_first and setting not in TAUGHT:
            cell |= {"nll": metrics_of(run / "pretrained")["validation"]["nll"]}
            cell |= {"curve": curve(run / "pretrained")}
        if setting in FOLDED:
            proof = metrics_of(run / "folded")["certificate"]
            cell |= {
                "folded_accuracy": judged["folded"]["accuracy"]["value"],
                "folded_params": judged["folded"]["num_params"],
                "folded_flops": judged["folded"]["flops"],
                "relative_difference": proof["relative_difference"],
            }
        return cell

    def recipe(self, setting: str, seed: int) -> str:
        """One cell: pre-train, fine-tune, fold, judge."""
        name = self.run_name(setting, seed)
        head = DATA.format(name=name, seed=seed, rows=self.rows, **self.paths)
        models = ["student", *(["folded"] if setting in FOLDED else [])]
        return "".join(
            [
                head,
                self.pretrained(setting) if self.is_first and setting not in TAUGHT else "",
                self.student(setting, seed),
                FOLD.format(task=self.asked.task) if setting in FOLDED else "",
                SCORES.format(models=json.dumps(models), speed="false", task=self.asked.task),
            ]
        )

    def pretrained(self, setting: str) -> str:
        widths = TEACHERS.get(setting, "")
        config = f"config = {{ dropout_rate = 0.0{', ' if widths else ''}{widths} }}"
        model = ", ".join(filter(None, [config, OWN.get(setting, "")]))
        return PRETRAINED.format(
            corpus=self.paths["corpus"],
            model=model,
            steps=self.pretraining,
            warmup=max(1, self.pretraining // 10),
            adafactor=ADAFACTOR,
        )

    def student(self, setting: str, seed: int) -> str:
        model, taught = '"pretrained"', ""
        if not self.is_first or setting in TAUGHT:
            start = "base" if setting in TAUGHT else setting
            model = json.dumps(str(self.runs / f"{start}{seed}" / "pretrained"))
        if setting in TAUGHT:
            teacher, alpha, temperature = TAUGHT[setting]
            folder = self.runs / self.run_name(teacher, 0) / "student"
            taught = (
                f"teacher = {json.dumps(str(folder))}\n"
                f'losses = [{{ kind = "cross_entropy", weight = {alpha} }}, '
                f'{{ kind = "soft_cross_entropy", weight = {1 - alpha:.1f}, '
                f"temperature = {temperature} }}]\n"
            )
        return STUDENT.format(
            model=model,
            taught=taught,
            task=self.asked.task,
            max_length=TASKS[self.asked.task][1],
            steps=self.fine_tuning,
            adafactor=ADAFACTOR,
        )

    def timed(self) -> dict[str, Any]:
        """Setting → its figures; the models of the first seed take turns."""
        models = {name: self.runs / f"{name}0" / "student" for name in OWN}
        models |= {f"{name} folded": self.runs / f"{name}0" / "folded" for name in FOLDED}
        if not self.is_first or not all(folder.exists() for folder in models.values()):
            return {}
        listed = json.dumps([str(folder) for folder in models.values()])
        speed = "{ batch_sizes = [1], tokens = 64, threads = 1 }"
        text = DATA.format(name="timed", seed=0, rows=self.rows, **self.paths)
        run = self.run("timed", text + SCORES.format(models=listed, speed=speed, task="sst2"))
        found = metrics_of(run / "scores")["models"]
        return {name: found[str(folder)] for name, folder in models.items()}

    def run(self, name: str, text: str) -> Path:
        file = self.folder / f"{name}.toml"
        file.write_text(text, encoding="utf-8")
        return run_recipe(file, out=self.runs, quiet=True).folder


def metrics_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))["metrics"]


def curve(folder: Path) -> list[float]:
    """Training losses, each a mean of neighbours."""
    lines = map(json.loads, (folder / "history.jsonl").read_text(encoding="utf-8").splitlines())
    losses = [line["loss"] for line in lines if "loss" in line]
    width = max(1, len(losses) // CURVE_POINTS)
    ends = range(width, len(losses) + 1, width)
    return [round(statistics.mean(losses[end - width : end]), 4) for end in ends]


Runs = Mapping[int, Mapping[str, Any]]
"""Seed → cell."""


def runs_of(name: str, cells: Sequence[Mapping[str, Any]]) -> Runs:
    """The cells of a setting, with the pre-training that a taught one starts from."""
    own = {cell["seed"]: cell for cell in cells if cell["setting"] == name}
    if name not in TAUGHT:
        return own
    shared = ("curve", "nll")
    base = {
        seed: {field: cell[field] for field in shared if field in cell}
        for seed, cell in runs_of("base", cells).items()
    }
    return {seed: {**base.get(seed, {}), **cell} for seed, cell in own.items()}


def page(title: str, by_setting: Mapping[str, Runs], timed: Mapping[str, Any]) -> str:
    cells = [cell for runs in by_setting.values() for cell in runs.values()]
    minutes = sum(cell["seconds"] for cell in cells) / 60
    parts = [
        f"{title}, accuracy in percent; {minutes:.0f} minutes in all. Parameters and "
        "FLOPs (128 tokens read and 128 written) of a chain are those it is trained with; folded, "
        "those of `1w`. A seed failed if its pre-training loss ends far above those of the "
        "setting's other seeds; best, mean and sd are over all seeds.",
        table(
            [
                *("setting", "parameters", "MFLOP", "seeds", "nll of spans", "best", "mean", "sd"),
                *("folded", "failed seeds"),
            ],
            [setting_row(name, runs) for name, runs in by_setting.items()],
        ),
        *folding_words(cells),
        "## In pairs",
        "The same seeds on both sides, without those that failed on either; difference in points "
        "with its 95 % interval (Student's t over seeds) and the p of a sign-flip test, which five "
        "seeds cannot bring below 0.06.",
        table(
            ["pair", "difference", "p", "seeds won", "verdict"],
            [row for a, b in PAIRS if (row := pair_row(a, b, by_setting)) is not None],
        ),
    ]
    if timed:
        parts += [
            "## Latency",
            "One sentence of 64 tokens, one thread, the models of the first seed in turns: the "
            "encoder (prefill), and one written token. Faster: against base, median of the rounds "
            "(min to max). FLOPs of the decoder, with the head: 64 written tokens.",
            table(
                [
                    *("model", "parameters", "encoder MFLOP", "decoder MFLOP"),
                    *("prefill ms", "faster", "decode step ms", "faster"),
                ],
                [timed_row(name, each) for name, each in timed.items()],
            ),
        ]
    return "\n\n".join(parts)


def folding_words(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """What folding changed."""
    folded = [cell for cell in cells if "folded_accuracy" in cell]
    if not folded:
        return []
    points = max(100 * abs(cell["folded_accuracy"] - cell["accuracy"]) for cell in folded)
    logits = max(cell["relative_difference"] for cell in folded)
    return [
        f"Folding, over {len(folded)} cells, changed an accuracy by at most {points:.1f} points "
        f"and a logit by at most {logits:.1e} of the largest."
    ]


def failed_seeds(runs: Runs) -> tuple[str, ...]:
    curves = {str(seed): cell["curve"] for seed, cell in runs.items() if "curve" in cell}
    return failed_runs(curves)


def charts(page_name: str, title: str, by_setting: Mapping[str, Runs]) -> list[str]:
    """Markdown of the accuracy of every seed; and of the losses of base's seeds, as in figure 4.1
    of the report, and of those of each setting with a failed one."""
    models = {
        f"{name}@seed={seed}": {"accuracy": {"value": cell["accuracy"]}}
        for name, runs in by_setting.items()
        for seed, cell in runs.items()
        if name in SETTINGS
    }
    found = seed_comparisons({"scores": {"data": {"name": title}, "models": models}})
    pictures = [
        "A colour for each seed, the same in all charts; tick: mean of all; dashed: failed."
    ]
    pictures += [write_chart(f"{page_name}-seeds", seed_picture(each).wide) for each in found]
    for name in OWN:
        runs = by_setting.get(name, {})
        failed = failed_seeds(runs)
        is_known = any("curve" in cell for cell in runs.values())
        if is_known and len(runs) > 1 and (failed or name == "base"):
            label = f"Pre-training loss of {name}, {len(runs)} seeds; dashed: failed"
            curves = [loss_curve(seed, cell["curve"], failed) for seed, cell in runs.items()]
            drawn = curves_svg(curves, "loss", CURVE_SHAPES[0], label)
            pictures.append(write_chart(f"small-t5-losses-{name}", drawn))
    return pictures


def loss_curve(seed: int, losses: Sequence[float], failed: Sequence[str]) -> Curve:
    width = PRETRAINING / len(losses)
    points = tuple((width * (place + 1), loss) for place, loss in enumerate(losses))
    return Curve(f"seed {seed}", points, is_failed=str(seed) in failed)


def setting_row(name: str, runs: Runs) -> list[str]:
    scores = [100 * cell["accuracy"] for cell in runs.values()]
    folded = [100 * cell["folded_accuracy"] for cell in runs.values() if "folded_accuracy" in cell]
    nll = [cell["nll"] for cell in runs.values() if "nll" in cell]
    first = next(iter(runs.values()))
    return [
        name,
        f"{first['num_params']:,}",
        f"{first['flops'] / 1e6:.1f}",
        str(len(runs)),
        f"{statistics.mean(nll):.3f}" if nll else "",
        f"{max(scores):.1f}",
        f"{statistics.mean(scores):.1f}",
        f"{statistics.stdev(scores):.1f}" if len(scores) > 1 else "",
        f"{statistics.mean(folded):.1f}" if folded else "",
        ", ".join(failed_seeds(runs)) or ("none" if len(runs) >= FEWEST else ""),
    ]


def pair_row(a: str, b: str, by_setting: Mapping[str, Runs]) -> list[str] | None:
    ours, theirs = by_setting.get(a, {}), by_setting.get(b, {})
    failed = {*failed_seeds(ours), *failed_seeds(theirs)}
    shared = [seed for seed in sorted(ours.keys() & theirs.keys()) if str(seed) not in failed]
    if not shared:
        return None
    found = paired(*([runs[seed]["accuracy"] for seed in shared] for runs in (ours, theirs)))
    mean, low, high = (signed(each, "accuracy") for each in (found.mean, found.low, found.high))
    return [
        f"{a} − {b}",
        f"{mean} ({low} to {high})" if low else mean,
        "" if found.p is None else f"{found.p:.2f}",
        f"{found.wins} of {found.n}",
        found.verdict,
    ]


def timed_row(name: str, figures: Mapping[str, Any]) -> list[str]:
    row = [name, f"{figures['num_params']:,}"]
    for stacks in (("encoder",), ("decoder", "head")):
        own = (v["flops"] for k, v in figures["parts"].items() if k.partition(".")[0] in stacks)
        row.append(f"{sum(own) / 1e6:.2f}")
    for stage in figures["stages"].values():
        faster = stage["speedup"]
        spread = f"{faster['median']:.2f}× ({faster['min']:.2f} to {faster['max']:.2f})"
        row += [f"{stage['p50']:.3f}", spread]
    return row


if __name__ == "__main__":
    main()
