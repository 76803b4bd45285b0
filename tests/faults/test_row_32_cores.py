"""Row 32: cores shared with others, a quota of the control group: no thread more than the process
may use, wherever threads are counted. Shares of time are measured by the benchmarks, not here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from attar import control_groups
from attar.evaluation.machine import describe_machine
from attar.export.deployed import Deployed
from deployments import Deployments

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


@pytest.mark.usefixtures("one_core_of_eight")
def test_the_report_of_a_machine_counts_the_cores_it_could_use() -> None:
    assert describe_machine(1)["cores"] == 1
