"""How long until attar answers? `--help`, `check`, and `import attar`, against the bare
interpreter.

Each is a whole process, started in turn (A B C D, A B C D, …) so that a busy moment hits all alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from record import table, write_page

ROUNDS = 20
LIMIT_MS = 300
ATTAR = str(Path(sys.executable).parent / "attar")
RECIPE = str(Path(__file__).parent.parent / "recipes" / "demo.toml")
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import attar'": [sys.executable, "-c", "import attar"],
    "attar --help": [ATTAR, "--help"],
    "attar check recipes/demo.toml": [ATTAR, "check", RECIPE],
}


def milliseconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    for command in COMMANDS.values():
        milliseconds(command)  # the first start reads files from disk
    times = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            times[name].append(milliseconds(command))
    rows = [
        (f"`{name}`", f"{statistics.median(ms):.0f}", f"{min(ms):.0f}", f"{max(ms):.0f}")
        for name, ms in times.items()
    ]
    body = table(["command", "median ms", "min", "max"], rows)
    body += f"\n\n{ROUNDS} rounds, interleaved. Limit: {LIMIT_MS} ms."
    write_page("startup", "How long until attar answers?", body)


if __name__ == "__main__":
    main()
