"""How far a byte of a model has to be followed: the calls of ours from the boot's story to the volume."""

import json
from pathlib import Path
from typing import Final

from tests.boot.program import REPOSITORY, Site
from tests.cache.worker import MIB
from tests.testbed.content import safetensors
from tests.testbed.origin import Origin
from tests.wait import wait_until

MOST_FRAMES: Final = 12
# Python runs it at its start: it notes which calls led to the first byte of a part, those of the threads that began
# the thread included.
WITNESS: Final = """
import json, os, sys, threading

def calls():
    found, frame = [], sys._getframe(2)
    while frame is not None:
        if "/morpheus_boot/" in frame.f_code.co_filename:
            found.insert(0, frame.f_code.co_filename.split("/morpheus_boot/")[1] + " " + frame.f_code.co_name)
        frame = frame.f_back
    return getattr(threading.current_thread(), "begun_by", []) + found

def begin(thread, start=threading.Thread.start):
    thread.begun_by = calls()
    start(thread)

def write(fd, data, at, pwrite=os.pwrite):
    if os.readlink(f"/proc/self/fd/{fd}").endswith(".part") and not os.path.exists(LOG):
        with open(LOG, "w") as log:
            json.dump(calls(), log)
    return pwrite(fd, data, at)

threading.Thread.start = begin
os.pwrite = write
"""


def test_no_more_than_twelve_calls_lead_from_the_boot_to_the_volume(
    tmp_path: Path, origin: Origin
) -> None:
    log = tmp_path / "calls.json"
    witness = tmp_path / "witness" / "sitecustomize.py"
    witness.parent.mkdir()
    witness.write_text(f"LOG = {str(log)!r}\n{WITNESS}")
    url = origin.serve("/a", safetensors(4 * MIB))
    site = Site(
        tmp_path,
        f"version: 1\nmodels:\n- {{path: loras/a.safetensors, url: '{url}'}}\n",
        {"PYTHONPATH": f"{witness.parent}:{REPOSITORY}"},
    )

    with site.start("up"):
        wait_until(log.exists, 30)
    calls = json.loads(log.read_text())

    in_boot = max(at for at, call in enumerate(calls) if call.startswith("boot.py"))
    assert len(calls[in_boot:]) <= MOST_FRAMES, "\n".join(calls[in_boot:])
