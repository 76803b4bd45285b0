"""How a benchmark writes down what it found: figures, the command, the machine, the versions, in
one page."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from attar.evaluation.machine import describe_machine, usable_cores

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("attar", "torch", "transformers", "openvino", "onnxruntime", "numpy")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def write_page(what: str, question: str, body: str) -> Path:
    """Write `results/<what>_<yyyy-mm>.md` and print its body."""
    now = datetime.now(UTC)
    machine = describe_machine(usable_cores())
    words = ["FOLDER" if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
    page = "\n\n".join(
        [
            f"# {question}",
            f"Command: `{command}`, {now:%Y-%m-%d}.",
            body,
            "Machine: " + ", ".join(f"{k} {_words(value)}" for k, value in machine.items()) + ".",
            "Versions: "
            + ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
            + f", Python {platform.python_version()}.",
        ]
    )
    file = RESULTS / f"{what}_{now:%Y-%m}.md"
    file.write_text(page + "\n", encoding="utf-8")
    print(body, f"\nwritten: {file}", sep="\n")
    return file


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(absent)"
