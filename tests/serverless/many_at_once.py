"""The handler with so many jobs at a time as its argument says: the SDK's loop sleeps a second between two.

Run by the tests as a script, with the repository on PYTHONPATH.
"""

import os
import sys

import runpod

from morpheus_boot.jobs import handler

at_once = int(sys.argv.pop())
files = handler.FileServer(int(os.environ["FILESERVER_PORT"]), os.environ.get("MORPHEUS_TOKEN"))
front = handler.Front(files, runpod.serverless.progress_update)
runpod.serverless.start({"handler": front.handle, "concurrency_modifier": lambda _now: at_once})
