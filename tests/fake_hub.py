"""A hub of one data set on this machine: as much of its interface as `datasets` reads a stream by.

    with serving({"data/train-00000-of-00001.parquet": raw}) as hub: …

`COMMIT` is the only commit of `NAME`, or what else it is given.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

NAME = "some/texts"
COMMIT = "1234567890abcdef1234567890abcdef12345678"
Files = Mapping[str, bytes]


def _entry(files: Files, path: str) -> dict[str, Any]:
    raw = files[path]
    return {"type": "file", "path": path, "size": len(raw), "oid": hashlib.sha1(raw).hexdigest()}


def _listing(files: Files, folder: str) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    inside = [path for path in files if path.startswith(prefix)]
    names = {path.removeprefix(prefix).partition("/")[0] for path in inside}
    folders = sorted(prefix + name for name in names if prefix + name not in files)
    found = [{"type": "directory", "path": path, "oid": COMMIT, "size": 0} for path in folders]
    return found + [_entry(files, path) for path in inside if "/" not in path.removeprefix(prefix)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: Files
    name: str
    commit: str

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, content: Any) -> None:
        self._send(json.dumps(content).encode(), Content_Type="application/json")

    def _absent(self, code: str) -> None:
        self._send(b"{}", 404, X_Error_Code=code, X_Repo_Commit=COMMIT)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        self._json([_entry(self.files, path) for path in asked if path in self.files])

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        about = re.fullmatch(rf"/api/datasets/{self.name}(?:/revision/(\w+))?", path)
        tree = re.fullmatch(rf"/api/datasets/{self.name}/tree/(\w+)/?(.*)", path)
        file = re.fullmatch(rf"/datasets/{self.name}/resolve/(\w+)/(.*)", path)
        known = next((found for found in (about, tree, file) if found), None)
        if known is None:
            self._absent("RepoNotFound")
        elif known[1] not in (None, self.commit):
            self._absent("RevisionNotFound")
        elif about:
            siblings = [{"rfilename": name} for name in self.files]
            self._json(
                {"id": self.name, "sha": self.commit, "private": False, "siblings": siblings}
            )
        elif tree:
            listing = _listing(self.files, tree[2])
            self._json(listing) if listing else self._absent("EntryNotFound")
        elif file and file[2] in self.files:
            self._file(self.files[file[2]])
        else:
            self._absent("EntryNotFound")

    def _file(self, raw: bytes) -> None:
        etag = f'"{hashlib.sha1(raw).hexdigest()}"'
        headers = {"ETag": etag, "X_Repo_Commit": self.commit}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self._send(raw, Accept_Ranges="bytes", **headers)
        begin, end = int(asked[1]), min(int(asked[2] or len(raw)), len(raw) - 1)
        span = f"bytes {begin}-{end}/{len(raw)}"
        return self._send(raw[begin : end + 1], 206, Content_Range=span, **headers)


@contextmanager
def serving(files: Files, name: str = NAME, commit: str = COMMIT) -> Iterator[str]:
    """The address of a hub with these files in its data set."""
    handler = type("Handler", (_Handler,), {"files": files, "name": name, "commit": commit})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
