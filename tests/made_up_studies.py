"""Made-up artifacts of analyze steps, one a study, with plausible figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made_up_run
from attar.artifacts import write_json

BLOCKS = 3
DIMENSIONS = (99, 63, 223, 157, 267, 127, 338, 303)


def norms() -> list[dict[str, Any]]:
    places: list[tuple[str, int | None]] = [("embedding", None)]
    places += [(kind, block) for block in range(BLOCKS) for kind in ("mha_norm", "ffn_norm")]
    return [
        {"norm": f"{kind}.{block}", "kind": kind, "stack": "encoder", "block": block}
        for kind, block in places
    ]


def tables(study: str) -> dict[str, Any]:
    """study.json without its facts."""
    words = ("[CLS]", "[SEP]", ".", ",", "the", "<b>a</b>")
    kinds = ("mha_norm", "ffn_act", "weights", "query", "key", "value", "context", "ffn_norm")
    rows: dict[str, list[dict[str, Any]]] = {
        "outliers": [
            {
                **norm,
                "dimensions": list(DIMENSIONS[: 1 + place % 3]),
                "strengths": {str(d): 1.5 + (d + place) % 7 for d in DIMENSIONS},
            }
            for place, norm in enumerate(norms())
        ],
        "gamma": [
            {
                **norm,
                "gamma": {
                    **{"mean": 0.8, "std": 0.1, "min": -0.2 - 0.1 * place, "max": 1.9},
                    "outliers": {str(d): 1.2 + 0.1 * i for i, d in enumerate(DIMENSIONS[:place])},
                },
                "beta": {"mean": 0.0, "std": 0.2, "min": -1.5, "max": 1.1, "outliers": {}},
                "dimensions": list(DIMENSIONS[:place]),
            }
            for place, norm in enumerate(norms())
        ],
        "histograms": [
            {
                **{"model": model, "stack": "encoder", "line": line, "layer": line},
                **{"norm": f"hidden_states.{line}", "kind": "block" if line else "embedding"},
                "block": line - 1 if line else None,
                **{"values": 4096, "median": 0.3, "p999": 4.1, "largest": 2.0 ** (3 + line)},
                "first_bin": -24,
                "counts": [2**k for k in range(12)] + [4000 // (k + 1) ** 2 for k in range(24)],
            }
            for model in ("teacher", "student")
            for line in range(BLOCKS + 1)
        ],
        "outlier_tokens": [
            {
                "stack": "encoder",
                "dimension": dimension,
                "norms": 7,
                "token": word,
                "share": 0.5 / (place + 1),
                "share_of_tokens": 0.01 * (place + 1),
                "frequency_rank": place + 1,
                "mean_magnitude": 15.8,
            }
            for dimension in ("any", 99)
            for place, word in enumerate(words)
        ],
        "disabling": [
            {"run": "full", "replacement": None, "value": 0.871, "se": 0.011},
            *(
                {
                    "run": run,
                    "replacement": word,
                    "dimensions": {"encoder": [99, 63], "decoder": [4]},
                    "value": 0.871 - damage,
                    "se": 0.012,
                    "damage": damage,
                    "damage_ci95": [damage - 0.02, damage + 0.02],
                }
                for word in ("zero", "mean")
                for run, damage in (("outlier", 0.21), ("null 0", 0.01), ("null 1", -0.004))
            ),
        ],
        "site_cosine": [
            {
                "site": f"encoder.layer.{block}.{kind}:output",
                "kind": kind,
                "stack": "encoder",
                "block": block,
                "cosine": 0.92 + 0.003 * (8 * block + place),
                "sqnr_db": 8.1,
            }
            for block in range(BLOCKS)
            for place, kind in enumerate(kinds)
        ],
        "leave_one_kind": [
            {
                "kind": kind,
                "left_in_float": 0.84,
                "recovered": 0.02 - 0.005 * place,
                "alone_quantized": 0.86,
                "lost": 0.01,
            }
            for place, kind in enumerate(kinds)
        ],
        "gamma_cosine": [
            {
                **norm,
                "cosine": 0.97,
                "migrated": 0.965 + 0.004 * place,
                "gain": -0.005 + 0.004 * place,
                "restored": 0.99,
                "num_tiny_gamma": 0,
                "largest_gamma": 1.55,
                "median_gamma": 0.55,
                **{"largest_y": 9.0 + place, "median_y": 1.5, "largest_x": 8.0, "median_x": 2.0},
                "dimensions": [
                    {"dimension": d, "gamma": 1.5 / (i + 1), "y": (9.0 + place) / (i + 1), "x": 6.0}
                    for i, d in enumerate((*DIMENSIONS, 7, 8))
                ],
            }
            for place, norm in enumerate(norms())
        ],
        "clipping": [
            {
                "kind": kind,
                "tokens_whole": share,
                "limit": 60 * share,
                "value": 0.5 + 0.37 * share,
                "change": 0.37 * share - 0.37,
                "clipped": [1 - share] * BLOCKS,
                "blocks": [f"e{block}" for block in range(BLOCKS)],
            }
            for kind in ("mha_norm", "ffn_act")
            for share in (1.0, 0.9, 0.5, 0.1)
        ],
    }
    found: dict[str, Any] = {"rows": rows[study]}
    if study == "outliers":
        found["shared"] = [
            {
                "stack": "encoder",
                "dimension": dimension,
                "norms": 5,
                "of_norms": 7,
                "blocks": 2,
                "of_blocks": 3,
                "largest": 11.1,
            }
            for dimension in DIMENSIONS
        ]
        found["recognised"] = [
            {
                **{"stack": "encoder", "times": times, "of_blocks": 3},
                **{"num_dimensions": 2, "dimensions": list(DIMENSIONS[times : times + 2])},
            }
            for times in (3, 2, 1)
        ]
        found["layers"] = [
            {
                **{"norm": f"hidden_states.{layer}", "stack": "encoder", "layer": layer},
                **{
                    "kind": "block" if layer else "embedding",
                    "block": layer - 1 if layer else None,
                },
                **{"kurtosis": 3.1 + layer, "largest_kurtosis": 40.0, "std": 0.8, "median": 0.4},
                **{"largest_kurtosis_dimension": 99, "largest": 12.0 + layer},
                **{"largest_dimension": 99, "max_to_median": 30.0 + 20 * layer},
            }
            for layer in range(BLOCKS + 1)
        ]
        found["massive"] = [
            {
                **{"stack": "encoder", "layer": 2, "block": 1, "dimension": 99, "token": token},
                **{"position": 0, "value": -412.0, "times": 256, "times_the_median": 1840.0},
            }
            for token in ("[CLS]", ".")
        ]
    if study == "disabling":
        found["summary"] = [
            {
                "replacement": word,
                "outlier": 0.21,
                "outlier_ci95": [0.19, 0.23],
                "null": 0.003,
                "null_ci95": [-0.004, 0.011],
                "ratio": 70.0,
                "ratio_ci95": [19.0, None if word == "zero" else 90.0],
                "as_bad": 0,
                "choices": 2,
                "p_value": 0.333,
                "sentence": "2 outlier dimensions cost 21 points",
            }
            for word in ("zero", "mean")
        ]
    return found


def write_study(out: Path, study: str) -> Path:
    """One artifact folder."""
    facts = {"bits": 6, "metric": "accuracy", "float": 0.871, "quantized": 0.81, "examples": 256}
    folder = made_up_run.write_step(out, study, "analyze", {"study": study, **facts})
    write_json(folder / "study.json", {"study": study, "facts": facts, **tables(study)})
    return folder


def write_studies(out: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Every study's folder, and the recipe that asked for them."""
    from attar.analysis.run import STUDIES

    inputs = {study: write_study(out, study) for study in STUDIES}
    steps = {study: {"run": "analyze", "model": "teacher", "study": study} for study in STUDIES}
    return inputs, {"name": "studies", "steps": steps}
