"""A stand-in for huggingface.co: a folder behind a local HTTP server, which the hub's real client
talks to. It can cut connections, gate files, and hand out wrong bytes."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

COMMIT = "c" * 40
CHUNK = 1 << 10
"""Bytes that the client writes at a time here; 10 MB otherwise, which a cut loses at most."""


class StandInHub:
    """One model, `someone/tiny`: the files of a folder, at one commit."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.commit = COMMIT
        self.revisions = {"main": COMMIT, COMMIT: COMMIT}
        self.gated: int | None = None
        """HTTP status of every file, for a login without access."""
        self.cut: dict[str, int] = {}
        """File -> how many bytes are sent before the connection is lost, this time and later."""
        self.wrong: set[str] = set()
        """Files of which another byte is sent than the listing's checksum is of."""
        self.extra: dict[str, bytes] = {"onnx/config.json": b"{}", "consolidated.safetensors": b"x",
                                        "pytorch_model.bin": b"x", "README.md": b"# x"}
        self.requests: list[tuple[str, str, str]] = []
        """(method, path or file, Range) of every request."""
        self.pushed: dict[str, dict[str, bytes]] = {}
        """Repository -> its files, of what was uploaded with the login `a-token`."""
        self.private: set[str] = set()
        self.endpoint = ""

    def content(self, name: str) -> bytes:
        return self.extra[name] if name in self.extra else (self.folder / name).read_bytes()

    def names(self) -> list[str]:
        return sorted([*(path.name for path in self.folder.iterdir()), *self.extra])

    def sent(self, name: str) -> list[str]:
        """The Range of every request for a file; "" for the whole."""
        return [spread for method, path, spread in self.requests if (method, path) == ("GET", name)]

    def info(self) -> dict:
        """The model's description as `/api/models/...?blobs=true` gives it."""
        siblings = []
        for name in self.names():
            data = self.content(name)
            file = {"rfilename": name, "size": len(data),
                    "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
            if name.endswith((".safetensors", "tokenizer.json")):
                file["blobId"] = "0" * 40
                file["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data),
                               "pointerSize": 130}
            siblings.append(file)
        return {"id": "someone/tiny", "sha": self.commit, "private": False, "tags": [],
                "gated": "manual" if self.gated else False, "siblings": siblings}

    def tree(self) -> list[dict]:
        """The same files as `/api/models/.../tree/...?recursive=true` lists them."""
        return [{"type": "file", "path": file["rfilename"], "size": file["size"],
                 "oid": file["blobId"]} | ({"lfs": {
                     "oid": file["lfs"]["sha256"], "size": file["size"], "pointerSize": 130}}
                     if "lfs" in file else {}) for file in self.info()["siblings"]]

    @contextmanager
    def running(self) -> Iterator["StandInHub"]:
        """Serve until the block ends."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (Handler,), {"hub": self}))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: a connection a request."""

    hub: StandInHub

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer a-token":
            self.refuse(403, "")
        elif path == "/api/validate-yaml":
            self.answer(b'{"errors": [], "warnings": []}')
        elif path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            self.hub.pushed[repo] = {}
            self.hub.private |= {repo} if asked["visibility"] == "private" else set()
            self.answer(json.dumps({"url": f"{self.hub.endpoint}/{repo}"}).encode())
        elif "/preupload/" in path:
            self.answer(json.dumps({"files": [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]]}).encode())
        else:
            repo = path.removeprefix("/api/models/").split("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.hub.pushed[repo][value["path"]] = base64.b64decode(value["content"])
            self.answer(json.dumps({"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{COMMIT}",
                                    "commitOid": COMMIT}).encode())

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/api/whoami-v2":
            known = self.headers["Authorization"] == "Bearer a-token"
            self.answer(b'{"name": "someone"}' if known else b'{"error": "Invalid user token."}',
                        200 if known else 401)
            return
        if url.path.startswith("/api/") and not url.path.startswith("/api/models/"):
            self.refuse(404, "")
            return
        owner, name, *rest = unquote(url.path).strip("/").removeprefix("api/models/").split("/")
        is_api = url.path.startswith("/api/models/")
        self.hub.requests.append(("GET", url.path if is_api else rest[-1],
                                  self.headers.get("Range", "")))
        revision = rest[1] if rest else "main"
        if (owner, name) != ("someone", "tiny"):
            self.refuse(404, "RepoNotFound")
        elif revision not in self.hub.revisions:
            self.refuse(404, "RevisionNotFound")
        elif is_api:
            listed = self.hub.tree() if rest[:1] == ["tree"] else self.hub.info()
            self.answer(json.dumps(listed).encode())
        elif self.hub.gated:
            self.refuse(self.hub.gated, "GatedRepo")
        else:
            self.send_file("/".join(rest[2:]))

    def send_file(self, name: str) -> None:
        data = self.hub.content(name)
        if name in self.hub.wrong:
            data = bytes([data[0] ^ 1]) + data[1:]
        spread = self.headers.get("Range", "")
        start = int(spread.removeprefix("bytes=").split("-")[0]) if spread else 0
        self.send_response(206 if spread else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if spread:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[start:self.hub.cut.get(name)])

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def client_of(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Point the hub's client of this process at the stand-in, online and without its pauses."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                        hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    close_session()
    try:
        yield
    finally:
        close_session()
