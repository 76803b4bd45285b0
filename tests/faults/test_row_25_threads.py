"""Row 25: one loaded model, many threads, forks. The answers of one thread, memory bounded, or a
clear refusal; it never hangs.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import attar
import forked
from attar.errors import UsageError
from attar.export.deployed import Deployed
from attar.models.deployed.runtimes import Runtime, open_runtime
from deployments import Deployments

THREADS = 8
TEXTS = 20_000
TOLERANCE = 1e-5
"""On a probability: float32 sums of one text in batches of another shape."""
MORE_MIB = 64
"""What thousands of texts of all lengths may add to the memory of the first answers."""
DEADLINE_S = 60
"""Far above what anything here takes; what waits for ever is stopped and fails."""
SERVED = [
    ("int8", "openvino"),
    ("int8", "onnxruntime"),
    ("int4", "safetensors"),
    ("score", "openvino"),
]


@pytest.fixture(scope="module", params=SERVED, ids="-".join)
def folder(request: pytest.FixtureRequest, deployments: Deployments) -> Path:
    return deployments.export(*request.param)[0]


def texts_of_all_lengths(count: int) -> list[str]:
    draw = random.Random(0)
    words = "a good bad movie film socket list sort string number".split()
    return [" ".join(draw.choices(words, k=draw.randint(0, 60))) for _ in range(count)]


def from_threads(work: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """What `work` returns for each thread's number, all begun at the same moment."""
    together = threading.Barrier(threads)

    def begin(number: int) -> Any:
        together.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begin, range(threads)))


def answers_to(model: Deployed, texts: list[str]) -> list[tuple[str, dict[str, float]]]:
    return [(answer.label, dict(answer.scores)) for answer in model.predict(texts)]


def test_every_thread_gets_the_answers_of_one_thread(folder: Path) -> None:
    model = Deployed(folder, threads=1)
    asked = texts_of_all_lengths(120)
    alone = [answers_to(model, [text]) for text in asked]

    def work(number: int) -> list[Any]:
        return [answers_to(model, [text]) for text in asked[number:] + asked[:number]]

    for number, found in enumerate(from_threads(work)):
        assert found == alone[number:] + alone[:number]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["openvino", "onnxruntime"])
