"""What does a loss over a language head cost, beside whole logits?

    python benchmarks/head_loss.py [--rounds 10] [--vocabulary 49152] [--hidden 576]
                                   [--texts 8] [--tokens 256] [--threads N]

Forward and backward of a loss from the student's hidden states on, the head's weight included:
cross-entropy, forward KL with a live teacher, and half of each. "whole logits" is the loss as it
is usually written: the products with both heads, `log_softmax`, `kl_div` or `cross_entropy`, and
autograd. "attar" is the objective of a train step. "products only" are the matrix products that
both need and nothing else. They are timed in turns in one process. Peak memory is what one loss
adds to the resident memory of a process of its own that holds weights and hidden states. Losses
and gradients are compared: the same is computed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor
from torch.nn import functional

from attar.artifacts import MIB
from attar.losses.config import CrossEntropy, ForwardKl, LossConfig
from attar.losses.targets import Outputs, Targets, count_units
from attar.losses.total import TotalLoss
from attar.numerics.logits import Head, HeadLogits
from attar.recipe.running.memory import peak_memory
from record import table, write_page

LOSSES: dict[str, tuple[LossConfig, ...]] = {
    "cross-entropy": (CrossEntropy(),),
    "forward KL": (ForwardKl(),),
    "½ cross-entropy + ½ forward KL": (CrossEntropy(weight=0.5), ForwardKl(weight=0.5)),
}


@dataclass(frozen=True)
class Case:
    """What a loss is computed from."""

    hidden: Tensor
    weight: Tensor
    teacher_hidden: Tensor
    teacher_weight: Tensor
    labels: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (
        ("rounds", 10),
        ("vocabulary", 49_152),
        ("hidden", 576),
        ("texts", 8),
        ("tokens", 256),
        ("threads", torch.get_num_threads()),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    case = made(arguments)
    if arguments.alone:
        print(json.dumps(peak_mib(case, *arguments.alone)))
        return
    rows: list[list[object]] = []
    for name in LOSSES:
        rows += compared(case, name, arguments.rounds)
    head = (
        *("loss", "how", "seconds", "time of whole logits / own"),
        *("peak MiB", "of it whole logits", "difference of gradients"),
    )
    words = (
        f"{arguments.texts} × {arguments.tokens} tokens, vocabulary {arguments.vocabulary:,}, "
        f"hidden size {arguments.hidden} (student and teacher), float32, "
        f"{torch.get_num_threads()} threads, {arguments.rounds} rounds in turns; median "
        "(min … max of the rounds)."
    )
    question = "What does a loss over a language head cost, beside whole logits?"
    write_page("head-loss", question, f"{words}\n\n{table(head, rows)}")


def made(arguments: argparse.Namespace) -> Case:
    generator = torch.Generator().manual_seed(0)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    shape, width = (arguments.texts, arguments.tokens), arguments.hidden
    scale = width**-0.5
    return Case(
        hidden=drawn(*shape, width).requires_grad_(),
        weight=(drawn(arguments.vocabulary, width) * scale).requires_grad_(),
        teacher_hidden=drawn(*shape, width),
        teacher_weight=drawn(arguments.vocabulary, width) * scale,
        labels=torch.randint(arguments.vocabulary, shape, generator=generator),
    )


def attar(case: Case, name: str) -> float:
    targets = Targets(case.labels, {"decoder": torch.ones_like(case.labels)})
    student = Outputs(HeadLogits(Head(case.weight), case.hidden))
    teacher = Outputs(HeadLogits(Head(case.teacher_weight), case.teacher_hidden))
    counts = count_units(case.labels, {"decoder": case.labels.numel()})
    total = TotalLoss(LOSSES[name], "causal_lm")(student, teacher, targets, counts).total
    total.backward()
    return float(total.detach())


def whole_logits(case: Case, name: str) -> float:
    logits = (case.hidden @ case.weight.t()).flatten(0, 1)
    total = torch.zeros(())
    for term in LOSSES[name]:
        if isinstance(term, CrossEntropy):
            value = functional.cross_entropy(logits, case.labels.flatten())
        else:
            with torch.no_grad():
                taught = (case.teacher_hidden @ case.teacher_weight.t()).flatten(0, 1)
                log_p = functional.log_softmax(taught, dim=-1)
            log_q = functional.log_softmax(logits, dim=-1)
            value = functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
        total = total + float(term.weight) * value  # type: ignore[arg-type]
    total.backward()
    return float(total.detach())


def products_only(case: Case, name: str) -> float:
    """The student's three products, and the teacher's where it is asked."""
    hidden, taught = case.hidden.detach().flatten(0, 1), case.teacher_hidden.flatten(0, 1)
    weight = case.weight.detach()
    for rows in torch.arange(len(hidden)).split(256):
        logits = hidden[rows] @ weight.t()
        logits @ weight
        logits.t() @ hidden[rows]
        if any(isinstance(term, ForwardKl) for term in LOSSES[name]):
            taught[rows] @ case.teacher_weight.t()
    return 0.0


HOW: dict[str, Callable[[Case, str], float]] = {
    "attar": attar,
    "whole logits": whole_logits,
    "products only": products_only,
}


def compared(case: Case, name: str, rounds: int) -> list[list[object]]:
    """Rows of the table for one loss."""
    gradients: dict[str, tuple[float, Tensor, Tensor]] = {}
    seconds: dict[str, list[float]] = {how: [] for how in HOW}
    for number in range(1 + rounds):
        for how, job in HOW.items():
            case.hidden.grad = case.weight.grad = None
            began = time.perf_counter()
            value = job(case, name)
            if number > 0:
                seconds[how].append(time.perf_counter() - began)
            elif case.hidden.grad is not None and case.weight.grad is not None:
                gradients[how] = value, case.hidden.grad, case.weight.grad
    case.hidden.grad = case.weight.grad = None
    (own, *own_gradients), (other, *others) = gradients["attar"], gradients["whole logits"]
    apart = [float((a - b).norm() / b.norm()) for a, b in zip(own_gradients, others, strict=True)]
    same = f"{max(abs(own - other) / abs(other), *apart):.1e}"
    peaks = {how: _peak_alone(how, name) for how in HOW if how != "products only"}
    rows: list[list[object]] = []
    for how, found in seconds.items():
        peak = peaks.get(how)
        ratios = [a / b for a, b in zip(seconds["whole logits"], found, strict=True)]
        rows.append(
            [
                name,
                how,
                f"{statistics.median(found):.3f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})",
                "" if peak is None else round(peak),
                "" if peak is None else f"{peak / peaks['whole logits']:.3f}",
                same if how == "attar" else "",
            ]
        )
    return rows


def _peak_alone(how: str, name: str) -> float:
    done = subprocess.run(
        [sys.executable, *sys.argv, "--alone", how, name],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(json.loads(done.stdout))


def peak_mib(case: Case, how: str, name: str) -> float:
    """What one loss adds to the resident memory, at its peak."""
    before = psutil.Process().memory_info().rss / MIB
    with peak_memory() as memory:
        HOW[how](case, name)
    return memory.peak_rss_mib - before


if __name__ == "__main__":
    main()
