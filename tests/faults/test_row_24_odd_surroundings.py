"""Row 24: a strange locale, time zone or clock, a home that cannot be written or does not exist, no
network.

A recipe of small steps and the real command line run in a process with these surroundings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine_steps import run_small

TESTS = Path(__file__).resolve().parent.parent
NOWHERE = "/dev/null/home"
"""Below a file: not even root can create or write it."""

SURROUNDINGS = {
    "C locale, a time zone, no home": {**{"LC_ALL": "C", "TZ": "Pacific/Kiritimati", "HOME": None}},
    "C locale, never UTF-8, offline": {
        **{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        **{"HF_HUB_OFFLINE": "1", "HTTPS_PROXY": "http://127.0.0.1:9"},
    },
    "Turkish, no such time zone": {
        **{"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Nowhere/Land"}
    },
    "ASCII output, a home that cannot be made": {
        **{"PYTHONIOENCODING": "ascii", "HOME": NOWHERE, "XDG_CACHE_HOME": NOWHERE}
    },
}
"""What has nothing to do with each other shares a process."""


def surrounded(environment: dict[str, str | None], code: str, *arguments: str) -> str:
    """Run Python code in these surroundings; return its stdout."""
    given = {**os.environ, **environment}
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={name: value for name, value in given.items() if value is not None},
        cwd=TESTS,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr.decode(errors="replace")
    return found.stdout.decode(errors="replace")


RUN = """
import sys
from pathlib import Path
from attar.cli import main
from engine_steps import run_small
folder, recipe = sys.argv[1:]
print(*[step.key for step in run_small(Path(folder), quiet=False).steps])
for arguments in (["check", recipe], ["status", folder]):
    sys.argv = ["attar", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
"""


@pytest.mark.parametrize("name", list(SURROUNDINGS))
def test_a_run_and_the_command_line_do_the_same_in_any_surroundings(
    name: str, repository: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "Ordner ✓ ığİ"
    recipe = str(repository / "recipes" / "demo.toml")
    keys, checked, *status = surrounded(SURROUNDINGS[name], RUN, str(folder), recipe).splitlines()
    again = run_small(folder)
    assert keys.split() == [step.key for step in again.steps]
    assert all(step.reused for step in again.steps)
    assert "7 steps" in checked
    assert "5 of 5 steps done" in status[0]


CLOCKS = """
import sys, time
from pathlib import Path
for clock in ("time", "time_ns"):
    setattr(time, clock, lambda at=float(sys.argv[2]), real=getattr(time, clock): type(real())(at))
from engine_steps import run_small
print(*[step.key for step in run_small(Path(sys.argv[1])).steps])
"""


@pytest.mark.parametrize("seconds", [0, 2**31 + 5, 32_503_680_000])
def test_a_clock_far_off_changes_nothing(seconds: int, tmp_path: Path) -> None:
    """1970, after the end of 32-bit time, and the year 3000."""
    folder = tmp_path / "small"
    keys = surrounded({}, CLOCKS, str(folder), str(seconds)).split()
    again = run_small(folder)
    assert [step.key for step in again.steps] == keys
    assert all(step.reused for step in again.steps)
    for step in again.steps:
        assert 0 <= json.loads((step.folder / "result.json").read_text())["seconds"] < 60
