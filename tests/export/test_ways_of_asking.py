"""One exported folder, asked in Python, by the command and by its own predict.py: the same texts
get the same answers, and what one refuses the others refuse too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import forked
from attar.artifacts import read_json, sha256_of, write_json
from attar.errors import UsageError
from attar.export.deployed import Deployed
from attar.tasks.task import Task
from deployments import Deployments
from tiny_recipe import attar, command

Command = Callable[..., subprocess.CompletedProcess[str]]

SINGLES = ("a good\tmovie", "good film\t", "", "good movie " * 3000, "\v\u2028x\0y")
PAIRS = (("a good movie", "bad"), ("a good movie", ""), ("good " * 3000, "bad " * 3000))
HALF = "caf\ud83d"
"""Half an emoji, as broken JSON escapes give it."""
SNIPPET_TOLERANCE = 2e-3
"""predict.py prints three digits."""
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module")
def single(deployments: Deployments) -> Path:
    return deployments.export("int8", "openvino")[0]


@pytest.fixture(scope="module")
def paired(deployments: Deployments) -> Path:
    return deployments.pairs()[0]


def by_command(
    folder: Path, *texts: str, command: Command = attar, **settings: object
) -> list[dict[str, object]]:
    finished = command("predict", folder, *texts, "--threads", "1", "--json", **settings)
    assert finished.returncode == 0, finished.stderr
    return [json.loads(line) for line in finished.stdout.removesuffix("\n").split("\n")]


def by_snippet(folder: Path, *texts: str) -> subprocess.CompletedProcess[str]:
    return forked.run(folder / "predict.py", *texts)


def in_ascii(*words: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """A new interpreter, the installed command or another, in the poorest locale."""
    if words[0] == "predict":
        words = tuple(command(*words))
    given = {"capture_output": True, "text": True, "env": {**os.environ, **ASCII_LOCALE}}
    return subprocess.run([*map(str, words)], check=False, **given, **settings)


def refused(finished: subprocess.CompletedProcess[str], said: str) -> bool:
    return finished.returncode == 2 and finished.stdout == "" and said in finished.stderr


def test_a_model_of_single_texts_reads_a_tab_as_part_of_a_text(single: Path) -> None:
    expected = Deployed(single, threads=1).predict(SINGLES)
    found = by_command(single, input="\n".join(SINGLES) + "\n")
    assert [(one["text"], one["scores"]) for one in found] == [
        (text, one.scores) for text, one in zip(SINGLES, expected, strict=True)
    ]
    no_nul = SINGLES[:4]  # no argument holds one
    arguments = by_command(single, *no_nul)
    for one, other in zip(arguments, Deployed(single, threads=1).predict(no_nul), strict=True):
        assert one["scores"] == other.scores
    for text, one in zip(no_nul, expected, strict=False):
        answer = by_snippet(single, text)
        label, share = answer.stdout.split()
        assert label == one.label
        assert float(share) == pytest.approx(one.probability, abs=SNIPPET_TOLERANCE)
        assert (answer.stderr.strip() == "cut at 48 tokens") == one.is_cut


def test_a_model_of_pairs_reads_a_tab_as_what_separates_them(paired: Path) -> None:
    expected = Deployed(paired, threads=1).predict(PAIRS)
    lines = ["\t".join(pair) for pair in PAIRS]
    for found in (by_command(paired, *lines), by_command(paired, input="\n".join(lines))):
        assert [one["scores"] for one in found] == [one.scores for one in expected]
        assert [one["is_cut"] for one in found] == [False, False, True]
    for pair, one in zip(PAIRS, expected, strict=True):
        label, share = by_snippet(paired, *pair).stdout.split()
        assert label == one.label
        assert float(share) == pytest.approx(one.probability, abs=SNIPPET_TOLERANCE)


def test_a_pair_for_a_model_of_single_texts_is_refused(single: Path) -> None:
    with pytest.raises(UsageError, match=r"text 2 of 2 is a pair, .* reads single texts: \('a', "):
        Deployed(single, threads=1).predict(["a", ("a", "b")])
    answer = by_snippet(single, "a", "b")
    assert (answer.returncode, answer.stderr) == (1, 'usage: python -P predict.py "a text"\n')


def test_a_single_text_for_a_model_of_pairs_is_refused(paired: Path) -> None:
    with pytest.raises(
        UsageError, match=r"text 1 of 1 is one text, .* reads pairs: 'a good movie'"
    ):
        Deployed(paired, threads=1).predict(["a good movie"])
    for line, tabs in (("a good movie", 0), ("a\tb\tc", 2)):
        finished = attar("predict", paired, "a\tb", line)
        assert refused(finished, f"text 2 of 2 has {tabs} tabs, and this model reads pairs")
    answer = by_snippet(paired, "a good movie")
    said = 'usage: python -P predict.py "a text" "its second part"\n'
    assert (answer.returncode, answer.stderr) == (1, said)


def test_half_a_character_is_refused_in_every_way(single: Path, paired: Path) -> None:
    said = (
        r"text 2 of 2 is not valid Unicode: 'caf\\ud83d' has half a surrogate pair at character 4"
    )
    with pytest.raises(UsageError, match=said):
        Deployed(single, threads=1).predict(["good film", HALF])
    with pytest.raises(UsageError, match=said):
        Deployed(paired, threads=1).predict([("good", "film"), ("a", HALF)])
    bytes_of_it = os.fsdecode(HALF.encode("utf-8", "surrogatepass"))
    finished = attar("predict", single, "good film", bytes_of_it)
    assert refused(finished, "text 2 of 2 is not UTF-8: 'caf\\udced")
    finished = attar("predict", single, input=f"good\n{bytes_of_it}", errors="surrogateescape")
    assert refused(finished, "stdin, line 2: byte 0xed is not UTF-8")
    answer = by_snippet(single, bytes_of_it)
    assert answer.returncode == 1
    assert "can't decode byte 0xed" in answer.stderr


def test_arguments_are_utf_8_in_any_locale(single: Path) -> None:
    (as_argument,) = by_command(single, "ü good film", command=in_ascii)
    (as_line,) = by_command(single, command=in_ascii, input="ü good film")
    assert as_argument["text"] == as_line["text"] == "ü good film"
    (expected,) = Deployed(single, threads=1).predict(["ü good film"])
    assert as_argument["scores"] == as_line["scores"] == expected.scores
    snippet = in_ascii(sys.executable, single / "predict.py", "ü good film")
    label, _ = snippet.stdout.split()
    assert label == expected.label


def test_a_folder_of_an_older_attar_takes_what_it_is_given_and_refuses_to_guess(
    single: Path, tmp_path: Path
) -> None:
    for file in single.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    task = read_json(tmp_path / "task.json")
    assert task.pop("num_texts") == 1
    write_json(tmp_path / "task.json", task)
    deployment = read_json(tmp_path / "deploy.json")
    deployment["files"]["task.json"] = sha256_of(tmp_path / "task.json")
    write_json(tmp_path / "deploy.json", deployment)
    assert Task.read(tmp_path).num_texts is None
    one, pair = Deployed(tmp_path, threads=1).predict(["good\tbad", ("good", "bad")])
    assert one.scores != pair.scores
    assert len(by_command(tmp_path, "good", "bad")) == 2
    said = (
        "text 2 of 2 has a tab, and this folder, written by an older attar, does not say whether "
        "its model reads pairs"
    )
    assert refused(attar("predict", tmp_path, "good", "good\tbad"), said)


def test_a_text_without_a_token_is_refused(single: Path) -> None:
    model = Deployed(single, threads=1)
    model._encoder._tokenizer.post_processor = None  # no [CLS], as in GPT-2
    assert len(model.predict(["good"])) == 1
    with pytest.raises(UsageError, match=r"text 2 of 3 has no token .* \(1 such texts in all\)"):
        model.predict(["good", "\u200b", "bad"])
