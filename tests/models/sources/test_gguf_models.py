"""The model that a package carries as GGUF becomes a folder that attar opens like any other."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

import forked
from attar.models.sources.demo import DEMO_MODELS, demo_folder

SENTENCE = "The quick brown fox jumps over the lazy dog. The capital of France is"


def _is_installed() -> bool:
    try:
        importlib.metadata.distribution(DEMO_MODELS["smollm2-135m"].distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.skipif(not _is_installed(), reason="its package is not installed")
def test_the_converted_model_reads_english() -> None:
    import torch

    from attar.data.packing import document_tokenizer
    from attar.models.load import load_model

    folder = demo_folder("demo:smollm2-135m")
    loaded = load_model(folder, task=None, seed=0)
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 134_515_008
    tokenizer, end = document_tokenizer(folder)
    assert tokenizer.id_to_token(end) == "<|endoftext|>"
    ids = torch.tensor([tokenizer.encode(SENTENCE, add_special_tokens=False).ids])
    with torch.inference_mode():
        logits = loaded.model(ids).logits[0]
    assert tokenizer.id_to_token(int(logits[-1].argmax())) == "ĠParis"
    nll = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
    assert nll < 4.2  # 3.7; with query and key rows in the order of llama.cpp 4.7


def test_without_the_library_the_message_says_how_to_install_it(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.modules['gguf'] = None; os.environ['XDG_CACHE_HOME'] = sys.argv[1]\n"
        "from pathlib import Path\n"
        "from attar.errors import UsageError\n"
        "from attar.models.sources.demo import converted\n"
        "try: converted(Path('model.gguf'), 'model', '</s>', 'pip install gguf')\n"
        "except UsageError as error: print(error)"
    )
    assert "pip install gguf" in forked.said("-c", code, tmp_path)
    assert not list(tmp_path.iterdir())
