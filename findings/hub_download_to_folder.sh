#!/usr/bin/env bash
# huggingface_hub's snapshot_download keeps nothing of a file that was cut, and compares sizes alone: a
# 16 GB shard that broke off at 15 GB starts again from its first byte, and a file of the right length
# with a wrong byte passes, and is never asked for again.
#
#   findings/hub_download_to_folder.sh     # half a minute beside the download; fails if it changed
#
# Seen with huggingface_hub 2.4.0 on Python 3.11, against a local server that holds one model:
#
#   cut at 600000 of 1000000 bytes:   RemoteProtocolError, 0 bytes kept
#   the same call once more:          ranges asked for ['']
#   one byte of it is wrong:          no error, checksum as listed: False
#   the same call once more:          no error, requests for the file []
#   verify_repo_checksums:            mismatches ['model.safetensors']
#
# Downloads to the cache go through the same function (_download_to_tmp_and_move). Nothing of this
# repository runs here; it keeps a file that was cut and goes on, and calls verify_repo_checksums at
# the end (model/hub/files.py).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "${folder}"' EXIT
python3 -m venv "${folder}/venv"
"${folder}/venv/bin/python" -m pip install --quiet --disable-pip-version-check huggingface_hub==2.4.0
cd "${folder}"
cat > download.py <<'PYTHON'
"""A server with one model of one file, and what snapshot_download makes of it."""
import hashlib
import json
import os
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SIZE, CUT, COMMIT, NAME = 1_000_000, 600_000, "c" * 40, "model.safetensors"
data = random.Random(0).randbytes(SIZE)
sha256 = hashlib.sha256(data).hexdigest()
state = {"cut": SIZE, "wrong": False}
ranges = []


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def send(self, body, start=0, headers=()):
        self.send_response(206 if start else 200)
        for key, value in [("Content-Length", str(len(body) - start)), *headers]:
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[start:state["cut"]] if len(body) == SIZE else body)

    def do_GET(self):
        if "/tree/" in self.path:
            lfs = {"oid": sha256, "size": SIZE, "pointerSize": 130}
            self.send(json.dumps([{"type": "file", "path": NAME, "size": SIZE, "oid": "0" * 40,
                                   "lfs": lfs}]).encode())
        elif self.path.startswith("/api/"):
            self.send(json.dumps({"id": "me/tiny", "sha": COMMIT,
                                  "siblings": [{"rfilename": NAME}]}).encode())
        else:
            spread = self.headers.get("Range", "")
            if self.command == "GET":
                ranges.append(spread)
            start = int(spread.removeprefix("bytes=").split("-")[0]) if spread else 0
            body = bytes([data[0] ^ 1]) + data[1:] if state["wrong"] else data
            self.send(body, start, [("ETag", f'"{sha256}"'), ("X-Repo-Commit", COMMIT)])

    do_HEAD = do_GET


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}", "HF_HOME": "home",
               "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
from huggingface_hub import HfApi, constants, snapshot_download  # noqa: E402  after HF_ENDPOINT

constants.DOWNLOAD_CHUNK_SIZE = 1000  # 10 MB otherwise, of which a cut loses the last


def download(folder):
    ranges.clear()
    try:
        snapshot_download("me/tiny", revision=COMMIT, local_dir=folder)
    except Exception as error:
        return type(error).__name__
    return "no error"


state["cut"] = CUT
told = download("cut")
kept = sum(path.stat().st_size for path in Path("cut").rglob("*")
           if path.is_file() and path.stat().st_size > 10_000)
print(f"cut at {CUT} of {SIZE} bytes:   {told}, {kept} bytes kept")
state["cut"] = SIZE
download("cut")
print(f"the same call once more:          ranges asked for {ranges}")
state["wrong"] = True
told = download("wrong")
same = hashlib.sha256(Path("wrong", NAME).read_bytes()).hexdigest() == sha256
print(f"one byte of it is wrong:          {told}, checksum as listed: {same}")
state["wrong"] = False
print(f"the same call once more:          {download('wrong')}, requests for the file {ranges}")
checked = HfApi().verify_repo_checksums("me/tiny", revision=COMMIT, local_dir="wrong")
print(f"verify_repo_checksums:            mismatches {[each['path'] for each in checked.mismatches]}")
PYTHON
env -u HF_HUB_OFFLINE -u HF_TOKEN venv/bin/python download.py 2> errors > seen || { cat errors; exit 1; }
cat seen
cat > expected <<'TEXT'
cut at 600000 of 1000000 bytes:   RemoteProtocolError, 0 bytes kept
the same call once more:          ranges asked for ['']
one byte of it is wrong:          no error, checksum as listed: False
the same call once more:          no error, requests for the file []
verify_repo_checksums:            mismatches ['model.safetensors']
TEXT
diff expected seen || { echo "changed: see the lines above (< seen before, > now)"; exit 1; }
echo "as seen before"
