"""The page about serving shows code that runs: the part that answers is run here, the rest is
compiled, because web frameworks are no dependency of attar."""

from __future__ import annotations

import re
from pathlib import Path

from attar.export.deployed import Deployed
from deployments import Deployments

PAGE = Path(__file__).resolve().parent.parent / "docs/guides/serving.md"


def test_the_service_on_the_page_answers_as_python_does(deployments: Deployments) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 22
    compile(code, "service.py", "exec")
    folder = deployments.export("int8", "onnxruntime")[0]
    before = code.partition("from fastapi")[0].replace('"deploy"', repr(str(folder)))
    shown: dict = {}
    exec(before, shown)
    texts = ["a good movie", "bad " * 100]
    expected = Deployed(folder).predict(texts)
    assert shown["answer"](texts) == [
        {"label": one.label, "probability": one.probability, "is_cut": one.is_cut}
        for one in expected
    ]
