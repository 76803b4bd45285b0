"""Row 6: memory short before anything runs: `plan` and the run refuse with the numbers and what can
be done."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import tiny_recipe
from attar import control_groups
from attar.errors import ResourceError
from attar.progress import Progress
from attar.recipe.plan import Plan
from attar.recipe.running.memory import require_memory
from attar.step import StepPlan
from attar.usable_memory import MIB, usable_memory_mib

SHAPE = {
    **{"model_type": "bert", "vocab_size": 100, "hidden_size": 8192, "num_hidden_layers": 48},
    **{"num_attention_heads": 64, "intermediate_size": 32768, "max_position_embeddings": 64},
}
"""39 thousand million parameters: no test machine trains them. Planned without their weights."""
FIGURES = {"num_params": 10, "memory_mib": 1000.0, "disk_mib": 1.0, "seconds": 1.0}
FIGURES |= {"texts_at_once": 8, "text_mib": 100.0}
STEP = StepPlan(name="teacher", run="train", lowered_by="micro_batch_size", **FIGURES)
"""1,000 MiB with eight texts at a time, 300 with one."""


def refused(usable_mib: float, *steps: StepPlan, names: tuple[str, ...] = ("teacher",)) -> str:
    """What is warned of."""
    said = io.StringIO()
    plan = Plan("small", steps or (STEP,))
    require_memory(plan, Progress(said, quiet=True), names, usable_mib)
    return said.getvalue()


def test_a_model_that_no_machine_trains_is_refused_by_plan_and_run(tmp_path: Path) -> None:
    recipe = tiny_recipe.write(tmp_path)
    fields = ", ".join(f"{name} = {json.dumps(value)}" for name, value in SHAPE.items())
    model = f'steps.teacher.model={{ config = {{ {fields} }}, tokenizer = "bert" }}'
    for words in (("plan", recipe), ("run", recipe, "--out", tmp_path / "runs", "--quiet")):
        done = tiny_recipe.attar(*words, "--set", model)
        assert done.returncode == 4, done.stderr
        assert "memory is short before anything runs: " in done.stderr
        assert "\n  - step 'teacher' (train) needs about 59" in done.stderr
        assert "MiB even with one text at a time" in done.stderr
        for remedy in ("lower max_length", "take a smaller model", "close other programs"):
            assert remedy in done.stderr
    assert not (tmp_path / "runs" / "tiny" / "teacher").exists()
    assert not any((tmp_path / "runs" / "tiny").glob(".scratch/*"))


def test_a_step_is_refused_only_when_one_text_at_a_time_does_not_fit() -> None:
    with pytest.raises(ResourceError, match=r"299 MiB are available") as caught:
        refused(299)
    assert caught.value.exit_code == 4
    assert "step 'teacher' (train) needs about 300 MiB even with one text at a time" in str(
        caught.value
    )
    for usable, size in ((300, 1), (999, 7), (500, 2)):
        assert f"--set steps.teacher.micro_batch_size={size} " in refused(usable)
    assert refused(1000) == ""


def test_every_step_that_is_too_large_is_named_and_only_those_that_will_run() -> None:
    whole = StepPlan(
        name="deploy", run="export", num_params=10, memory_mib=700.0, disk_mib=1.0, seconds=1.0
    )
    with pytest.raises(ResourceError) as caught:
        refused(200, STEP, whole, names=("teacher", "deploy"))
    assert "'teacher'" in str(caught.value)
    assert str(caught.value).endswith("\n  - step 'deploy' (export) needs about 700 MiB")
    assert refused(500, STEP, whole, names=()) == ""
    assert "'deploy'" not in refused(500, STEP, whole)


def test_a_setting_is_named_only_where_it_leaves_the_batch_as_it_is() -> None:
    quantized = StepPlan(name="small", run="quantize", **FIGURES)
    said = refused(500, quantized, names=("small",))
    assert "lower its batch_size or max_length" in said and "--set" not in said


def group_of(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, int | str]) -> None:
    """A machine that has this process in the group /jobs, of version 2 or 1 by its files' names."""
    kinds = ("0::/jobs", "cgroup2 cgroup2 rw"), ("4:memory:/jobs", "cgroup cgroup rw,memory")
    line, mount = kinds["memory.limit_in_bytes" in files]
    written = {
        "proc/self/cgroup": line,
        "proc/self/mountinfo": f"30 23 0:26 / /groups rw - {mount}",
    }
    written |= {f"groups/jobs/{name}": str(content) for name, content in files.items()}
    for name, content in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content + "\n")
    monkeypatch.setattr(control_groups, "SYSTEM", folder)


USED = 300 * MIB


@pytest.mark.parametrize(
    ("files", "free_mib"),
    [
        ({"memory.max": USED + 7 * MIB, "memory.current": USED}, 7),
        ({"memory.max": USED - MIB, "memory.current": USED}, 0),
        (
            {
                "memory.max": USED,
                "memory.current": USED,
                "memory.stat": f"anon 1\ninactive_file {5 * MIB}\nactive_file {4 * MIB}",
            },
            9,
        ),
        (
            {
                "memory.limit_in_bytes": USED + MIB,
                "memory.usage_in_bytes": USED,
                "memory.stat": f"inactive_file 7\ntotal_inactive_file {5 * MIB}",
            },
            6,
        ),
    ],
    ids=["limit", "beyond", "cached-files", "version-1"],
)
def test_a_control_group_counts_without_the_files_it_caches(
    files: dict[str, int | str], free_mib: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group_of(tmp_path, monkeypatch, files)
    own = psutil.Process().memory_info().rss / MIB
    assert usable_memory_mib() == pytest.approx(own + free_mib, abs=1)


def test_a_control_group_without_a_limit_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group_of(tmp_path, monkeypatch, {"memory.max": "max", "memory.current": USED})
    assert usable_memory_mib() > 100


LIMITED = """
import resource
import psutil
from attar.usable_memory import usable_memory_mib
own = psutil.Process().memory_info()
resource.setrlimit(resource.RLIMIT_AS, (own.vms + 64 * 2**20,) * 2)
print(usable_memory_mib() - own.rss / 2**20)
"""


def test_a_limit_on_the_address_space_counts() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 48 < float(done.stdout) <= 72
