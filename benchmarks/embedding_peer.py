"""sentence-transformers in an environment of its own, asked by benchmarks/embedding.py.

    python embedding_peer.py MODEL --backend openvino-qint8 --calibration FILE --threads N

Reads one JSON object a line from stdin, {"texts": FILE, "batch": 32, "vectors": FILE or null}, and
answers each with {"seconds": …}: the time of `encode`, tokenizing included. Imports nothing of
attar.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

QINT8 = "openvino/openvino_model_qint8_quantized.xml"


def opened(arguments: argparse.Namespace, scratch: Path) -> Any:
    """The model as its documentation says: fp32 in torch, or its own static int8 in OpenVINO,
    calibrated on the same texts as attar's."""
    import torch
    from sentence_transformers import SentenceTransformer, export_static_quantized_openvino_model

    torch.set_num_threads(arguments.threads)
    if arguments.backend == "torch":
        return SentenceTransformer(str(arguments.model), device="cpu", local_files_only=True)
    folder = scratch / "model"
    shutil.copytree(arguments.model, folder)
    calibration = scratch / "calibration"
    calibration.mkdir()
    shutil.copyfile(arguments.calibration, calibration / "train.jsonl")
    settings = {"ov_config": {"INFERENCE_NUM_THREADS": arguments.threads}}
    first = SentenceTransformer(str(folder), backend="openvino", model_kwargs=settings)
    export_static_quantized_openvino_model(
        first,
        quantization_config=None,
        model_name_or_path=str(folder),
        dataset_name=str(calibration),
        dataset_config_name="default",
        dataset_split="train",
        column_name="text",
    )
    settings["file_name"] = QINT8
    return SentenceTransformer(str(folder), backend="openvino", model_kwargs=settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--backend", choices=("torch", "openvino-qint8"), required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    import numpy as np

    with tempfile.TemporaryDirectory() as scratch:
        model = opened(arguments, Path(scratch))
        about = {"sentence-transformers": version("sentence-transformers")}
        print(json.dumps(about), file=answers, flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            texts = json.loads(Path(asked["texts"]).read_text(encoding="utf-8"))
            started = time.perf_counter()
            vectors = model.encode(texts, batch_size=asked["batch"], show_progress_bar=False)
            seconds = time.perf_counter() - started
            if asked["vectors"]:
                np.save(asked["vectors"], np.asarray(vectors, dtype=np.float32))
            print(json.dumps({"seconds": seconds}), file=answers, flush=True)


if __name__ == "__main__":
    main()
