"""How long does a token take to write, in tokens that are read? The factor that `plan` assumes.

    python benchmarks/generating.py                       random Llamas of the nano sizes
    python benchmarks/generating.py --shrink              to try the script

A text is read once up to its prompt, then written token by token with a cache. Writing a token
costs the same operations as reading one, but the weights are fetched for a few rows only, and a
number is drawn for each. In turns, round by round:

    read          a forward pass over whole texts, with the logits of every token
    attar         `attar.models.sampling.sample`, as `run = "generate"` draws texts
    transformers  `model.generate(do_sample=True)`, which draws from the same distribution

    ratio = seconds of a written token / seconds of a read one, the prompts' own share taken off

`plan` multiplies the time of reading by `attar.distillation.plan.WRITING`; the last column is what
it should be for that batch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from attar.cores import usable_cores
from attar.distillation.plan import WRITING
from attar.models.named_sizes import config_of_size
from attar.models.sampling import Sampling, row_uniforms, sample
from record import table, write_page

VOCABULARY = 4096
PROMPT, NEW = 64, 192
ROWS = (1, 8, 64)
"""64 texts of 256 tokens are `batch_tokens` of the step's default."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["pico", "nano"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--shrink", action="store_true", help="few tokens, two rounds, no page")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    prompt, new = (8, 8) if asked.shrink else (PROMPT, NEW)
    rounds = 2 if asked.shrink else asked.rounds
    sizes = asked.sizes[:1] if asked.shrink else asked.sizes
    rows = [row for size in sizes for row in _rows(size, prompt, new, rounds)]
    body = "\n\n".join(
        [
            f"Random Llamas over {VOCABULARY} tokens, prompts of {prompt} and continuations of "
            f"{new} tokens, {asked.threads} threads, {rounds} rounds in turns; median (smallest to "
            f"largest of the rounds). `plan` takes {WRITING:g}.",
            table(
                [
                    *("model", "texts at once", "read, tokens/s", "attar writes"),
                    *("transformers writes", "written / read, attar", "the same of whole texts"),
                ],
                rows,
            ),
        ]
    )
    if asked.shrink:
        print(body)
    else:
        write_page("generating", "How long does a token take to write?", body)


def _rows(size: str, prompt: int, new: int, rounds: int) -> list[list[str]]:
    torch.manual_seed(0)
    plain = {**config_of_size(size, "llama"), "vocab_size": VOCABULARY}
    ends = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    model: Any = AutoModelForCausalLM.from_config(LlamaConfig(**{**plain, **ends})).eval()
    return [_row(size, model, texts, prompt, new, rounds) for texts in ROWS]


def _row(size: str, model: Any, texts: int, prompt: int, new: int, rounds: int) -> list[str]:
    ids = torch.randint(1, VOCABULARY, (texts, prompt + new))
    jobs = _jobs(model, ids, prompt, new)
    seconds: dict[str, list[float]] = {job: [] for job in jobs}
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for job, run in jobs.items():
                began = time.perf_counter()
                run()
                if turn:  # the first one warms up
                    seconds[job].append(time.perf_counter() - began)
    read = [taken / (texts * (prompt + new)) for taken in seconds["read"]]
    written = [
        (taken - texts * prompt * each) / (texts * new) / each
        for taken, each in zip(seconds["attar"], read, strict=True)
    ]
    whole = [a / b for a, b in zip(seconds["attar"], seconds["read"], strict=True)]
    return [
        size,
        str(texts),
        f"{1 / statistics.median(read):,.0f}",
        *(
            f"{texts * new / statistics.median(seconds[job]):,.0f}"
            for job in ("attar", "transformers")
        ),
        *(
            f"{statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f})"
            for found in (written, whole)
        ),
    ]


def _jobs(
    model: Any, ids: torch.Tensor, prompt: int, new: int
) -> Mapping[str, Callable[[], object]]:
    read = ids[:, :prompt]
    mask = torch.ones_like(read)
    uniforms = row_uniforms(0, range(len(ids)), new)
    return {
        "read": lambda: model(input_ids=ids),
        "attar": lambda: sample(model, read, mask, uniforms, Sampling()),
        "transformers": lambda: model.generate(
            input_ids=read,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=new,
            pad_token_id=0,
        ),
    }


if __name__ == "__main__":
    main()
