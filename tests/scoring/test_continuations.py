"""A context and its continuation become the tokens that lm-eval makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import zero_shot_rows
from attar.errors import DataError, ModelError
from attar.scoring.continuations import Continuation, common, encode_pairs, most_tokens
from attar.special_tokens import open_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words") / "model"
    zero_shot_rows.write_tokenizer(folder)
    return folder


def ids(folder: Path, text: str) -> tuple[int, ...]:
    return tuple(open_tokenizer(folder).encode(text, add_special_tokens=True).ids)


def test_spaces_at_the_end_of_a_context_belong_to_the_continuation(folder: Path) -> None:
    one, other = encode_pairs(folder, [("close the  ", "map"), ("close the", "  map")], 64)
    assert one == other
    context = ids(folder, "close the")
    assert one.fed[: len(context)] == context
    assert (*context, *one.targets) == ids(folder, "close the  map")
    assert one.fed == ids(folder, "close the  map")[:-1]
    assert one.first == len(context) - 1


def test_of_a_long_context_the_beginning_is_lost(folder: Path) -> None:
    pair = ("the list and the map", " and the socket")
    (whole,) = encode_pairs(folder, [pair], 64)
    limit = len(whole.targets) + 2
    (cut,) = encode_pairs(folder, [pair], limit)
    assert len(cut.fed) == limit and cut.fed == whole.fed[-limit:]
    assert cut.targets == whole.targets
    assert (whole.lost, cut.lost) == (0, len(whole.fed) - limit)


def test_an_empty_context_is_the_token_that_begins_or_ends_texts(
    tmp_path: Path, folder: Path
) -> None:
    (found,) = encode_pairs(folder, [("", "the map")], 64)
    assert found == Continuation((0, *ids(folder, "the map")[:-1]), ids(folder, "the map"))
    zero_shot_rows.write_tokenizer(tmp_path, begin=True)
    empty, begun = encode_pairs(tmp_path, [("", "the map"), ("the", " map")], 64)
    assert empty.fed[0] == begun.fed[0] == 1
    assert (1, *empty.targets) == ids(tmp_path, "the map")
    (named,) = encode_pairs(tmp_path, [("<begin>the", " map")], 64)
    assert named.fed == begun.fed  # a text that names it gets it once


def test_what_cannot_be_asked_is_refused_before_anything_is_computed(
    folder: Path, tmp_path: Path
) -> None:
    zero_shot_rows.write_tokenizer(tmp_path, end=True)
    with pytest.raises(ModelError, match="ends every text with '<end>'"):
        encode_pairs(tmp_path, [("the", " map")], 64)
    with pytest.raises(DataError, match="has 5 tokens, but the model reads at most 4"):
        encode_pairs(folder, [("the", "12345")], 4)
    assert len(encode_pairs(folder, [("the", "12345")], 5)[0].targets) == 5
    with pytest.raises(ModelError, match="joins '' with the end of 'the'"):
        encode_pairs(folder, [("the", "")], 64)


def test_a_group_shares_what_all_its_texts_begin_with() -> None:
    requests = [Continuation(fed, (9,)) for fed in ((1, 2, 3, 4), (1, 2, 3), (1, 2, 4), (5,))]
    assert [common(requests, group) for group in ([0, 1], [0, 1, 2], [0, 3], [0])] == [3, 2, 0, 0]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"n_positions": 40, "max_position_embeddings": 99}, 40),
        ({"max_position_embeddings": 99}, 99),
        ({}, 2048),
    ],
)
def test_a_model_is_fed_as_many_tokens_as_its_config_says(
    folder: Path, config: dict[str, Any], expected: int
) -> None:
    assert most_tokens(type("Config", (), config), folder) == expected
