from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from attar.errors import ModelError
from attar.export.float_sites import FLOAT_SITES, float_sites
from attar.export.lowering import IntegerEmbedding, OnePass, example_inputs, float_graph, lower
from attar.export.moved_shortcuts import factor_behind_sum_
from attar.export.onnxruntime import IntegerMatMul
from attar.export.openvino import ByteQuantizer, _integer_weight
from attar.models.load import load_model
from attar.models.simulated.qparams import ModelQParams, SiteQParams
from attar.models.simulated.quantized import load_simulated
from attar.tasks.task import Task
from deployments import Deployments, quantized

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@pytest.mark.parametrize("bits", [8, 4])
def test_the_lowered_model_computes_what_the_simulated_one_does(
    deployments: Deployments, bits: int
) -> None:
    folder = (deployments.int8() if bits == 8 else deployments.int4()) / "model"
    simulated = load_simulated(folder, skip_kinds=FLOAT_SITES).model
    lowered = lower(folder, _integer_weight, ByteQuantizer, factor_behind_sum_)
    inputs = example_inputs(INPUTS)
    with torch.no_grad():
        assert torch.equal(lowered(**inputs), simulated(**inputs).logits)


def test_everything_is_given_to_a_runtime_but_the_products_of_attention(
    deployments: Deployments,
) -> None:
    given: list[str] = []

    def record(site: SiteQParams) -> torch.nn.Module:
        given.append(site.kind)
        return ByteQuantizer(site)

    lower(deployments.int8() / "model", _integer_weight, record, factor_behind_sum_)
    block = ["context", "mha_norm", "ffn_act", "ffn_norm"]
    assert given == ["embedding", *block, *block[:-1], "pooler_input", "classifier_input"]


@pytest.mark.parametrize("bits", [8, 4])
def test_symmetric_queries_and_keys_are_given_to_openvino_alone(
    deployments: Deployments, tmp_path: Path, bits: int
) -> None:
    symmetric = {"query_key_grids": "symmetric", "bits": bits}
    folder = quantized(tmp_path, deployments.float(), **symmetric) / "model"
    qparams = ModelQParams.read(folder)
    left = ("value", "attention_probs")
    assert float_sites(qparams, "openvino") == left
    assert float_sites(qparams, "onnxruntime") == FLOAT_SITES
    assert float_sites(ModelQParams.read(deployments.int8() / "model"), "openvino") == FLOAT_SITES
    scores = [site for site in qparams.sites if site.kind in ("query", "key")]
    half = 2 ** (bits - 1)
    assert {(s.zero_point, s.quant_min, s.quant_max) for s in scores} == {(0, -half, half - 1)}
    assert not any(site.quant_min for site in qparams.sites if site not in scores)
    simulated = load_simulated(folder, skip_kinds=left).model
    lowered = lower(folder, _integer_weight, ByteQuantizer, factor_behind_sum_, "openvino")
    inputs = example_inputs(INPUTS)
    with torch.no_grad():
        assert torch.equal(lowered(**inputs), simulated(**inputs).logits)


def test_the_additive_mask_is_the_librarys_own(deployments: Deployments) -> None:
    model = load_model(deployments.float() / "model", attention="eager").model
    inputs = example_inputs(INPUTS)
    assert (inputs["attention_mask"] == 0).any()
    with torch.no_grad():
        assert torch.equal(OnePass(model)(**inputs), model(**inputs).logits)


@pytest.mark.parametrize("bits", [2, 4, 7, 8])
def test_a_narrow_grid_on_a_byte_is_the_same_grid(bits: int) -> None:
    site = SiteQParams(
        fqn="x",
        port="output",
        kind="ffn_act",
        block=0,
        bits=bits,
        scale=0.3,
        zero_point=1,
        quant_min=0,
        quant_max=2**bits - 1,
    )
    x = torch.linspace(-100, 100, 4001)
    expected = torch.fake_quantize_per_tensor_affine(x, 0.3, 1, 0, site.quant_max)
    assert torch.equal(ByteQuantizer(site)(x), expected)


def test_an_integer_embedding_dequantizes_the_rows_it_is_asked_for() -> None:
    integers = torch.tensor([[1, -2], [127, 0]], dtype=torch.int8)
    rows = IntegerEmbedding(integers, torch.tensor([0.5, 2.0]))(torch.tensor([[1, 0]]))
    assert rows.tolist() == [[[254.0, 0.0], [0.5, -1.0]]]


def test_unsigned_weights_are_the_signed_ones_moved_by_128() -> None:
    linear = torch.nn.Linear(2, 1)
    integers = torch.tensor([[-127, 5]], dtype=torch.int8)
    make = partial(IntegerMatMul, linear, integers, torch.ones(1))
    unsigned, signed = make(signed=False), make(signed=True)
    assert unsigned.get_buffer("integers").tolist() == [[1], [133]]
    assert unsigned.get_buffer("zero_point").tolist() == [128]
    assert signed.get_buffer("integers").tolist() == [[-127], [5]]
    assert signed.get_buffer("zero_point").tolist() == [0]


def test_the_example_has_padding_and_no_two_sizes_alike() -> None:
    inputs = example_inputs(INPUTS)
    assert tuple(inputs) == INPUTS
    assert {tuple(values.shape) for values in inputs.values()} == {(2, 11)}
    assert int(inputs["attention_mask"].sum()) < 22
    assert len(np.unique(inputs["input_ids"].numpy())) > 10


def test_a_decoder_is_refused(tmp_path: Path) -> None:
    model = tiny.tiny_model("gpt2")
    names = ("a", "b", "c")
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: i for i, name in enumerate(names)}
    model.save_pretrained(tmp_path)
    Task(
        objective="classification",
        label_names=names,
        max_length=16,
        input_names=INPUTS[:2],
    ).write(tmp_path)
    with pytest.raises(ModelError, match=r"export supports encoders"):
        float_graph(tmp_path)


def test_a_model_that_was_never_fine_tuned_is_refused(tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    tiny.tiny_model("bert", bare=True, vocab_size=80).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"without task.json"):
        float_graph(tmp_path)


def test_a_quantized_encoder_decoder_is_refused(tmp_path: Path) -> None:
    import simulated
    from attar.export.lowering import lower

    run = simulated.run_quantize(tmp_path, "bart")
    with pytest.raises(ModelError, match=r"export supports encoders"):
        lower(run.folder, lambda *_: None, lambda _: None, lambda *_: None)
