"""Would the tests notice a slip? Small changes to the source, one at a time.

    python benchmarks/mutants.py                              files changed since the last commit
    python benchmarks/mutants.py --since v0.1.0 --minutes 20
    python benchmarks/mutants.py src/attar/losses src/attar/numerics/affine.py --tenths 3
    python benchmarks/mutants.py --render

mutmut makes the mutants (a flipped comparison, a dropped argument, a number plus one, …), finds out
which tests reach each function, and runs those on each mutant in a forked process. This script adds
which tests belong to a file (those of its room and the laws, without slow ones), a time limit, a
sample, and a file of results. The sample is every mutant whose number ends in one of the chosen
digits, so it does not depend on what any mutant is.

Statements that raise are left alone: their texts are for people. Every mutant that was run is a
line in the file of cells; a file that is mutated again replaces its older lines. A survivor whose
hole was mended, and which then failed a test, is "killed" with that test as `by`. A survivor that
changes nothing that can be observed is named, with the reason, in `mutants_explained.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from record import RESULTS, table, write_page

REPOSITORY = Path(__file__).resolve().parent.parent
CELLS = RESULTS / "mutants_cells.jsonl"
EXPLAINED = RESULTS / "mutants_explained.jsonl"
MUTMUT = str(Path(sys.executable).parent / "mutmut")
ALWAYS = ("tests/laws",)
"""Tests that may notice a slip in any room."""
STATUSES = {
    0: "survived",
    33: "no test",
    5: "no test",
    24: "timeout",
    36: "timeout",
    None: "not run",
}
"""Exit codes of mutmut's workers; any other one is a failed test."""
NOTICED = ("killed", "timeout")
BEGUN = "Running mutation testing"
"""Line of mutmut's output once it has found out which tests reach what."""
UNSEEN = re.compile(r',?strict=\w+|cast\(("[^"]*"|None),|,(?=\))')
"""What may differ between two lines, white space apart, that do the same."""
SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = {files}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
process_isolation = "forkserver"
do_not_mutate_patterns = ['^\\s*raise ']
also_copy = ["recipes", "docs", "README.md"]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders below src/attar")
    parser.add_argument("--since", default="HEAD~1", help="without paths: files changed since then")
    parser.add_argument("--tenths", type=int, default=10, help="tenths of the mutants to run")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--minutes", type=float, default=15.0, help="of mutants, for each room")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cells", type=Path, default=CELLS)
    parser.add_argument("--render", action="store_true", help="write the page and stop")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also for mutmut, if in background
    if not arguments.render:
        files = sorted(
            python_files(arguments.paths) if arguments.paths else changed(arguments.since)
        )
        digits = random.Random(arguments.seed).sample("0123456789", arguments.tenths)
        for room, of_room in groupby(files, key=room_of):
            chosen = list(of_room)
            print(f"{room}: {len(chosen)} files", flush=True)
            found = list(run(chosen, digits, arguments.minutes, arguments.processes))
            keep(arguments.cells, found)
            print(f"{room}: {counted(found)}", flush=True)
    write_page("mutants", "Would the tests notice a slip?", page(read(arguments.cells)))


def python_files(paths: Iterable[Path]) -> set[str]:
    """Source files named, or below a folder named, as paths from the repository's root."""
    found = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))]
    return {str(file.resolve().relative_to(REPOSITORY)) for file in found}


def changed(since: str) -> set[str]:
    """Source files that differ from a commit."""
    command = ["git", "diff", "--name-only", "--diff-filter=d", since, "--", "src/attar/**.py"]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def room_of(file: str) -> str:
    """The folder below `src/attar`, or the file itself where it lies at the top."""
    return Path(file).relative_to("src/attar").parts[0].removesuffix(".py")


def tests_of(room: str) -> list[str]:
    """What is run for a room: the tests that mirror it, and the laws."""
    own = [f"tests/{room}", f"tests/test_{room}.py"]
    return [test for test in (*own, *ALWAYS) if (REPOSITORY / test).exists()]


def run(
    files: Sequence[str], digits: Sequence[str], minutes: float, processes: int
) -> Iterator[dict[str, Any]]:
    """The cells of one room: mutants of `files` in a copy of the checkout."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "attar"
        copy_checkout(folder)
        settings = SETTINGS.format(
            files=json.dumps(list(files)), tests=json.dumps(tests_of(room_of(files[0])))
        )
        with (folder / "pyproject.toml").open("a", encoding="utf-8") as stream:
            stream.write(settings)
        patterns = [] if len(digits) == 10 else [f"*__mutmut_*{digit}" for digit in digits]
        command = [MUTMUT, "run", "--max-children", str(processes), *patterns]
        with (folder / "mutmut.log").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
            while process.poll() is None and BEGUN not in (folder / "mutmut.log").read_text():
                time.sleep(1)
            try:
                process.wait(60 * minutes)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)  # it stops its workers and keeps its results
                process.wait()
        if process.returncode and not list(folder.glob("mutants/src/**/*.meta")):
            sys.exit(f"mutmut failed:\n{(folder / 'mutmut.log').read_text()[-2000:]}")
        for file in files:
            yield from cells_of(folder, file, digits)


def copy_checkout(folder: Path) -> None:
    """The tracked files as they are in the working tree: mutants never touch the checkout."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, folder / name)


