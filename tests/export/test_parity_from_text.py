"""The parity gate asks transformers, from text: a misread tokenizer is not published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deployments as made
from attar import transformers_tokenizer
from attar.errors import GateMissedError
from attar.export.deployed import Deployed
from clients_asked import softmax
from deployments import Deployments

CAPITALS = ["GOOD GREAT bad", "POOR not good", "BAD ERROR film"]


def write_texts(root: Path) -> None:
    folder = root / "texts"
    folder.mkdir()
    for split in ("train", "validation"):
        lines = [json.dumps({"text": text, "label": "good"}) for text in CAPITALS * 8]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def contradicting(deployments: Deployments, root: Path) -> Path:
    """A model whose `tokenizer.json` lower-cases, and whose settings say that it must not."""
    shutil.copytree(deployments.float(), root / "source")
    file = root / "source" / "model" / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings |= {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    file.write_text(json.dumps(settings))
    write_texts(root)
    return root / "source"


def by_transformers(folder: Path, texts: list[str]) -> list[list[float]]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits.numpy() for text in texts]
    return softmax(np.concatenate(logits)).tolist()


def test_two_files_that_disagree_are_read_as_transformers_reads_them(
    deployments: Deployments, tmp_path: Path
) -> None:
    source = contradicting(deployments, tmp_path)
    folder, _ = made.exported(tmp_path, "deploy", source, "openvino")
    answers = [list(a.scores.values()) for a in Deployed(folder, threads=1).predict(CAPITALS)]
    expected = by_transformers(source / "model", CAPITALS)
    assert answers == [pytest.approx(row, abs=1e-4) for row in expected]
    in_small_letters = by_transformers(source / "model", [text.lower() for text in CAPITALS])
    assert expected != [pytest.approx(row, abs=1e-2) for row in in_small_letters]


def test_a_fault_of_attars_reading_is_refused_with_the_text_and_both_ids(
    deployments: Deployments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = contradicting(deployments, tmp_path)

    def by_one_file(files: transformers_tokenizer.Files) -> Any:
        """`tokenizer.json` without the settings beside it."""
        from transformers import PreTrainedTokenizerFast

        file = tmp_path / "alone.json"
        file.write_bytes(dict(files)["tokenizer.json"])
        return PreTrainedTokenizerFast(tokenizer_file=str(file))

    monkeypatch.setattr(transformers_tokenizer, "_build", by_one_file)
    monkeypatch.setattr(transformers_tokenizer, "_cached", by_one_file)
    said = r"text 0 as other input_ids .*GOOD GREAT bad.*exported: \[\d.*transformers: \[\d"
    with pytest.raises(GateMissedError, match=said):
        made.exported(tmp_path, "deploy", source, "openvino")
