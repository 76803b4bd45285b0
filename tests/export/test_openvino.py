"""Writing an OpenVINO model tells nobody of it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attar.models.deployed.silent_conversion import CONVERTER, REPORTING, nothing_reported
from deployments import Deployments

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
EXPORT_AND_LISTEN = """
import sys
from pathlib import Path
heard = []
WATCHED = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.posix_spawn", "os.fork")
sys.addaudithook(lambda event, arguments: event in WATCHED and heard.append((event, arguments)))
from attar.export.openvino import write_openvino
heard.clear()  # what torch looks up while it is imported
write_openvino(Path(sys.argv[1]), Path(sys.argv[2]), {inputs!r})
import threading
print(heard, [thread.name for thread in threading.enumerate() if "ThreadPool" in thread.name])
"""


def _export_in_a_fresh_interpreter(model: Path, place: Path) -> tuple[str, Path]:
    """What the export reached for, and a home folder that was empty before."""
    home, folder = place / "home", place / "made"
    home.mkdir()
    folder.mkdir()
    is_ci = ("CI", "GITHUB_ACTIONS", "BUILD_NUMBER", "TF_BUILD", "JENKINS_URL")
    surroundings = {name: value for name, value in os.environ.items() if name not in is_ci}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            EXPORT_AND_LISTEN.format(inputs=INPUTS),
            str(model),
            str(folder),
        ],
        capture_output=True,
        text=True,
        check=True,
        env=surroundings | {"HOME": str(home)},
    )
    assert (folder / "openvino_model.xml").is_file()
    return done.stdout.strip().splitlines()[-1], home


@pytest.mark.slow
def test_an_export_reports_nothing_to_anyone(deployments: Deployments, tmp_path: Path) -> None:
    heard, home = _export_in_a_fresh_interpreter(deployments.float() / "model", tmp_path)
    assert heard == "[] []"
    assert not (home / "intel").exists()


def test_a_reporter_that_is_there_is_silent_in_a_conversion_and_back_after_it() -> None:
    modules = [importlib.import_module(f"{CONVERTER}.{name}") for name in REPORTING]
    before = [module.tm for module in modules]
    with nothing_reported():
        stubs = {module.tm.__name__ for module in modules}
    assert stubs == {f"{CONVERTER}.telemetry_stub"}
    assert [module.tm for module in modules] == before


def test_an_openvino_that_reports_in_another_way_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(importlib.import_module(f"{CONVERTER}.{REPORTING[0]}"), "tm")
    with pytest.raises(AttributeError, match="tm"), nothing_reported():
        pass


def test_every_module_of_the_converter_that_reports_is_known() -> None:
    folder = Path(str(importlib.import_module(CONVERTER).__file__)).parent
    reporting = {
        file.stem
        for file in folder.rglob("*.py")
        if "import openvino_telemetry" in file.read_text(encoding="utf-8")
    }
    assert reporting - {"main"} == set(REPORTING)  # main is the command `ovc`
