"""As a ComfyUI's main.py: lists one model, refuses strangers, and at its first start fails where it is told to.

``--cut WHAT,WHAT``: these requests get no answer, each once. ``--die WHAT``: it ends instead of answering;
``--die-after WHAT``: right after its answer. WHAT is a path, or ``stranger`` for a request without the token. Once it
was started before, it listens only when the file ``gate`` is there.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

HERE = Path(__file__).parent
STARTED = HERE / "started"
FIRST = not STARTED.exists()
ANSWERS = {
    "/system_stats": {},
    "/internal/folder_paths": {"loras": [str(HERE / "models" / "loras")]},
    "/models/loras": ["a.safetensors"],
}


def told(option: str) -> str | None:
    """The request that this option names, at the first start."""
    return sys.argv[sys.argv.index(option) + 1] if FIRST and option in sys.argv else None


class Handler(BaseHTTPRequestHandler):
    """Answers as ComfyUI with our node does."""

    to_cut = (told("--cut") or "").split(",")

    def do_GET(self) -> None:
        what = self.path if self.headers["Authorization"] else "stranger"
        if what in self.to_cut:
            self.to_cut.remove(what)
            return
        if what == told("--die"):
            os._exit(1)
        self.send_response(401 if what == "stranger" else 200)
        self.end_headers()
        self.wfile.write(json.dumps(ANSWERS.get(what)).encode())
        if what == told("--die-after"):
            os._exit(1)


STARTED.touch()
if not FIRST:
    print("at the gate", flush=True)
    while not (HERE / "gate").exists():
        time.sleep(0.02)
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
