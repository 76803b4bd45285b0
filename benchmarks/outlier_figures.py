"""Which dimensions and which tokens carry the outliers of a norm? Two pictures of one place.

    python benchmarks/outlier_figures.py MODEL --data glue:sst2@FOLDER --out FOLDER

MODEL is a folder, a hub id or a demo model with a head. Written are strips.png, |x| of tokens ×
dimensions (as figure 9 of Outlier Suppression, Wei et al. 2022: dimensions that are large in almost
all tokens are dark strips), and ranges.png, the smallest and the largest value of each token with
the words of those that reach furthest (as figure 10: [SEP], [CLS] and full stops in BERT). The
place is the norm whose largest value is furthest above its median, or --site. The study
`outlier_tokens` counts the same over many texts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import altair
import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from attar.data.config import DataConfig
from attar.data.load import load_data
from attar.data.tokenize import TextEncoder
from attar.models.load import load_model
from attar.models.sources.references import resolve_model
from attar.models.structure.ports import inserted
from attar.models.structure.sites import sites_of
from attar.quantization.calibration.calibrate import choose_examples, to_tensors
from attar.recipe.one_step import data_table
from attar.special_tokens import open_tokenizer

NAMED = 12
"""Tokens whose words are shown."""


class Kept(nn.Module):
    """Keeps what passes, and hands it on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x[0].to(torch.float32))
        return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", required=True, help="glue:TASK[@FOLDER], or a folder of files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--site", help="such as bert.encoder.layer.5.attention.output.LayerNorm")
    parser.add_argument("--tokens", type=int, default=96, help="that are drawn")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    values, words, site = values_of(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    altair.data_transformers.disable_max_rows()
    for name, chart in (("strips", strips(values)), ("ranges", ranges(values, words))):
        chart.properties(title=site).save(arguments.out / f"{name}.png", ppi=144)
    large = np.abs(values).max(axis=0).argsort()[::-1][:5]
    print(f"{site}: dimensions {', '.join(map(str, large))}; written: {arguments.out}")


def values_of(arguments: argparse.Namespace) -> tuple[np.ndarray, list[str], str]:
    """The values at the place (tokens, D), the tokens' words, and the name of the place."""
    folder = resolve_model(arguments.model, {}, Path.cwd())
    loaded = load_model(folder, attention="eager")
    names = loaded.task.input_names if loaded.task else ("input_ids", "attention_mask")
    encoder = TextEncoder.from_folder(folder, loaded.task.max_length if loaded.task else 128, names)
    config = TypeAdapter(DataConfig).validate_python(data_table(arguments.data))
    train = load_data(config, Path.cwd(), name="data", seed=0).split("train")
    texts = train.rows(choose_examples(len(train), 32, arguments.seed, "data")).texts
    encoded = encoder.encode(texts)
    norms = [site for site in sites_of(loaded.model) if site.kind in ("mha_norm", "ffn_norm")]
    kept = {site: Kept() for site in norms}
    with torch.inference_mode(), inserted(loaded.model, kept):
        for row in range(len(texts)):  # one by one: no padding
            loaded.model(**to_tensors(encoded.batch([row])))
    found = {site.fqn: torch.cat(kept[site].seen).numpy() for site in norms}
    site = arguments.site or max(found, key=lambda name: peak(found[name]))
    if site not in found:
        raise SystemExit(f"--site names {site!r}; the norms are {', '.join(found)}")
    tokenizer = open_tokenizer(folder)
    words = [tokenizer.id_to_token(number) for number in encoded.ids.tolist()]
    return found[site][: arguments.tokens], words[: arguments.tokens], site


def peak(values: np.ndarray) -> float:
    return float(np.abs(values).max() / np.median(np.abs(values)))


def strips(values: np.ndarray) -> altair.Chart:
    rows = [
        {"token": token, "dimension": dimension, "size": float(size)}
        for (token, dimension), size in np.ndenumerate(np.abs(values))
    ]
    return (
        altair.Chart(altair.Data(values=rows), width=900, height=4 * len(values))
        .mark_rect()
        .encode(
            x=altair.X("dimension:O", axis=altair.Axis(labels=False, ticks=False)),
            y=altair.Y("token:O", axis=altair.Axis(labels=False, ticks=False)),
            color=altair.Color("size:Q", title="|x|", scale=altair.Scale(scheme="greys")),
        )
    )


def ranges(values: np.ndarray, words: list[str]) -> altair.LayerChart:
    lows, highs = values.min(axis=1), values.max(axis=1)
    furthest = set(np.maximum(highs, -lows).argsort()[::-1][:NAMED].tolist())

    def rows() -> Iterator[dict[str, object]]:
        for token, (low, high) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
            word = words[token] if token in furthest else ""
            end = low if -low > high else high
            yield {"token": token, "low": low, "high": high, "word": word, "end": end}

    chart = altair.Chart(altair.Data(values=list(rows())), width=900, height=260)
    x = altair.X("token:Q", title="token")
    return altair.layer(
        chart.mark_rule().encode(x=x, y=altair.Y("low:Q", title="smallest … largest"), y2="high"),
        chart.mark_text(dy=-8, fontSize=9).encode(x=x, y="end:Q", text="word:N"),
    )


if __name__ == "__main__":
    main()
