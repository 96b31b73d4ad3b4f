"""The handler with so many jobs at a time as its argument says: the SDK's loop sleeps a second between two.

Run by the tests as a script, as the handler is: in a Python that has nothing of ours.
"""

import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import runpod

HANDLER = Path(__file__).parents[2] / "morpheus_boot" / "queue" / "handler.py"

at_once = int(sys.argv.pop())
handler = SimpleNamespace(**runpy.run_path(str(HANDLER)))
files = handler.FileServer(int(os.environ["FILESERVER_PORT"]), os.environ.get("MORPHEUS_TOKEN"))
front = handler.Front(files, runpod.serverless.progress_update)
runpod.serverless.start({"handler": front.handle, "concurrency_modifier": lambda _now: at_once})