def test_thousands_of_texts_from_8_threads_are_answered_as_from_one_in_bounded_memory(
    deployments: Deployments, form: str
) -> None:
    model = Deployed(deployments.export("int8", form)[0], threads=1)
    asked = texts_of_all_lengths(TEXTS)
    draw = random.Random(1)
    cuts = sorted(draw.sample(range(1, TEXTS), TEXTS // 13))  # requests of 1 to some 90 texts
    requests = [asked[a:b] for a, b in zip([0, *cuts], [*cuts, TEXTS], strict=True)]
    expected = model.predict(asked)
    resident = psutil.Process().memory_info().rss

    def work(number: int) -> list[Any]:
        mine = requests[number::THREADS]
        return [model.predict(texts) for texts in mine]

    found = from_threads(work)
    in_order = [found[i % THREADS][i // THREADS] for i in range(len(requests))]
    flat = [answer for answers in in_order for answer in answers]
    assert [one.label for one in flat] == [one.label for one in expected]
    shares = np.array([[list(one.scores.values()) for one in some] for some in (flat, expected)])
    assert np.abs(shares[0] - shares[1]).max() < TOLERANCE
    assert (psutil.Process().memory_info().rss - resident) / 2**20 < MORE_MIB


def test_openvino_compiles_for_few_shapes_and_no_answer_changes(
    deployments: Deployments, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Deployed(deployments.export("int8", "openvino")[0], threads=1)
    runtime: Any = model._runtime._runtime  # pyright: ignore
    shapes: set[tuple[int, ...]] = set()
    infer = runtime._infer

    def noted(inputs: Any, rows: slice) -> np.ndarray:
        shapes.add(inputs["input_ids"][rows].shape)
        return infer(inputs, rows)

    monkeypatch.setattr(runtime, "_infer", noted)
    asked = sorted(texts_of_all_lengths(600), key=len)
    for start in range(0, 600, 12):
        model.predict(asked[start : start + start % 31 + 1])
    assert len(shapes) <= 18  # 1, 2, 4 … 32 rows of 16, 32 or 48 tokens
    padded = model.predict(asked[:40])
    monkeypatch.setattr(runtime, "padded", lambda tokens: tokens)
    exact = model.predict(asked[:40])
    for one, other in zip(padded, exact, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=TOLERANCE)


def test_a_batch_of_any_size_is_answered_row_for_row(deployments: Deployments) -> None:
    runtime = open_runtime(deployments.export("float", "openvino")[0], threads=1)
    ids = np.random.default_rng(0).integers(5, 40, (13, 9))
    rows = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    together = runtime.logits(rows)
    one_by_one = [
        runtime.logits({name: values[i : i + 1] for name, values in rows.items()})
        for i in range(13)
    ]
    assert together.shape == (13, 2)
    assert np.abs(together - np.concatenate(one_by_one)).max() < TOLERANCE * 10


@pytest.mark.parametrize("form", ["openvino", "onnxruntime", "safetensors"])
def test_logits_are_the_callers_own_array(deployments: Deployments, form: str) -> None:
    source = "int4" if form == "safetensors" else "int8"
    runtime: Runtime = open_runtime(deployments.export(source, form)[0], threads=1)
    ids = np.arange(12, dtype=np.int64).reshape(2, 6) + 5
    rows = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    assert runtime.logits(rows).flags.owndata


def test_asyncio_asks_from_threads(folder: Path) -> None:
    model = Deployed(folder, threads=1)
    asked = texts_of_all_lengths(16)

    async def ask() -> list[Any]:
        return await asyncio.gather(*(asyncio.to_thread(answers_to, model, [t]) for t in asked))

    assert asyncio.run(ask()) == [answers_to(model, [text]) for text in asked]


def test_torch_keeps_the_callers_number_of_threads(deployments: Deployments) -> None:
    import torch

    before = torch.get_num_threads()
    used: set[int] = set()
    folder = deployments.export("int4", "safetensors")[0]
    models = [Deployed(folder, threads=count) for count in (1, 2)]
    for model in models:
        runtime: Any = model._runtime._runtime  # pyright: ignore
        runtime._model.register_forward_pre_hook(lambda *_: used.add(torch.get_num_threads()))
    from_threads(lambda number: models[number % 2].predict(["a good movie"] * 3), threads=4)
    assert used == {1, 2}
    assert torch.get_num_threads() == before
    assert from_threads(lambda _: torch.get_num_threads(), threads=2) == [before] * 2


@pytest.mark.parametrize("form", ["openvino", "onnxruntime"])
def test_threads_may_load_at_the_same_time(deployments: Deployments, form: str) -> None:
    folder = deployments.export("int8", form)[0]
    code = (
        "import sys, threading\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import attar\n"
        "from attar.models.deployed import cpu_runtimes\n"
        "together = threading.Barrier(8)\n"
        "def load(_):\n"
        "    together.wait()\n"
        f"    model = attar.load({str(folder)!r}, threads=1)\n"
        "    return id(cpu_runtimes.the_core()), model.predict(['a good movie'])[0].label\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    found = set(pool.map(load, range(8)))\n"
        "assert len(found) == 1, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=DEADLINE_S)


@pytest.mark.parametrize("form", ["openvino", "onnxruntime", "safetensors"])
def test_a_forked_process_is_told_to_load_the_folder_itself(
    deployments: Deployments, form: str
) -> None:
    """In a process of its own: this one has other threads, which a fork should not meet."""
    folder = deployments.export("int4" if form == "safetensors" else "int8", form)[0]
    code = (
        "import os, sys, threading, warnings\n"
        "import attar\n"
        f"model = attar.load({str(folder)!r}, threads=1)\n"
        "expected = model.predict(['a good movie'])[0].scores\n"
        "threading.Thread(\n"
        "    target=lambda: [model.predict(['bad'] * 40) for _ in iter(int, 1)], daemon=True\n"
        ").start()\n"
        "warnings.simplefilter('ignore')\n"
        "for _ in range(3):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        try:\n"
        "            model.predict(['a good movie'])\n"
        "        except attar.errors.UsageError as error:\n"
        "            assert 'load it in each process' in str(error)\n"
        f"            own = attar.load({str(folder)!r}, threads=1)\n"
        "            os._exit(own.predict(['a good movie'])[0].scores != expected)\n"
        "        os._exit(2)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "os._exit(0)\n"
    )
    done = forked.run("-c", code, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr


def test_torch_refuses_several_threads_in_a_forked_process(deployments: Deployments) -> None:
    folder = deployments.export("int4", "safetensors")[0]
    code = (
        "import os, attar\n"
        f"attar.load({str(folder)!r}, threads=2).predict(['a good movie'] * 40)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n"
        f"        attar.load({str(folder)!r}, threads=2)\n"
        "    except attar.errors.UsageError as error:\n"
        "        assert 'threads=1' in str(error)\n"
        f"        attar.load({str(folder)!r}, threads=1).predict(['a good movie'] * 40)\n"
        "        os._exit(0)\n"
        "    os._exit(2)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=DEADLINE_S)


def test_a_loaded_model_is_not_pickled_or_copied(deployments: Deployments) -> None:
    folder = deployments.export("int8", "onnxruntime")[0]
    model = attar.load(folder, threads=1)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(UsageError, match=r"load it in each process: attar.load"):
            attempt(model)
