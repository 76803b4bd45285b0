from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import language_runs
from attar.errors import ArtifactError
from attar.scoring.forms import Form, open_form
from attar.special_tokens import open_tokenizer
from deployments import Deployments

FORMS = ("float", "simulated", "openvino", "onnxruntime")


@pytest.fixture(scope="module")
def forms(deployments: Deployments) -> dict[str, Form]:
    return {
        "float": open_form(deployments.float(), 1),
        "simulated": open_form(deployments.int8(), 1),
        "openvino": open_form(deployments.export("int8", "openvino")[0], 1),
        "onnxruntime": open_form(deployments.export("int8", "onnxruntime")[0], 1),
    }


def batch(tokens: int = 7) -> dict[str, np.ndarray]:
    ids = np.arange(2 * tokens, dtype=np.int64).reshape(2, tokens) % 30 + 5
    mask = np.ones_like(ids)
    mask[1, tokens - 2 :] = 0
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": 0 * ids}


def test_each_form_is_recognised_by_its_files(forms: dict[str, Form]) -> None:
    assert {name: form.form for name, form in forms.items()} == {name: name for name in FORMS}


def test_all_forms_answer_alike(forms: dict[str, Form]) -> None:
    logits = {name: form.logits(batch()) for name, form in forms.items()}
    assert {values.shape for values in logits.values()} == {(2, 2)}
    assert {values.dtype for values in logits.values()} == {np.dtype(np.float32)}
    spread = np.abs(logits["float"]).max()
    for values in logits.values():
        assert np.abs(values - logits["float"]).max() < 0.1 * spread


def test_all_forms_count_the_same_parameters_and_flops(forms: dict[str, Form]) -> None:
    assert len({form.num_params for form in forms.values()}) == 1
    for shape in ((1, 128), (8, 31)):
        assert len({form.flops(*shape) for form in forms.values()}) == 1


def test_all_forms_know_the_task(forms: dict[str, Form]) -> None:
    assert {form.task.label_names for form in forms.values()} == {("bad", "good")}
    for form in forms.values():
        assert (form.folder / "tokenizer.json").is_file()


def test_size_is_that_of_weights_and_graph(forms: dict[str, Form]) -> None:
    files = {
        "float": ["model.safetensors"],
        "simulated": ["weights.safetensors", "qparams.json"],
        "openvino": ["openvino_model.xml", "openvino_model.bin"],
        "onnxruntime": ["model.onnx"],
    }
    for name, form in forms.items():
        expected = sum((form.folder / file).stat().st_size for file in files[name]) / 2**20
        assert form.size_mib == pytest.approx(expected)


def test_a_model_has_its_threads_while_it_computes_and_the_caller_keeps_its_own(
    deployments: Deployments,
    tmp_path: Path,
) -> None:
    """Training after an evaluation would go on with the evaluation's threads."""
    import torch

    before, used = torch.get_num_threads(), set[int]()
    ids = np.array([[5, 6, 7, 3]])
    fed: dict[str, np.ndarray] = {"input_ids": ids, "decoder_input_ids": ids}
    causal, spans, writer = (
        language_runs.write_random(tmp_path / task["objective"], family, **task)
        for family, task in (
            ("gpt2", {"objective": "causal_lm"}),
            ("t5", {"objective": "span_corruption"}),
            ("t5", {"objective": "text_to_text", "generation": {"max_new_tokens": 2}}),
        )
    )
    calls: tuple[tuple[Path, Callable[[Form], object]], ...] = (
        (deployments.float(), lambda form: form.logits(batch())),
        (causal, lambda form: form.nats(ids)),
        (spans, lambda form: form.nats_of_targets(fed, ids)),
        (writer, lambda form: form.generate({"input_ids": ids, "attention_mask": 0 * ids + 1})),
    )
    for folder, call in calls:
        form = open_form(folder, before + 1)
        model = form._model  # pyright: ignore
        model.register_forward_pre_hook(lambda *_: used.add(torch.get_num_threads()))
        call(form)
        assert (used, torch.get_num_threads()) == ({before + 1}, before)
        used.clear()


def test_a_decoder_that_names_classes_reads_the_end_of_its_prompt_and_nothing_after_it(
    tmp_path: Path,
) -> None:
    """Its tokenizer would end a text with [SEP], and a cut would take away the question."""
    task = {**language_runs.WORDED, "template": "{0} is", "max_length": 6}
    form = open_form(language_runs.write_random(tmp_path / "gpt2", "gpt2", **task), 1)
    encoded = form.encode([("the film",), ("the film and the list and the bad file",)])
    tokenizer = open_tokenizer(form.folder)
    read = [tokenizer.decode(encoded.batch([row])["input_ids"][0].tolist()) for row in (0, 1)]
    assert read == ["the film is", "the bad file is"]
    assert tokenizer.token_to_id("[SEP]") not in encoded.ids


def test_an_encoder_decoder_that_names_classes_writes_no_more_than_its_longest_word(
    tmp_path: Path,
) -> None:
    form = open_form(language_runs.write_random(tmp_path / "t5", "t5", **language_runs.WORDED), 1)
    words = ([1, *open_tokenizer(form.folder).encode(word).ids] for word in form.task.label_words)
    batch = form.encode([("the film",), ("a bad list",)]).batch([0, 1])
    assert set(batch) == {"input_ids", "attention_mask"}
    assert form.logits(batch).shape == (2, 2)
    assert form.generate(batch).ids.shape[1] <= max(map(len, words))


def test_a_folder_without_a_model_is_refused_with_what_would_be_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"deploy.json .* qparams.json .* model.safetensors"):
        open_form(tmp_path)


@pytest.mark.parametrize("form", ["openvino", "onnxruntime"])
def test_a_deployed_form_needs_no_torch(deployments: Deployments, form: str) -> None:
    folder, _ = deployments.export("int8", form)
    code = (
        "import sys, numpy; from pathlib import Path; from attar.scoring.forms import open_form\n"
        f"form = open_form(Path({str(folder)!r}), 1)\n"
        "ids = numpy.full((1, 5), 7)\n"
        "form.logits({n: ids // 7 for n in form.task.input_names}); form.flops(1, 5)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
