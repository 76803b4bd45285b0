"""Layouts of the studies' tables: titles, columns and formats."""

from __future__ import annotations

from collections.abc import Mapping

from attar.report.study_tables.arranged import (
    Column,
    Layout,
    with_blocks,
    with_both_weights,
    with_largest,
    with_norm_names,
    with_strength,
    with_times,
)
from attar.report.study_tables.disabling import with_damage, with_damage_summary

TITLES: Mapping[str, str] = {
    "outliers": "Outlier dimensions",
    "outlier_tokens": "Tokens that carry the outliers",
    "gamma": "Scales and biases of the norms",
    "histograms": "How large hidden states are",
    "disabling": "Effect of disabling outlier dimensions",
    "site_cosine": "Each site against its quantized version",
    "leave_one_kind": "One kind of tensor left in float, or quantized alone",
    "gamma_cosine": "Gain of a norm's output without γ",
    "clipping": "Cost of clipping the largest values",
}
LAYOUTS: Mapping[str, tuple[Layout, ...]] = {
    "outliers": (
        Layout(
            "shared",
            "Outlier dimensions, those in the most places first",
            (
                Column("dimension", "dimension", "text"),
                Column("stack", "stack", "text"),
                Column("norms", "places"),
                Column("of_norms", "of"),
                Column("blocks", "blocks"),
                Column("of_blocks", "of"),
            ),
            with_strength,
        ),
        Layout(
            "recognised",
            "How often each dimension is recognised as an outlier; a block counts once",
            (
                Column("times", "recognised", "text"),
                Column("stack", "stack", "text"),
                Column("num_dimensions", "dimensions"),
                Column("dimensions", "which", "list"),
            ),
            with_times,
        ),
        Layout(
            "rows",
            "Each place's outlier dimensions, the strongest first",
            (Column("place", "place", "text"), Column("dimensions", "dimensions", "list")),
            with_norm_names,
        ),
        Layout(
            "layers",
            "Values of the hidden states; a normal distribution has kurtosis 3",
            (
                Column("place", "hidden state", "text"),
                Column("std", "std"),
                Column("kurtosis", "kurtosis"),
                Column("largest_kurtosis", "largest of a dimension"),
                Column("largest_kurtosis_dimension", "which"),
                Column("median", "median magnitude"),
                Column("largest", "largest"),
                Column("largest_dimension", "in dimension"),
                Column("max_to_median", "largest to median", "ratio"),
            ),
            with_norm_names,
        ),
        Layout(
            "massive",
            "Massive activations: above 100 and above 1,000 times the median of their text",
            (
                Column("token", "token", "code"),
                Column("place", "hidden state", "text"),
                Column("dimension", "dimension", "text"),
                Column("value", "largest value"),
                Column("times_the_median", "times the median", "ratio"),
                Column("position", "at position"),
                Column("times", "occurrences"),
            ),
            with_norm_names,
        ),
    ),
    "outlier_tokens": (
        Layout(
            "rows",
            "Tokens among the largest values of a dimension, where it is an outlier",
            (
                Column("dimension", "dimension", "text"),
                Column("stack", "stack", "text"),
                Column("token", "token", "code"),
                Column("share", "of the carriers %", "percent"),
                Column("share_of_tokens", "of all tokens %", "percent"),
                Column("frequency_rank", "rank by frequency"),
                Column("mean_magnitude", "mean magnitude"),
            ),
        ),
    ),
    "gamma": (
        Layout(
            "rows",
            "γ and β of every norm, and γ of its outlier dimensions",
            (Column("place", "norm", "text"),),
            with_both_weights,
        ),
    ),
    "histograms": (
        Layout(
            "rows",
            "Magnitudes in each hidden state",
            (
                Column("model", "model", "text"),
                Column("place", "hidden state", "text"),
                Column("median", "median"),
                Column("p999", "99.9 % below"),
                Column("largest", "largest"),
                Column("values", "values"),
            ),
            with_norm_names,
        ),
    ),
    "disabling": (
        Layout(
            "summary",
            "Damage of the outlier dimensions, and mean damage of equally many random ones",
            (Column("place", "disabled dimensions", "text"),),
            with_damage_summary,
        ),
        Layout(
            "rows",
            "Every run; damage is the loss in the metric",
            (Column("run", "run", "text"), Column("place", "disabled dimensions", "text")),
            with_damage,
        ),
    ),
    "site_cosine": (
        Layout(
            "rows",
            "Activations, worst first",
            (
                Column("site", "site", "code"),
                Column("cosine", "cosine %", "percent4"),
                Column("sqnr_db", "SQNR dB"),
                Column("kind", "kind", "text"),
                Column("block", "block"),
            ),
        ),
    ),
    "leave_one_kind": (
        Layout(
            "rows",
            "Everything quantized but one kind, and one kind alone; changes in points",
            (
                Column("kind", "kind", "text"),
                Column("left_in_float", "left in float", "metric"),
                Column("recovered", "recovered", "change"),
                Column("alone_quantized", "alone quantized", "metric"),
                Column("lost", "lost", "change"),
            ),
        ),
    ),
    "gamma_cosine": (
        Layout(
            "rows",
            "Cosine of a norm's output with its quantized version, in %; restored: after γ",
            (
                Column("place", "norm", "text"),
                Column("cosine", "with γ", "percent4"),
                Column("migrated", "without γ", "percent4"),
                Column("gain", "gain", "points"),
                Column("restored", "restored", "percent4"),
                Column("largest_gamma", "largest γ"),
                Column("median_gamma", "median γ"),
                Column("num_tiny_gamma", "γ ≈ 0"),
            ),
            with_norm_names,
        ),
        Layout(
            "rows",
            "How far the largest dimension stands out, with γ (y) and without (X')",
            (
                Column("place", "norm", "text"),
                Column("dimension", "where |y| is largest", "text"),
                Column("gamma", "γ there"),
                Column("y", "|y| there"),
                Column("x", "|X'| there"),
                Column("y over median", "largest |y| over median"),
                Column("x over median", "largest |X'| over median"),
            ),
            with_largest,
        ),
    ),
    "clipping": (
        Layout(
            "rows",
            "Share of clipped tokens at each clipping value",
            (
                Column("kind", "kind", "text"),
                Column("limit", "clipping value"),
                Column("tokens_whole", "tokens whole %", "percent"),
                Column("value", "metric", "metric"),
                Column("change", "to float", "change"),
            ),
            with_blocks,
        ),
    ),
}
"""Study → its tables."""
