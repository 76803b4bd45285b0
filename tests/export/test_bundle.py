from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import forked
from attar.artifacts import read_json
from attar.errors import ArtifactError
from attar.export.bundle import flops_formula, write_bundle
from attar.export.deployed import Deployed
from attar.export.model_card import NEEDED
from attar.models.cost import Head, cost_from_config
from attar.tasks.task import Task
from deployments import Deployments

TASK = Task(objective="regression", max_length=8, input_names=("input_ids",))
FORMATS = ("openvino", "onnxruntime")
ALONE = (
    "import runpy, sys\n"
    "for name in ('attar', 'torch', 'transformers'): sys.modules[name] = None\n"
    "sys.argv = ['predict.py', *sys.argv[2:]]\n"
    "runpy.run_path({file!r}, run_name='__main__')\n"
)
ON_ONE_CORE = """
import os, runpy, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Torch takes the threads that there are cores, and in a forked process one."""


def answer_of(folder: Path, *texts: str) -> str:
    """What the snippet prints where attar and torch cannot be imported."""
    code = ALONE.format(file=str(folder / "predict.py"))
    done = subprocess.run(
        [sys.executable, "-c", code, "-", *texts], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def assert_same(folder: Path, asked: tuple[Any, ...]) -> None:
    expected = Deployed(folder, threads=1).predict(asked)
    for text, prediction in zip(asked, expected, strict=True):
        label, share = answer_of(folder, *((text,) if isinstance(text, str) else text)).split()
        assert label == prediction.label
        assert float(share) == pytest.approx(prediction.probability, abs=2e-3)


@pytest.mark.parametrize("form", FORMATS)
def test_the_snippet_answers_as_attar_does_and_needs_neither_attar_nor_torch(
    deployments: Deployments, form: str
) -> None:
    folder, asked = deployments.export("int8", form)[0], ("a good movie", "good movie " * 300)
    assert_same(folder, asked)


def test_the_snippet_of_pairs_answers_as_attar_does(deployments: Deployments) -> None:
    assert_same(deployments.pairs()[0], (("open a file", "close it"),))


def test_the_snippet_is_short(deployments: Deployments) -> None:
    for form in FORMATS:
        text = (deployments.export("int8", form)[0] / "predict.py").read_text()
        code = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert len(code) <= 21
        assert ";" not in "".join(code)
        assert max(map(len, text.splitlines())) <= 100


def test_the_card_asks_as_many_texts_as_the_model_reads(deployments: Deployments) -> None:
    one = (deployments.export("int8", "openvino")[0] / "README.md").read_text(encoding="utf-8")
    two = (deployments.pairs()[0] / "README.md").read_text(encoding="utf-8")
    assert "It answers a text with" in one
    assert "It answers a pair of texts with" in two
    assert 'predict.py "first text" "second text"' in two
    assert 'predict([("first text", "second text")])' in two


def test_the_snippet_of_packed_integers_asks_attar(deployments: Deployments) -> None:
    folder, _ = deployments.export("int4", "safetensors")
    text = (folder / "predict.py").read_text()
    assert len(text.splitlines()) <= 18
    said = forked.said("-c", ON_ONE_CORE, folder / "predict.py", "a good movie")
    expected = Deployed(folder, threads=1).predict(["a good movie"])[0]
    assert said.split() == [expected.label, f"{expected.probability:.3f}"]


def test_the_snippet_names_what_a_bare_python_lacks_and_how_to_install_it(
    deployments: Deployments,
) -> None:
    for form in (*FORMATS, "safetensors"):
        program = deployments.export("int4" if form == "safetensors" else "int8", form)[0]
        bare = [sys.executable, "-I", "-S", str(program / "predict.py"), "a good movie"]
        done = subprocess.run(bare, capture_output=True, text=True, check=False)
        packages = NEEDED[form]
        said = rf"(attar|numpy) is not installed\. Run: pip install .*{packages[0][:5]}.*==\d.*\n"
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(said, done.stderr)
        assert done.stderr.count("==") == len(packages)


def test_the_snippet_of_a_regression_prints_the_score(deployments: Deployments) -> None:
    folder, _ = deployments.export("score", "openvino")
    score = Deployed(folder, threads=1).predict(["a good movie"])[0].scores["score"]
    assert float(answer_of(folder, "a good movie")) == pytest.approx(score, abs=1e-3)


def test_a_model_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ArtifactError, match=r"has no tokenizer.json"):
        write_bundle(tmp_path / "model", tmp_path, TASK)


def test_flops_of_every_length_follow_from_three(deployments: Deployments) -> None:
    config = json.loads((deployments.float() / "model" / "config.json").read_text())
    cost = cost_from_config(config, Head(2))
    formula = flops_formula(cost)
    for batch, tokens in ((1, 1), (1, 64), (5, 17)):
        assert formula.of(batch, tokens) == cost.flops(batch, tokens)


def test_a_published_folder_names_no_place_on_this_machine(deployments: Deployments) -> None:
    for form in FORMATS:
        folder, _ = deployments.export("int8", form)
        for file in folder.iterdir():
            assert str(folder.parent).encode() not in file.read_bytes(), file.name
            assert b"/site-packages/" not in file.read_bytes(), file.name


def test_deploy_json_says_what_was_made(deployments: Deployments) -> None:
    content = read_json(deployments.export("int8", "onnxruntime")[0] / "deploy.json")
    assert content["precision"] == "int8"
    assert content["bits"] == {"weight": 8, "embedding": 8, "activation": 8}
    assert content["made_with"].keys() == {"onnx", "onnxruntime"}
    assert set(content["files"]) == {
        *("model.onnx", "tokenizer.json", "tokenizer_config.json", "config.json", "task.json"),
    }
