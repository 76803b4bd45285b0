from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from attar.errors import NonFiniteError, UsageError
from attar.export.deployed import BATCH_SIZE, Deployed, Prediction
from deployments import Deployments

FORMATS = ("openvino", "onnxruntime")


@pytest.fixture(scope="module", params=FORMATS)
def model(request: pytest.FixtureRequest, deployments: Deployments) -> Deployed:
    return Deployed(deployments.export("int8", request.param)[0], threads=1)


def test_a_prediction_has_label_probability_and_milliseconds(model: Deployed) -> None:
    (answer,) = model.predict(["a good movie"])
    assert answer.label in ("bad", "good")
    assert answer.probability == max(answer.scores.values())
    assert set(answer.scores) == {"bad", "good"}
    assert sum(answer.scores.values()) == pytest.approx(1)
    assert answer.milliseconds > 0


def test_the_first_call_answers_a_batch_before_it_is_timed(
    deployments: Deployments, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Deployed(deployments.export("int8", "openvino")[0], threads=1)
    logits, sizes = model._runtime.logits, list[int]()

    def counted(batch: dict[str, np.ndarray]) -> np.ndarray:
        sizes.append(len(batch["input_ids"]))
        return logits(batch)

    monkeypatch.setattr(model._runtime, "logits", counted)
    model.predict(["a film"] * (BATCH_SIZE + 1))
    assert sizes == [BATCH_SIZE, BATCH_SIZE, 1]
    model.predict(["a film"])
    assert sizes[3:] == [1]


def test_answers_come_in_the_order_of_the_texts(model: Deployed) -> None:
    words = ["good", "bad", "movie", "socket", "list", "sort"]
    texts = [" ".join(words[: i % 6 + 1] * (i % 4 + 1)) for i in range(BATCH_SIZE + 9)]
    together = model.predict(texts)
    alone = [model.predict([text])[0] for text in texts]
    shares = np.array([[answer.scores["good"] for answer in found] for found in (together, alone)])
    assert np.abs(shares[0] - shares[1]).max() < 0.02
    assert np.ptp(shares[0]) > 0.1


def test_no_text_gets_no_answer(model: Deployed) -> None:
    assert model.predict([]) == []


def test_an_empty_text_and_a_very_long_one_are_answered(model: Deployed) -> None:
    assert len(model.predict(["", "good movie " * 5000])) == 2


def test_a_text_is_cut_where_the_model_ends_and_says_so(model: Deployed) -> None:
    fits = "good " * (model.task.max_length - 2)  # [CLS] and [SEP]
    whole, cut = model.predict([fits, fits + "movie"])
    assert (whole.is_cut, cut.is_cut) == (False, True)
    assert cut.scores == whole.scores
    assert cut.as_json()["is_cut"]


@pytest.mark.parametrize("texts", ["one string", [3], [("a", "b", "c")], [("a", None)]])
def test_what_is_no_list_of_texts_is_refused(model: Deployed, texts: object) -> None:
    with pytest.raises(UsageError, match=r"list of texts|allowed are"):
        model.predict(texts)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_what_is_no_number_of_threads_is_refused(model: Deployed, threads: object) -> None:
    with pytest.raises(UsageError, match=r"threads must be a whole number of at least 1, or None"):
        Deployed(model.folder, threads=threads)  # pyright: ignore[reportArgumentType]


def test_a_score_has_no_probability(deployments: Deployments) -> None:
    folder, metrics = deployments.export("score", "openvino")
    (answer,) = Deployed(folder, threads=1).predict(["a good movie"])
    assert answer.probability is None
    assert answer.label == f"{answer.scores['score']:.4f}"
    assert metrics["parity"]["label_flips"] == 0


def test_answers_that_are_not_numbers_are_no_answers(model: Deployed) -> None:
    class Broken:
        def logits(self, batch: object) -> np.ndarray:
            return np.array([[np.nan, 0.0]])

        def padded(self, tokens: int) -> int:
            return tokens

    broken = Deployed.__new__(Deployed)
    broken.__dict__ = {**model.__dict__, "_runtime": Broken()}
    with pytest.raises(NonFiniteError, match=r"NaN or infinity"):
        broken.predict(["a"])


def test_a_prediction_can_be_printed_and_dumped() -> None:
    answer = Prediction("good", 0.75, 1.23, {"bad": 0.25, "good": 0.75})
    assert answer.text() == "good  0.750  1.2 ms"
    assert answer.as_json()["scores"] == {"bad": 0.25, "good": 0.75}
    assert Prediction("1.5000", None, 1.0).text() == "1.5000  1.0 ms"


@pytest.mark.parametrize("form", FORMATS)
def test_predicting_loads_no_torch(deployments: Deployments, form: str) -> None:
    folder, _ = deployments.export("int8", form)
    code = (
        "import sys, attar\n"
        f"answers = attar.load({str(folder)!r}, threads=1).predict(['a good movie'])\n"
        "assert len(answers) == 1\n"
        "heavy = {'torch', 'transformers', 'onnx', 'scipy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
