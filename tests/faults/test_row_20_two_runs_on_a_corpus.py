"""Rows 20 and 31 for corpora: a second run in a folder where a corpus is being made refuses; and
documents that changed between two runs make another corpus, of which no part is the old one's."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

import corpora
import forked
from attar.errors import UsageError
from attar.recipe.run import run_recipe

RECIPE = corpora.RECIPE.partition("[steps.by_teacher]")[0]
DEADLINE_S = 120


def contents(out: Path) -> dict[str, bytes]:
    files = (out / "selected" / "corpus").iterdir()
    return {f.name: f.read_bytes() for f in files if f.name != "result.json"}


@pytest.mark.slow
def test_two_runs_and_documents_that_change_between_them(tmp_path: Path) -> None:
    recipe = corpora.write_recipe(tmp_path, RECIPE)
    corpora.write_documents(tmp_path / "texts", 4000)
    out, texts = tmp_path / "runs", tmp_path / "texts" / "train.jsonl"
    first = forked.start("attar", "run", recipe, "--out", out)
    try:
        deadline, scratch = time.monotonic() + DEADLINE_S, out / "selected" / ".scratch"
        while not list(scratch.glob("*/shards/00001.tokens.safetensors")):
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        with pytest.raises(UsageError) as caught:
            run_recipe(recipe, out=out, quiet=True, estimates={})
        assert caught.value.exit_code == 2
        assert f"process {first.pid}" in str(caught.value)
        assert not (out / "selected" / "corpus").exists()
    finally:
        first.kill()
        first.communicate()

    begun = len(list(scratch.glob("*/shards/*.safetensors")))
    rows = texts.read_text().splitlines()[:300]
    rows[5] = json.dumps({"text": "Another beginning.", "source": "sea"})
    texts.write_text("\n".join(rows) + "\n")
    run_recipe(recipe, out=out, quiet=True, estimates={})
    run_recipe(recipe, out=tmp_path / "fresh", quiet=True, estimates={})
    assert begun > 1
    assert contents(out) == contents(tmp_path / "fresh")

    shutil.copy(texts, tmp_path / "kept.jsonl")
    texts.write_text("\n".join(rows[:200]) + "\n")
    changed = run_recipe(recipe, out=out, quiet=True, estimates={})
    assert [step.reused for step in changed.steps] == [False]
    assert contents(out) != contents(tmp_path / "fresh")
    texts.write_text((tmp_path / "kept.jsonl").read_text())
    run_recipe(recipe, out=out, quiet=True, estimates={})
    assert contents(out) == contents(tmp_path / "fresh")
