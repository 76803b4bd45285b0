"""How a benchmark writes down what it found: figures, the command, the machine, the versions, in
one page."""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import attar.report
from attar.evaluation.machine import describe_machine, usable_cores

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("attar", "torch", "transformers", "openvino", "onnxruntime", "numpy")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def measured_here() -> dict[str, str]:
    """What a cell keeps of where it was measured: its page may be written on another machine."""
    machine = describe_machine(usable_cores())
    return {
        "machine": ", ".join(f"{k} {_words(value)}" for k, value in machine.items()),
        "versions": ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
        + f", Python {platform.python_version()}",
    }


def append_cell(file: Path, cell: Mapping[str, object]) -> None:
    """Keep what was measured, and where, as a line of a file; print it."""
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({**cell, **measured_here()}) + "\n")
    print(cell, flush=True)


def write_page(
    what: str, question: str, body: str, cells: Sequence[Mapping[str, object]] | None = None
) -> Path:
    """Write `results/<what>_<yyyy-mm>.md` and print its body.

    Args:
        cells: what the page is written from, each with `measured_here` of its time; None: it was
            measured now.
    """
    now = datetime.now(UTC)
    where = [measured_here()] if cells is None else cells
    words = ["FOLDER" if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
    page = "\n\n".join(
        [
            f"# {question}",
            f"Command: `{command}`, {now:%Y-%m-%d}.",
            body,
            f"Machine: {_distinct(where, 'machine')}.",
            f"Versions: {_distinct(where, 'versions')}.",
        ]
    )
    file = RESULTS / f"{what}_{now:%Y-%m}.md"
    file.write_text(page + "\n", encoding="utf-8")
    print(body, f"\nwritten: {file}", sep="\n")
    return file


def write_chart(name: str, svg: str) -> str:
    """Write a picture of the report as `results/<name>.svg`, in the light colours of its style
    sheet and on white.

    Returns: Markdown that shows it.
    """
    style = Path(attar.report.__file__).with_name("style.css").read_text(encoding="utf-8")
    colours = {
        colour: re.sub(r"light-dark\(([^,]+),.*", r"\1", value)
        for colour, value in re.findall(r"--([\w-]+): ([^;]+);", style)
    }
    while "var(--" in svg:
        svg = re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], svg)
    label, width = (re.search(rf'{at}="([^"]+)', svg) for at in ("aria-label", "viewBox"))
    assert label is not None and width is not None
    sized = f'<svg width="{width[1].split()[2]}" style="background: #fff" '
    (RESULTS / f"{name}.svg").write_text(svg.replace("<svg ", sized, 1), encoding="utf-8")
    return f"![{label[1]}]({name}.svg)"


def peak_mib() -> float:
    """The most memory that this process ever held, mapped files included. Not `ru_maxrss`, which a
    process inherits from the one that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell the peak of a process (VmHWM)")


def _distinct(cells: Sequence[Mapping[str, object]], name: str) -> str:
    """Cells of an earlier version did not keep it; the load of each moment is left out."""
    found = (str(cell.get(name, "not recorded")) for cell in cells)
    if len(cells) > 1:
        found = (re.sub(r", busy_cores [\d.]+", "", words) for words in found)
    return "; ".join(dict.fromkeys(found))


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(absent)"
