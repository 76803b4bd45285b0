"""What folding a feed-forward gains, promised by operations and measured in turns; what it changes.

    python benchmarks/folding.py                          T5-Mini and MiniLM shapes
    python benchmarks/folding.py --shapes toy --rounds 3  to try the script

Random weights, float32, torch. Forms of each shape take turns: the family's own feed-forward, the
chain `3w` as trained, its fold, and `1w` that was never anything else. Prefill is the encoder (or
the whole model, without a decoder) over a text; a step is one token of the decoder with its cache,
whose cost is the number of operations rather than their size. Ratios are medians over rounds of
turns, with their range. Below: the largest relative change of a logit by folding, of every variant
in several families.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from attar.cores import usable_cores
from attar.models.architecture import buildable_attention, prepare_
from attar.models.cost import cost_from_config
from attar.models.cost_by_part import cost_by_part
from attar.models.ffn_variants import VARIANTS
from attar.models.named_sizes import config_of_size
from attar.reparameterization.fold import folded
from record import table, write_page

BERT: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "vocab_size": 30522,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
}
T5: dict[str, Any] = {"architectures": ["T5ForConditionalGeneration"], "vocab_size": 32128}
TOY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 60}
GATED = {**TOY, "intermediate_size": 96, "num_key_value_heads": 4, "pad_token_id": 0}
SHAPES = {
    "toy": {"t5-nano": {**config_of_size("nano", "t5"), **T5, "vocab_size": 512}},
    "report": {
        "t5-mini-32": {**config_of_size("mini-32", "t5"), **T5},
        "minilm-l6": BERT,
    },
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {**BERT, **TOY, "intermediate_size": 128},
    "mpnet": {"model_type": "mpnet", **TOY, "intermediate_size": 128},
    "gpt2": {
        **{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 60},
        **{"n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0},
    },
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **GATED},
    "qwen3": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], **GATED, "head_dim": 8},
    "t5": {**config_of_size("nano", "t5"), **T5, "vocab_size": 60},
}
FORMS = {"own": None, "3w": "3w", "folded": "3w", "1w": "1w"}


def built(config: dict[str, Any], variant: str | None, seed: int = 0) -> Any:
    """A random model of a config with a variant, in eval mode."""
    plain = {**config, **({} if variant is None else {"attar_ffn": {"variant": variant}})}
    shape: Any = cost_from_config(plain).model
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        attention = buildable_attention(type(shape), "sdpa")
        model = type(shape)._from_config(shape.config, attn_implementation=attention)
    prepare_(model, "sdpa")
    return model.eval()


def calls(model: Any, tokens: int) -> dict[str, Callable[[], Any]]:
    """What is timed of a model: prefill, and a step where it writes."""
    ids = torch.full((1, tokens), 5)
    if not model.config.is_encoder_decoder:
        return {"prefill": lambda: model(input_ids=ids)}
    encoder = model.get_encoder()
    states = encoder(input_ids=ids)
    start = torch.zeros((1, 1), dtype=torch.int64)
    past = model(encoder_outputs=states, decoder_input_ids=start).past_key_values

    def step() -> Any:
        answer = model(encoder_outputs=states, decoder_input_ids=start, past_key_values=past)
        past.self_attention_cache.crop(-1)
        return answer

    return {"prefill": lambda: encoder(input_ids=ids), "step": step}


def promised(model: Any, tokens: int, what: str) -> int:
    """Operations of a call, attention's and the head's included."""
    if what == "step":
        parts = cost_by_part(model, 1)  # a decoder that is fed a token, reads one
        return sum(part.flops for name, part in parts.items() if not name.startswith("encoder"))
    parts = cost_by_part(model, tokens)
    is_read = ("encoder", "head") if not model.config.is_encoder_decoder else ("encoder",)
    return sum(part.flops for name, part in parts.items() if name.startswith(is_read))


def in_turns(entrants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round, the median of nine calls."""
    times: dict[str, list[float]] = {name: [] for name in entrants}
    for turn in range(rounds + 1):
        for name, call in entrants.items():
            taken = []
            for _ in range(9):
                start = time.perf_counter()
                call()
                taken.append(1e3 * (time.perf_counter() - start))
            if turn:  # the first one warms up
                times[name].append(statistics.median(taken))
    return times


def latency_rows(shape: str, config: dict[str, Any], tokens: int, rounds: int) -> list[list[str]]:
    models = {form: built(config, variant) for form, variant in FORMS.items()}
    models["folded"] = folded(models["3w"]).model
    timed = {form: calls(model, tokens) for form, model in models.items()}
    rows = []
    for what in timed["own"]:
        times = in_turns({form: each[what] for form, each in timed.items()}, rounds)
        own = promised(models["own"], tokens, what)
        for form, model in models.items():
            ratios = [a / b for a, b in zip(times[form], times["own"], strict=True)]
            against = [a / b for a, b in zip(times[form], times["1w"], strict=True)]
            rows.append(
                [
                    *(shape, what, form, f"{statistics.median(times[form]):.3f}"),
                    f"{promised(model, tokens, what) / own:.3f}",
                    f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
                    f"{statistics.median(against):.3f} ({min(against):.3f} to {max(against):.3f})",
                ]
            )
    return rows


def changes() -> list[list[str]]:
    """Largest relative change of a logit or state, and of a block in float64, of every variant that
    folds."""
    rows = []
    for family, config in FAMILIES.items():
        for variant, row in VARIANTS.items():
            if row.folds_into is None:
                continue
            for fold_norms in (False, True):
                model = built(config, variant)
                result = folded(model, fold_norms=fold_norms)
                ids = torch.randint(3, 60, (8, 24), generator=torch.Generator().manual_seed(0))
                target = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
                before, after = (m(input_ids=ids, **target)[0] for m in (model, result.model))
                change = float((before - after).abs().max() / before.abs().max())
                worst = max(result.block_errors.values())
                norms = f"{len(result.norms)}" if fold_norms else "not asked"
                rows.append([family, variant, norms, f"{change:.1e}", f"{worst:.1e}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", choices=list(SHAPES), default="report")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=usable_cores())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with torch.inference_mode():
        timed = [
            row
            for shape, config in SHAPES[given.shapes].items()
            for row in latency_rows(shape, config, given.tokens, given.rounds)
        ]
        body = "\n\n".join(
            [
                f"A text of {given.tokens} tokens, {given.threads} threads, {given.rounds} rounds.",
                table(
                    ("shape", "call", "form", "ms", "FLOPs / own", "time / own", "time / 1w"),
                    timed,
                ),
                "Change by folding (limits: 1e-4 of the largest logit in float32, 1e-12 a block in "
                "float64):",
                table(["family", "variant", "norms folded", "logits", "block, float64"], changes()),
            ]
        )
    write_page("folding", "What does folding a feed-forward gain, and what does it change?", body)


if __name__ == "__main__":
    main()
