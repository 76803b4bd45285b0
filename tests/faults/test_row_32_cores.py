"""Row 32: cores shared with others, a quota of the control group: no thread more than the process
may use, and none that keeps a core while it waits. Shares of time are measured by benchmarks.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attar import control_groups, cores
from attar.artifacts import read_result
from attar.evaluation.machine import describe_machine
from attar.export.deployed import Deployed
from deployments import Deployments
from training_runs import prepare

THREADS_OF = {
    "openvino": lambda runtime: runtime.compiled.get_property("INFERENCE_NUM_THREADS"),
    "onnxruntime": lambda runtime: runtime._session.get_session_options().intra_op_num_threads,
    "safetensors": lambda runtime: runtime._threads,
}


@pytest.fixture
def one_core_of_eight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group two levels below the root, whose parent may use half a core."""
    files = {
        "proc/self/cgroup": "0::/jobs/42",
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
        "sys/fs/cgroup/jobs/cpu.max": "50000 100000",
        "sys/fs/cgroup/jobs/42/cpu.max": "max 100000",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(control_groups, "SYSTEM", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize("form", THREADS_OF)
@pytest.mark.usefixtures("one_core_of_eight")
def test_a_runtime_gets_the_threads_that_the_control_group_allows(
    deployments: Deployments, form: str
) -> None:
    source = "int4" if form == "safetensors" else "float"
    runtime: Any = Deployed(deployments.export(source, form)[0])._runtime._runtime  # pyright: ignore
    assert THREADS_OF[form](runtime) == 1


CROWDED = """
import os, sys
from attar import cores
cores.busy_cores = lambda: 99.0


class BeforeTorch:
    def find_spec(self, name, *rest):
        if name == "torch":
            os.write(1, os.environ.get("OMP_WAIT_POLICY", "not told").encode())
            os._exit(0)


sys.meta_path.insert(0, BeforeTorch())
{work}
"""
RUN = """
import attar.recipe.run
attar.recipe.run.run_recipe({recipe!r}, out={out!r}, quiet=True, estimates={{}})
"""
PREDICT = "import attar; attar.load({folder!r}).predict(['a film'])"
NOTED = """
from pathlib import Path
import engine_steps
engine_steps.run_small(Path({folder!r}))
"""


def in_a_crowd(work: str) -> str:
    """What the policy is where torch would be loaded, which reads it then and never again: work in
    a process that sees busy neighbours and ends there."""
    plain = {name: value for name, value in os.environ.items() if name not in cores.SET_BY_USER}
    plain["PYTHONPATH"] = str(Path(__file__).parents[1])
    code = CROWDED.format(work=work)
    done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torch_does_not_spin_in_a_crowd(tmp_path: Path, deployments: Deployments) -> None:
    folder = deployments.export("int4", "safetensors")[0]
    assert in_a_crowd(PREDICT.format(folder=str(folder))) == "PASSIVE"
    recipe = prepare(tmp_path) / "recipe.toml"
    recipe.write_text(
        'name = "crowd"\n[data.films]\nsource = "files"\npath = "films"\n'
        '[steps.model]\nrun = "train"\nmodel = "bert"\ndata = "films"\nmax_steps = 1\n'
        "max_length = 24\n"
    )
    assert in_a_crowd(RUN.format(recipe=str(recipe), out=str(tmp_path / "runs"))) == "PASSIVE"


def test_a_run_in_a_crowd_notes_how_its_threads_wait(tmp_path: Path) -> None:
    assert not in_a_crowd(NOTED.format(folder=str(tmp_path / "small"))), "no torch in these steps"
    machine = read_result(tmp_path / "small" / "teacher").machine
    assert machine["threads"].startswith("sleep while they wait (other programs use 99.0 of ")
    log = (tmp_path / "small" / "run.log").read_text()
    said = r" cores: \d+; other programs use 99\.0 of \d+ cores, so this run takes longer\n"
    assert re.search(said, log)


@pytest.mark.parametrize(("busy", "spins"), [(0.0, True), (99.0, False)])
def test_the_pools_of_the_runtimes_do_not_spin_in_a_crowd(
    deployments: Deployments, monkeypatch: pytest.MonkeyPatch, busy: float, spins: bool
) -> None:
    for name in cores.SET_BY_USER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cores, "busy_cores", lambda: busy)
    monkeypatch.setattr(cores, "core_limit", lambda: 2.0)
    cores.waiting.cache_clear()
    try:
        runtimes: dict[str, Any] = {
            form: Deployed(deployments.export("float", form)[0])._runtime._runtime  # pyright: ignore
            for form in ("openvino", "onnxruntime")
        }
    finally:
        cores.waiting.cache_clear()
    options = runtimes["onnxruntime"]._session.get_session_options()
    entry = options.get_session_config_entry("session.intra_op.allow_spinning")
    assert entry == str(int(spins))
    if not spins:  # else as OpenVINO thinks best
        assert not runtimes["openvino"].compiled.get_property("ENABLE_CPU_PINNING")


@pytest.mark.usefixtures("one_core_of_eight")
def test_the_report_of_a_machine_counts_the_cores_it_could_use() -> None:
    assert describe_machine(1)["cores"] == 1
