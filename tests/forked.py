"""Processes that need not load torch: forked from one that has, once for all tests of a worker.

Loading torch, transformers and the runtimes takes two to four seconds of processor time, what a
test does with a tiny model a few tenths. So the first test that wants a process starts a server;
that loads what commands load, runs nothing, has one thread, and forks. The child has its own
arguments, environment, folder and standard streams, ends as any interpreter ends, and can be sent
signals or killed.

Not for torch with several threads, which attar refuses behind a fork, nor for tests of what is
loaded when, of the import path, of the locale, of how torch is told of its
threads, or of memory limits: an interpreter decides those when it starts. They use `subprocess`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
MODULES = (
    *("torch", "accelerate", "openvino", "onnxruntime", "pyarrow.parquet", "sklearn.metrics"),
    *("scipy.stats", "altair", "jinja2", "psutil"),
    *("transformers.models.bert.modeling_bert", "transformers.models.llama.modeling_llama"),
    *("attar.cli", "attar.recipe.run", "attar.export.deployed"),
)
"""What is loaded before the first fork, beside the functions of all steps."""
COMMAND, CODE = "attar", "-c"
START_S = 280
"""Loading takes some seconds of processor time, on a busy machine minutes."""


class Forked:
    """A child of the server, with what tests use of `subprocess.Popen`."""

    def __init__(self, words: Sequence[str], settings: Mapping[str, Any]) -> None:
        """Words and settings as of `start`."""
        self.args = list(words)
        self.returncode: int | None = None
        address = _server()
        folder = Path(tempfile.mkdtemp(dir=address.parent))
        streams = {name: folder / name for name in ("in", "out", "err")}
        self._encoding = {"encoding": "utf-8", "errors": settings.get("errors", "strict")}
        streams["in"].write_bytes((settings.get("input") or "").encode(**self._encoding))
        self._streams = streams
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(str(address))
        request = {
            "words": self.args,
            "folder": str(settings.get("cwd") or Path.cwd()),
            "environment": {**(settings.get("env") or os.environ)},
            "streams": [str(streams[name]) for name in ("in", "out", "err")],
        }
        self._line.sendall(json.dumps(request).encode() + b"\n")
        self._answers = self._line.makefile()
        self.pid = int(self._answers.readline())
        RUNNING.add(self)

    def poll(self) -> int | None:
        """As of `Popen`."""
        if self.returncode is None and select.select([self._line], [], [], 0)[0]:
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._line.close()
            RUNNING.remove(self)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """As of `Popen`."""
        if self.returncode is None:
            if not select.select([self._line], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.poll()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """As of `Popen`."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """As of `Popen`."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """As of `Popen`: stdout and stderr, once the process has ended."""
        self.wait(timeout)
        out, err = (self._streams[name].read_text(**self._encoding) for name in ("out", "err"))
        return out, err


def start(*words: object, **settings: Any) -> Forked:
    """Begin `attar`, a Python file or Python code in a child of the server.

    Args:
        words: "attar", the file, or "-c" and the code, then its arguments.
        settings: `cwd`, `env`, `input` and `errors`, as of `subprocess.run`.
    """
    return Forked([str(word) for word in words], settings)


def run(*words: object, timeout: float = 280, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Such a process to its end.

    Raises:
        TimeoutExpired: it took longer, and was killed.
    """
    process = start(*words, **settings)
    try:
        out, err = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def said(*words: object, **settings: Any) -> str:
    """What such a process wrote to stdout; it must end well."""
    done = run(*words, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


RUNNING: set[Forked] = set()
"""Nobody has seen them end yet."""
SERVERS: list[subprocess.Popen[bytes]] = []
"""One at most. Its stdin stays open as long as this process lives, and it ends with it."""


@cache
def _server() -> Path:
    """The address of this worker's server, started when first asked for."""
    folder = tempfile.mkdtemp(prefix="forked-")
    address = Path(folder) / "socket"
    command, quiet = [sys.executable, __file__, str(address)], subprocess.DEVNULL
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["ORT_DISABLE_TELEMETRY"] = "1"  # its thread would be joined behind a fork: abort
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, env=environment)
    SERVERS.append(server)
    assert server.stdin is not None
    for end in (lambda: shutil.rmtree(folder), server.wait, server.stdin.close):  # the last first
        atexit.register(end)
    deadline = time.monotonic() + START_S
    while not address.exists():
        assert server.poll() is None and time.monotonic() < deadline, "no server of processes"
        time.sleep(0.01)
    return address


def _serve(address: str) -> Callable[[], None] | None:
    """Fork for every request. Returns in the children, with what they are to do."""
    sys.path[:0] = [str(TESTS)]
    for module in MODULES:
        importlib.import_module(module)
    from attar.recipe.steps import STEPS

    for kind in STEPS.values():
        kind.resolve()
        kind.resolve_plan()
    from attar.cores import waiting
    from attar.planning import CPU, measured_flops_per_s
    from attar.report.html import page_template

    for precision in ("fp32", "bf16"):  # which takes a second of every plan, once a process
        measured_flops_per_s(precision, CPU)
    page_template()  # compiled
    waiting()  # looks at the machine for a tenth of a second
    os.fsync = lambda descriptor: None  # as in conftest.py
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{address}.new")
        door.listen(64)
        Path(f"{address}.new").rename(address)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        gc.freeze()
        while True:
            if sys.stdin in select.select([door, sys.stdin], [], [])[0]:
                return None
            line, _ = door.accept()
            if os.fork() == 0:
                break
            line.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    request = json.loads(line.makefile().readline())
    child = os.fork()
    if child:  # stands between, to tell how the child ended
        line.sendall(f"{child}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with suppress(BrokenPipeError):
            line.sendall(f"{status}\n".encode())
        os._exit(0)
    line.close()
    return _take_over(**request)


def _take_over(
    words: list[str], folder: str, environment: dict[str, str], streams: list[str]
) -> Callable[[], Any]:
    """Make this process what was asked for; its work."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, (stream, flags) in enumerate(
        zip(streams, (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_APPEND] * 2), strict=True)
    ):
        opened = os.open(stream, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    if words[0] == CODE:
        sys.argv = [CODE, *words[2:]]
        return lambda: exec(words[1], {"__name__": "__main__"})
    sys.argv = words
    if words[0] != COMMAND:
        return lambda: runpy.run_path(words[0], run_name="__main__")
    from attar.cli import main

    return main


if __name__ == "__main__":
    if work := _serve(sys.argv[1]):
        work()
