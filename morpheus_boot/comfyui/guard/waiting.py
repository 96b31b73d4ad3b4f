"""Waits for the other custom nodes' packages, which are unpacked while ComfyUI imports torch."""

from __future__ import annotations

import importlib
import os
import site
import time
from collections.abc import Mapping
from pathlib import Path

_LOOK_EVERY_S = 0.02


def wait_for_packages(environ: Mapping[str, str], boot: int) -> None:
    """Returns once the file MORPHEUS_NODE_GATE is there, if that is set, and lets MORPHEUS_NODE_PACKAGES be imported.

    ComfyUI (nodes.py, init_external_custom_nodes) imports our folder before it lists that of models.yaml's nodes, and
    both after torch. There is no deadline: the boot ends ComfyUI where the packages can't be had. Raises RuntimeError
    when the boot, by its process id the one that started ComfyUI, is gone.
    """
    gate = environ.get("MORPHEUS_NODE_GATE")
    if not gate:
        return
    while not Path(gate).exists():
        if os.getppid() != boot:
            raise RuntimeError("morpheus boot has ended")
        time.sleep(_LOOK_EVERY_S)
    packages = environ.get("MORPHEUS_NODE_PACKAGES")
    if packages:
        # The folder is on sys.path since the start (sitecustomize), where it was missing as long as it was not whole.
        importlib.invalidate_caches()
        site.addsitedir(packages)
