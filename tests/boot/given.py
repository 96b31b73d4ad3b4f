"""The ComfyUI that a test boots: the real one where COMFYUI_DIR is set (COMFYUI_PYTHON, COMFYUI_ARGS too), else the
stand-in.
"""

import os
import sys
from pathlib import Path
from typing import Any, Final

import requests

from tests.boot.program import STAND_IN, Program, Site
from tests.wait import wait_until

# Read here, since the tests' environment is bare by the time they run.
_GIVEN: Final = {
    name: os.environ[name]
    for name in ("COMFYUI_DIR", "COMFYUI_PYTHON", "COMFYUI_ARGS")
    if name in os.environ
}
REAL: Final = "COMFYUI_DIR" in _GIVEN
FOLDER: Final = Path(_GIVEN.get("COMFYUI_DIR", STAND_IN))
PYTHON: Final = Path(_GIVEN.get("COMFYUI_PYTHON", sys.executable))
START_LIMIT_S: Final = 600.0 if REAL else 60.0
RUN_LIMIT_S: Final = 120.0 if REAL else 20.0


def site_with_comfyui(root: Path, models: str = "version: 1\nmodels: []\n") -> Site:
    """A container whose models.yaml names no model, so that nothing is linked into a real ComfyUI."""
    root.mkdir(exist_ok=True)
    site = Site(root, models)
    if REAL:
        site.comfyui = FOLDER
        site.environ = {name: value for name, value in _GIVEN.items() if name != "COMFYUI_DIR"}
    return site


def run_prompt(up: Program, port: int, graph: dict[str, Any]) -> list[str]:
    """Sends a prompt straight to ComfyUI; what it saved, relative to jobs/, once it has ended well."""
    url = f"http://127.0.0.1:{port}"
    sent = requests.post(f"{url}/prompt", json={"prompt": graph}, timeout=30)
    assert sent.status_code == 200, sent.text
    history = f"{url}/history/{sent.json()['prompt_id']}"
    wait_until(lambda: bool(requests.get(history, timeout=30).json()), RUN_LIMIT_S)
    [entry] = requests.get(history, timeout=30).json().values()
    assert entry["status"]["status_str"] == "success", entry["status"]
    return [
        f"{image['subfolder']}/{image['filename']}"
        for output in entry["outputs"].values()
        for image in output["images"]
        if image["type"] == "output"
    ]