def cells_of(folder: Path, file: str, digits: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What became of the sampled mutants of a file; the change itself is told of survivors."""
    meta = folder / "mutants" / f"{file}.meta"
    codes = json.loads(meta.read_text())["exit_code_by_key"] if meta.is_file() else {}
    for mutant, code in codes.items():
        if mutant[-1] not in digits:
            continue
        status = STATUSES.get(code, "killed")
        cell = {"file": file, "mutant": mutant.removeprefix("attar."), "status": status}
        if status in ("survived", "no test"):
            cell |= change_of(folder, mutant)
        yield cell


def change_of(folder: Path, mutant: str) -> dict[str, str]:
    """The lines that a mutant takes out and puts in."""
    command = [MUTMUT, "show", mutant]
    shown = subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout.splitlines()
    lines = [line for line in shown if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return {
        "was": "\n".join(line[1:].strip() for line in lines if line[0] == "-"),
        "now": "\n".join(line[1:].strip() for line in lines if line[0] == "+"),
    }


def read(cells: Path) -> list[dict[str, Any]]:
    lines = cells.read_text(encoding="utf-8").splitlines() if cells.is_file() else []
    return [json.loads(line) for line in lines]


def keep(cells: Path, found: Sequence[dict[str, Any]]) -> None:
    """Add what was found; mutants of a file that was mutated anew replace the older ones."""
    files = {cell["file"] for cell in found}
    kept = [cell for cell in read(cells) if cell["file"] not in files]
    lines = [json.dumps(cell) for cell in sorted([*kept, *found], key=lambda cell: cell["file"])]
    cells.write_text("\n".join(lines) + "\n", encoding="utf-8")


def counted(found: Sequence[dict[str, Any]]) -> str:
    statuses = [cell["status"] for cell in found]
    return ", ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses)))


def page(cells: Sequence[dict[str, Any]]) -> str:
    """Kill rates by room, and every survivor that has no explanation."""
    explained = {change(cell) for cell in read(EXPLAINED)}
    ran = [cell for cell in cells if cell["status"] != "not run"]
    rows, holes = [], []
    for room, of_room in groupby(ran, key=lambda cell: room_of(cell["file"])):
        found = list(of_room)
        reached = [cell for cell in found if cell["status"] != "no test"]
        same = [cell for cell in reached if change(cell) in explained or is_for_checkers(cell)]
        noticed = sum(cell["status"] in NOTICED for cell in reached)
        left = [cell for cell in reached if cell["status"] not in NOTICED and cell not in same]
        rate = 100 * noticed / max(len(reached) - len(same), 1)
        counts = (len(found), len(found) - len(reached), len(same), noticed, len(left))
        rows.append([room, *counts, f"{rate:.0f} %"])
        holes += left
    head = ["room", "mutants", "not reached", "change nothing", "noticed", "survived", "kill rate"]
    body = [
        "A mutant is noticed when a test of its room, or a law, fails or runs far too long. Slow "
        "tests and those of other rooms are not run: functions that only they call are not reached "
        "and left out of the rate, and what only they would notice counts as survived. Mutants "
        f"that change nothing that can be observed are left out. {len(cells) - len(ran)} of the "
        "sample were not run for want of time; mutmut begins with those whose tests are quickest. "
        f"{sum('by' in cell for cell in ran)} survived at first, and are noticed by a test that "
        "was strengthened since.",
        table(head, rows),
    ]
    if holes:
        shown = [[c["file"], _code(c["was"]), _code(c["now"])] for c in holes]
        body += ["## Survivors", table(["file", "was", "became"], shown)]
    return "\n\n".join(body)


def is_for_checkers(cell: dict[str, Any]) -> bool:
    """Whether only what a type checker reads was changed, or a `strict=True` that never fails."""
    was, now = (UNSEEN.sub("", "".join(cell.get(side, "").split())) for side in ("was", "now"))
    return was != "" and was == now


def change(cell: dict[str, Any]) -> tuple[str, str, str]:
    """What identifies a change from one version of a file to the next."""
    return cell["file"], cell.get("was", ""), cell.get("now", "")


def _code(text: str) -> str:
    return "`" + text.replace("\n", " ⏎ ").replace("|", "\\|").replace("`", "'") + "`"


if __name__ == "__main__":
    main()
