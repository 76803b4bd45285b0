"""Where is a fine-tuned encoder hard to quantize? The studies of `attar analyze` on real models.

    python benchmarks/studies.py MODELS --data FOLDER --tasks sst2 mrpc

MODELS holds <task>/model, fine-tuned classifiers; FOLDER holds <task>/<split>.jsonl.gz. Each study
is one command of the command line; its table is read from the `study.json` it leaves.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from record import table, write_page

ATTAR = str(Path(sys.executable).parent / "attar")
PAPER = "The paper's gain by taking γ out of a norm: +0.2 … +5.8 points for BERT (6 bits)."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=["sst2"])
    arguments = parser.parse_args()
    parts: list[str] = []
    for task in arguments.tasks:
        model = (arguments.models / task / "model").resolve()
        data = f"glue:{task}@{arguments.data.resolve()}"
        parts += [f"## {task}: cosine of a norm's output to its 6-bit self, with and without γ"]
        parts += [gains(study("gamma_cosine", model, data)), PAPER]
        parts += [f"## {task}: the sites below 99 %"]
        parts += [sites(study("site_cosine", model, data))]
    write_page("studies", "Where is a fine-tuned encoder hard to quantize?", "\n\n".join(parts))


def study(name: str, model: Path, data: str) -> Mapping[str, Any]:
    """Run one study and read what it found."""
    with tempfile.TemporaryDirectory() as out:
        command = [ATTAR, "analyze", "--model", str(model), "--data", data, "--study", name]
        subprocess.run([*command, "--out", out, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        (found,) = Path(out).rglob("study.json")
        return json.loads(found.read_text(encoding="utf-8"))


def gains(found: Mapping[str, Any]) -> str:
    rows = [
        (
            row["norm"],
            f"{100 * row['cosine']:.2f}",
            f"{100 * row['migrated']:.2f}",
            f"{100 * row['gain']:+.2f}",
        )
        for row in found["rows"]
    ]
    return table(("norm", "as it is, %", "γ taken out, %", "gain, points"), rows)


def sites(found: Mapping[str, Any], below: float = 0.99) -> str:
    rows: Sequence[Mapping[str, Any]] = found["rows"]
    worst = [row for row in rows if row["cosine"] < below]
    shown = [(row["site"], f"{100 * row['cosine']:.2f}", f"{row['sqnr_db']:.1f}") for row in worst]
    text = f"{len(worst)} of {len(rows)} sites lie below {100 * below:.0f} %."
    return "\n\n".join([text, table(("site", "cosine, %", "SQNR, dB"), shown)])


if __name__ == "__main__":
    main()
