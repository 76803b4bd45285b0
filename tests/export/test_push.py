"""`attar push`: the card of a finished run, a dry run, and an upload to a hub on this machine."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from attar.artifacts import (
    published_fingerprint,
    read_json,
    read_result,
    sha256_of,
    verify,
    write_json,
)
from attar.errors import ArtifactError, UsageError
from attar.export.measured_card import complete_card, evaluations_of, measured_card
from attar.export.model_card import NO_LICENSE, NOT_MEASURED
from attar.export.push import push
from deployments import Deployments
from tiny_recipe import TinyRun, command

REPO = "someone/films"


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as an upload of small files uses."""

    received: dict[str, Any]
    status: int

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _address(self, rest: str = "") -> str:
        return f"http://{self.headers['Host']}/{REPO}{rest}"

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        chunks: list[bytes] = []  # of a body that is sent as a stream
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(chunks)

    def do_GET(self) -> None:
        self._answer({"id": REPO, "modelId": REPO, "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        raw = self._body()
        self.received["token"] = self.headers.get("Authorization")
        if self.status != 200:
            self._answer({"error": "no"}, self.status)
        elif self.path == "/api/repos/create":
            self.received["created"] = json.loads(raw)
            self._answer({"url": self._address(), "name": REPO, "id": REPO})
        elif "/preupload/" in self.path:
            paths = [one["path"] for one in json.loads(raw)["files"]]
            modes = [{"path": path, "uploadMode": "regular"} for path in paths]
            self._answer({"files": [{**mode, "shouldIgnore": False} for mode in modes]})
        elif self.path == "/api/validate-yaml":
            self.received["validated"] = yaml.safe_load(
                json.loads(raw)["content"].split("---\n")[1]
            )
            self._answer({"errors": [], "warnings": []})
        else:
            lines = [json.loads(line) for line in raw.splitlines()]
            files = [line["value"] for line in lines if line["key"] == "file"]
            content = {file["path"]: base64.b64decode(file["content"]) for file in files}
            self.received["files"] = content
            self._answer(
                {
                    "success": True,
                    "commitOid": "1" * 40,
                    "commitUrl": self._address(f"/commit/{'1' * 40}"),
                }
            )


@contextmanager
def serving(status: int = 200) -> Iterator[tuple[str, dict[str, Any]]]:
    """A hub's address, and what it received."""
    received: dict[str, Any] = {}
    handler = type("Hub", (_Hub,), {"received": received, "status": status})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()


def pushed(folder: Path, address: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, with a hub's address, which the library reads when it is imported."""
    settings = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_test"}
    env = {**os.environ, **settings, "NO_PROXY": "127.0.0.1"}
    line = command("push", folder, "--repo", REPO, *words)
    return subprocess.run(line, env=env, capture_output=True, text=True, check=False)


def test_the_card_has_what_the_evaluate_step_measured(tiny_run: TinyRun) -> None:
    card = measured_card(tiny_run.folder / "deploy", "apache-2.0")
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["license"] == "apache-2.0"
    [result] = header["model-index"][0]["results"]
    figures = read_result(tiny_run.folder / "scores").metrics["models"]["deploy"]
    assert result["task"] == {"type": "text-classification"}
    assert result["dataset"] == {"name": "films", "type": "films", "split": "validation"}
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["accuracy"] == pytest.approx(figures["accuracy"]["value"], abs=5e-5)
    assert f"{figures['latency'][0]['p50']:.2f}" in card.partition("## Measured\n")[2]
    assert "License: apache-2.0" in card
    assert NO_LICENSE not in card
    assert NOT_MEASURED not in card
    assert "the author's files" in card.partition("## Data")[2]


def test_a_run_writes_what_it_measured_into_the_card_and_seals_the_folder_again(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    for name in ("deploy", "deploy_ort"):
        key = verify(tiny_run.folder / name).key
        assert read_result(tiny_run.folder / "scores").inputs[name] == key
        card = (tiny_run.folder / name / "README.md").read_text(encoding="utf-8")
        assert card == measured_card(tiny_run.folder / name, None)
        assert "## Measured\n" in card
        assert NOT_MEASURED not in card
    deploy, scores = tmp_path / "run" / "deploy", tmp_path / "run" / "scores"
    shutil.copytree(tiny_run.folder / "deploy", deploy)
    shutil.copytree(tiny_run.folder / "scores", scores)
    content = read_json(scores / "result.json")
    content["metrics"]["models"]["deploy"]["accuracy"]["value"] = 0.1234
    write_json(scores / "result.json", content | {"sha256": ""})
    before, fingerprint = verify(deploy), published_fingerprint(deploy)
    complete_card(deploy, tmp_path / "staging", [scores], sha256_of)
    after, card = verify(deploy), (deploy / "README.md").read_text(encoding="utf-8")
    assert [card.count(part) for part in ("0.1234", "## Measured\n", "model-index:")] == [2, 1, 1]
    assert "## Limits" in card
    assert {name for name in before.files if before.files[name] != after.files[name]} == {
        "README.md"
    }
    assert (after.key, published_fingerprint(deploy)) == (before.key, fingerprint)
    assert not (tmp_path / "staging").exists()


def test_the_export_s_own_card_says_that_quality_and_license_are_unknown(
    deployments: Deployments,
) -> None:
    folder, *_ = deployments.export("int8", "openvino")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert NO_LICENSE in card
    assert NOT_MEASURED in card
    header = yaml.safe_load(card.split("---\n")[1])
    assert not {"license", "model-index"} & set(header)


def test_figures_of_another_export_are_not_taken(tiny_run: TinyRun, tmp_path: Path) -> None:
    """A folder that was made anew since, so that its key differs."""
    run = tmp_path / "run"
    for step in ("deploy", "scores"):
        shutil.copytree(tiny_run.folder / step, run / step)
    assert len(evaluations_of(run / "deploy")) == 1
    file = run / "deploy" / "result.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "key": "another", "sha256": ""}))
    assert evaluations_of(run / "deploy") == []


def test_a_dry_run_shows_the_card_and_the_files_and_sends_nothing(tiny_run: TinyRun) -> None:
    with serving() as (address, received):
        shown = pushed(tiny_run.folder / "deploy", address)
    assert shown.returncode == 0, shown.stderr
    assert "openvino_model.bin" in shown.stdout
    assert "## Measured" in shown.stdout
    assert "missing: a license" in shown.stdout
    assert "add --upload" in shown.stdout
    assert received == {}


def test_an_upload_has_the_card_and_every_file_but_the_result(tiny_run: TinyRun) -> None:
    folder = tiny_run.folder / "deploy"
    with serving() as (address, received):
        done = pushed(folder, address, "--license", "mit", "--upload", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["url"] == f"{address}/{REPO}"
    assert received["token"] == "Bearer hf_test"
    created = received["created"]
    assert created["name"] == "films"
    assert created.get("private") is True or created.get("visibility") == "private"
    files = received["files"]
    assert received["validated"]["license"] == "mit"
    assert set(files) == set(told["files"])
    assert "result.json" not in files
    assert files["README.md"].decode() == measured_card(folder, "mit")
    for name in set(files) - {"README.md"}:
        assert files[name] == (folder / name).read_bytes()


def test_a_hub_that_refuses_is_one_message(tiny_run: TinyRun) -> None:
    with serving(401) as (address, _):
        refused = pushed(tiny_run.folder / "deploy", address, "--upload")
    assert refused.returncode == 2
    assert "HF_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_hub_that_is_not_there_is_one_message(tiny_run: TinyRun) -> None:
    absent = pushed(tiny_run.folder / "deploy", "http://127.0.0.1:9", "--upload")
    assert absent.returncode == 4
    assert "cannot be reached" in absent.stderr
    assert "Traceback" not in absent.stderr


def test_mistakes_are_refused_before_anything_is_sent(tiny_run: TinyRun) -> None:
    deploy = tiny_run.folder / "deploy"
    with pytest.raises(UsageError, match="owner/name"):
        push(deploy, "films", is_upload=True)
    with pytest.raises(UsageError, match="--repo"):
        push(deploy, is_upload=True)
    with pytest.raises(UsageError, match="--license"):
        push(deploy, REPO, license="Apache License 2.0")
    with pytest.raises(ArtifactError, match="not an exported model"):
        push(tiny_run.folder / "student", REPO)


def test_a_dry_run_loads_no_torch(tiny_run: TinyRun) -> None:
    code = (
        "import sys, pathlib; from attar.export.push import push; "
        "push(pathlib.Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(tiny_run.folder / "deploy")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
