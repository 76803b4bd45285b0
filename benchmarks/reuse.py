"""How long `attar run` takes when everything is there already, and how that grows with the bytes.

Finished steps of a chosen size are put into a run's folder (random bytes, no holes), beside a data
file of a tenth of it. Then the real command runs in processes of its own: once with nothing known
of these files, then again with what the first one wrote down, then `attar status --verify`, which
reads every byte. The files are in the page cache: a cold disk makes the first and the last slower
and leaves the second as it is.

    python benchmarks/reuse.py --gib 2
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from attar.artifacts import Result, put_in_place, seal
from attar.progress import Progress
from attar.recipe.load import load_recipe
from attar.recipe.running.engine import Engine
from attar.recipe.running.known_hashes import HASHES_FILE
from attar.recipe.steps import STEPS
from record import table, write_page

STEPS_MADE = 4
FILES_A_STEP = 8
RUNS = 5
SHARES = (0.25, 0.5, 1.0)
GIB = 2**30
ROW = '{"text": "a short text that says nothing", "label": 0}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0, help="of finished steps, at the most")
    parser.add_argument("--folder", type=Path, help="where they are made; default: temporary")
    asked = parser.parse_args()
    rows = []
    for share in SHARES:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            rows.append(measured(Path(folder), int(asked.gib * share * GIB)))
    growth = (rows[-1][3] - rows[0][3]) / (rows[-1][0] - rows[0][0])
    body = table(
        ("GiB of steps and data", "nothing known, s", "later run, s", "best, s", "--verify, s"),
        [[f"{value:.2f}" for value in row] for row in rows],
    )
    body += (
        f"\n\nA later run: the median of {RUNS}. Between the sizes, the best of "
        f"them grows by {growth:+.3f} s a GiB (a start by itself varies by some tenths)."
    )
    write_page("reuse", "How long does a run take when everything is there already?", body)


def measured(folder: Path, size: int) -> tuple[float, ...]:
    """GiB; seconds of the first run, the median and the best of the later ones, and of `status
    --verify`."""
    needed = size * 1.2
    if shutil.disk_usage(folder).free < needed:
        raise SystemExit(f"{folder} needs {needed / GIB:.1f} GiB free; take a smaller --gib")
    recipe = prepared(folder, size)
    run = ("run", str(recipe), "--out", str(folder / "runs"))
    first = seconds(*run)
    assert (folder / "runs" / "reuse" / HASHES_FILE).is_file()
    later = [seconds(*run) for _ in range(RUNS)]
    verify = seconds("status", str(folder / "runs" / "reuse"), "--verify")
    return size * 1.1 / GIB, first, statistics.median(later), min(later), verify


def prepared(folder: Path, size: int) -> Path:
    """A recipe whose steps are all made, with files of this many bytes together."""
    (folder / "texts").mkdir()
    for split, count in (("train", size // 10 // len(ROW)), ("validation", 10)):
        with (folder / "texts" / f"{split}.jsonl").open("w") as stream:
            for begin in range(0, count, 10_000):
                stream.write(ROW * min(10_000, count - begin))
    steps = "".join(
        f'[steps.model{i}]\nrun = "train"\nmodel = "demo:minilm-l6"\ndata = "texts"\nseed = {i}\n'
        for i in range(STEPS_MADE)
    )
    path = folder / "reuse.toml"
    path.write_text(f'name = "reuse"\n[data.texts]\nsource = "files"\npath = "texts"\n{steps}')
    recipe = load_recipe(path)
    place = folder / "runs" / "reuse"
    progress = Progress(quiet=True)
    engine = Engine(
        recipe, folder, place, kinds=STEPS, progress=progress, should_stop=lambda: False
    )
    engine.find_keys(None)
    for name in engine.order:
        staging = place / ".staging" / name
        staging.mkdir(parents=True)
        for number in range(FILES_A_STEP):
            fill(staging / f"part{number}", size // STEPS_MADE // FILES_A_STEP)
        result = Result(name, "train", engine.keys[name], made_from=engine.made_from[name])
        seal(staging, result)
        put_in_place(staging, place / name)
    shutil.rmtree(place / ".staging")
    time.sleep(1)  # as after a run that took longer than a tick of the file system's clock
    return path


def fill(file: Path, size: int) -> None:
    with file.open("wb") as stream:
        for begin in range(0, size, 2**22):
            stream.write(os.urandom(min(2**22, size - begin)))


def seconds(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "attar", *command], check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
