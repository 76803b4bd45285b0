"""The door to all sources: subsets that nest, and nothing imported that is not asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from attar.data.config import DataConfig, FilesData
from attar.data.load import SOURCES, data_of, load_data
from attar.progress import Progress
from attar.step import StepContext


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = ["text,label", *(f"sentence {i},{i % 2}" for i in range(300))]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    return tmp_path


def texts(folder: Path, seed: int = 0, split: str = "train", **limits: int) -> list[str]:
    config = FilesData(path=".", **limits)  # type: ignore[arg-type]
    return [text for (text,) in load_data(config, folder, seed=seed).split(split).texts]


def test_more_train_rows_contain_fewer(folder: Path) -> None:
    everything = texts(folder)
    few, more = texts(folder, train_rows=20), texts(folder, train_rows=90)
    assert (len(few), len(more)) == (20, 90)
    assert set(few) < set(more) < set(everything)
    assert texts(folder, train_rows=10_000) == everything
    assert more == [text for text in everything if text in set(more)]


def test_a_seed_chooses_train_rows_and_never_what_is_measured_on(folder: Path) -> None:
    assert texts(folder, seed=1, train_rows=20) != texts(folder, seed=2, train_rows=20)
    measured = [texts(folder, seed=seed, split="validation", validation_rows=9) for seed in (1, 2)]
    assert measured[0] == measured[1]
    assert len(measured[0]) == 9
    assert not set(measured[0]) & set(texts(folder, seed=1))


def test_rows_seed_chooses_train_rows_whatever_the_step_s_seed(folder: Path) -> None:
    fixed = [texts(folder, seed=seed, train_rows=20, rows_seed=1) for seed in (1, 2)]
    assert fixed[0] == fixed[1] == texts(folder, seed=1, train_rows=20)


def test_every_source_of_the_config_has_its_function() -> None:
    union = DataConfig.__origin__.__args__  # type: ignore[attr-defined]
    assert {member.model_fields["source"].default for member in union} == set(SOURCES)


def test_the_name_is_carried(folder: Path) -> None:
    assert load_data(FilesData(path="."), folder, name="mine").name == "mine"


CHECK_IMPORTS = """
import sys
from pathlib import Path
from attar.data.config import StdlibDocsData
from attar.data.fingerprint import data_fingerprint
data_fingerprint(StdlibDocsData(), Path())
print(*sorted({"torch", "numpy", "pyarrow", "transformers", "datasets"} & set(sys.modules)))
from attar.data.load import load_data
load_data(StdlibDocsData(), Path())
print(*sorted({"torch", "pyarrow", "transformers", "datasets"} & set(sys.modules)))
print(*sorted({"tkinter", "turtle", "idlelib", "antigravity", "this"} & set(sys.modules)))
"""


def test_a_source_imports_only_its_own_libraries() -> None:
    """The fingerprint needs no numpy, the docstrings no Arrow, and neither runs a source."""
    child = [sys.executable, "-c", CHECK_IMPORTS]
    found = subprocess.run(child, capture_output=True, text=True, check=True).stdout
    assert found == "\n\n\n"


def test_a_step_says_what_its_data_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what judges as a warning, which --quiet does not silence; of train as a line."""
    (tmp_path / "d").mkdir()
    for split, strange in (("train", ","), ("validation", ",neutral")):
        lines = [f"t {i},{('neg', 'pos')[i % 2]}" for i in range(400)]
        rows = ["text,label", *lines, *[f"film{strange}"] * 3]
        (tmp_path / "d" / f"{split}.csv").write_text("\n".join(rows))
    for quiet in (True, False):
        context = StepContext(
            name="scores",
            folder=tmp_path,
            scratch=tmp_path,
            inputs={},
            data={"d": FilesData(path="d")},
            recipe_folder=tmp_path,
            progress=Progress(quiet=quiet),
        )
        data_of(context, "d")
        said = capsys.readouterr().err
        judged = "data 'd', split 'validation': set aside 3 × unknown label 'neutral'"
        assert f"warning: scores: {judged}" in said
        train = "  scores: data 'd', split 'train': set aside 3 × empty label"
        assert (train in said) == (not quiet)
    data_of(context, "d", is_said=True)
    assert capsys.readouterr().err == ""
