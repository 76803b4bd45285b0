"""A data set of the hub is read as `datasets` really reads one, from a hub on this machine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import corpora
from attar.data.config import HubData
from attar.data.documents import documents
from attar.errors import DataError, RecipeError, UsageError
from attar.recipe.load import parse_recipe
from fake_hub import COMMIT, NAME, serving

TEXTS = corpora.texts(400)
READ = """
import json, sys
from pathlib import Path
from attar.data.config import HubData
from attar.data.documents import Document, documents
from attar.data.load import load_data
from attar.errors import DataError

def read(settings):
    config, found = HubData(**settings), {"rejected": []}
    try:
        kept = []
        for each in documents(config, Path(), "web", "source"):
            is_kept = isinstance(each, Document)
            kept.append([each.row, each.source, each.text]) if is_kept else found[
                "rejected"].append(each.reason)
        data = load_data(config, Path())
        judged = [text for (text,) in data.split("validation").texts]
        planned = len(data.split("train"))
        return found | {"kept": kept, "judged": judged, "planned": planned}
    except DataError as error:
        return {"error": str(error)}

json.dump([read(each) for each in json.load(sys.stdin)], sys.stdout)
"""


def _parquet(texts: list[Any]) -> bytes:
    stream = io.BytesIO()
    sources = ["sea" if number % 2 else "land" for number in range(len(texts))]
    table = pa.table({"text": texts, "source": sources, "meta": [{"length": 1}] * len(texts)})
    pq.write_table(table, stream, row_group_size=50)
    return stream.getvalue()


FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    "data/train-00000-of-00002.parquet": _parquet(TEXTS[:150]),
    "data/train-00001-of-00002.parquet": _parquet([*TEXTS[150:], None, "  "]),
    "data/validation-00000-of-00001.parquet": _parquet(["judged by this.", None]),
}
CASES: dict[str, dict[str, Any]] = {
    "validation": {"validation": "validation"},
    "held out": {},
    "one row": {"validation_rows": 1},
    "column": {"text": "txet"},
    "split": {"split": "trian"},
    "config": {"config": "none"},
    "name": {"name": "some/other"},
    "revision": {"revision": "a" * 40},
    "folder": {"name": "a/folder"},
}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a process finds for which this hub is the hub: `datasets` takes its address once."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "a" / "folder").mkdir(parents=True)
    asked = [{"name": NAME, "revision": COMMIT} | settings for settings in CASES.values()]
    with serving(FILES) as address:
        switches = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "USE_TORCH": "0"}
        done = subprocess.run(
            [sys.executable, "-c", READ],
            cwd=folder,
            env=os.environ | switches | {"HF_HOME": str(folder / "home"), "no_proxy": "*"},
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


def test_rows_come_in_order_with_their_numbers_and_sources(read: dict[str, dict[str, Any]]) -> None:
    found = read["validation"]
    assert [text for *_, text in found["kept"]] == TEXTS
    assert [row for row, *_ in found["kept"]] == list(range(400))
    assert [source for _, source, _ in found["kept"][148:152]] == ["land", "sea", "land", "sea"]
    assert found["rejected"] == ["no text", "empty text"]
    assert found["judged"] == ["judged by this."]
    assert found["planned"] == 400


def test_without_a_validation_split_a_hundredth_never_enters(
    read: dict[str, dict[str, Any]],
) -> None:
    found = read["held out"]
    kept = [text for *_, text in found["kept"]]
    assert sorted([*found["judged"], *kept]) == sorted(TEXTS)
    assert 0 < len(found["judged"]) < 20
    assert read["one row"]["judged"] == found["judged"][:1]
    assert read["one row"]["kept"] == found["kept"]
    assert found["planned"] == len(kept)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("column", "no column 'txet' (did you mean 'text'?); its columns are 'text', 'source'"),
        ("split", "Bad split: trian. Available splits: "),
        ("config", "BuilderConfig 'none' not found"),
        ("name", "'some/other' on the hub cannot be read after row 0"),
        ("revision", "revision (aaaaaaaaaaaa…)"),
        ("folder", "has the same name as the folder"),
    ],
)
def test_what_is_not_there_is_one_message(
    read: dict[str, dict[str, Any]], case: str, said: str
) -> None:
    assert said in read[case]["error"]


def test_offline_the_message_names_the_data_set_and_the_row() -> None:
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match=rf"'{NAME}' on the hub cannot be read after row 0"):
        list(documents(HubData(name=NAME, revision=COMMIT), Path(), "web"))


def test_without_datasets_the_command_that_installs_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'attar\[hub\]'"):
        list(documents(HubData(name=NAME, revision=COMMIT), Path(), "web"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('name = "texts"', "must be owner/name, got 'texts'"),
        ('name = "../texts/more"', "must be owner/name"),
        ('revision = "main"', "must be a commit of 40 hexadecimal digits, got 'main'"),
        ("train_rows = 5", "set max_documents = 5 in the tokenize step"),
    ],
)
def test_a_table_says_which_rows_it_means(settings: str, said: str) -> None:
    name = settings.partition(" ")[0]
    table = {"source": '"hub"', "name": f'"{NAME}"', "revision": f'"{COMMIT}"'}
    lines = [f"{key} = {value}" for key, value in table.items() if key != name]
    text = "\n".join(['name = "r"', "[data.web]", *lines, settings, "[steps.report]"])
    with pytest.raises(RecipeError, match=said):
        parse_recipe(text + '\nrun = "report"\n')
