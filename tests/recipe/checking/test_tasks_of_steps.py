"""Settings that only a step's data or another step's model shows to be wrong are refused by the
check, not by the step."""

from __future__ import annotations

import pytest

from attar.errors import RecipeError
from attar.recipe.load import parse_recipe

RECIPE = """
name = "tasks"
[data.docs]
source = "stdlib_docs"
[data.text]
source = "stdlib_text"
[data.pairs]
source = "files"
path = "pairs"
objective = "sentence_embedding"
[data.many]
source = "files"
path = "many"
objective = "multi_label"
[data.questions]
source = "files"
path = "questions"
objective = "question_answering"
[steps.corpus]
run = "tokenize"
data = "text"
tokenizer = "demo:minilm-l6"
[steps.teacher]
run = "train"
model = "demo:minilm-l6"
data = "docs"
[steps.int8]
run = "quantize"
model = "teacher"
method = "minmax"
calibration.data = "docs"
[steps.deploy]
run = "export"
model = "int8"
format = "safetensors"
[steps.scores]
run = "evaluate"
models = ["teacher"]
data = "docs"
"""
EMBEDDED = ['steps.teacher.data="pairs"', 'steps.teacher.losses=[{kind="contrastive"}]']
TABLE = 'steps.teacher.model={from="demo:minilm-l6", static_width=64}'
METHOD = 'run="quantize", model="teacher", method'
KL = f'steps.int8={{{METHOD}="auto", loss="kl", calibration.data="many"}}'
LSQ = f'steps.int8={{{METHOD}="lsq", distil=false, calibration.data="pairs"}}'
PADDED = 'steps.teacher.losses=[{kind="eofd",count_padding=true}]'
NESTED = 'steps.teacher.losses=[{kind="contrastive",widths=[128,64]}]'
CACHE = 'steps.answers={run="cache",teacher="teacher",data="questions"}'


def test_the_recipe_is_fine_as_it_is() -> None:
    assert parse_recipe(RECIPE).order


@pytest.mark.parametrize(
    ("overrides", "place", "words"),
    [
        (['steps.deploy.model="teacher"'], "deploy.format", "packs integers, and step 'teacher'"),
        (['steps.scores.answers="generated"'], "scores.answers", "'teacher' has a classification"),
        (["steps.scores.context=64", "steps.scores.stride=65"], "scores", "above context = 64"),
        (['steps.teacher.data="many"', KL], "int8.loss", 'loss = "kl" compares distributions'),
        ([*EMBEDDED, LSQ], "int8.distil", "is always distilled from the float model"),
        ([CACHE], "answers.data", "one column per token of a window"),
        (["steps.teacher.masking={}"], "teacher.data", "masking masks tokens"),
        (['steps.teacher.data="corpus"', "steps.teacher.masking={}"], "teacher.data", "masking"),
        (
            ['steps.teacher.data="corpus"', "steps.teacher.denoisers=[{}]"],
            "teacher.data",
            "denoisers hide spans, and the objective is causal_lm",
        ),
        (['steps.teacher.order="corpus"'], "teacher.order", "order of a corpus's chunks"),
        (
            ['steps.teacher.data={from="docs",retokenize=true}'],
            "teacher.data",
            "is neither a corpus nor a selection",
        ),
        (
            ['steps.teacher.data="questions"', "steps.teacher.window_overlap=128"],
            "teacher",
            "window_overlap = 128 of max_length = 128",
        ),
        (
            ['steps.teacher.teacher="x"', 'steps.teacher.data="questions"', PADDED],
            "teacher.data",
            "count_padding is for classes",
        ),
        (
            ['steps.teacher.data="pairs"', "steps.teacher.embedding={width=64}", NESTED],
            "teacher",
            "contrastive: width 128 is more than the 64 numbers",
        ),
        ([*EMBEDDED, TABLE, "steps.teacher.embedding={width=65}"], "teacher", "width 65 is more"),
        (
            [*EMBEDDED, TABLE, 'steps.teacher.embedding={pooling="cls"}'],
            "teacher",
            'set pooling = "mean"',
        ),
    ],
)
def test_what_does_not_fit_the_data_or_the_model_is_refused(
    overrides: list[str], place: str, words: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(RECIPE, overrides)
    said = str(caught.value)
    assert f"steps.{place}" in said
    assert words in said
