"""Our custom node in ComfyUI: what makes its port safe and compatible, and no node at all.

ComfyUI imports this folder by its path, before its server listens. It needs nothing but ComfyUI's own Python
(3.9 or later, aiohttp), so nothing here imports morpheus_boot, and the modules find each other relatively.
"""

from __future__ import annotations

import os
import sys

NODE_CLASS_MAPPINGS: dict[str, type] = {}
_NOT_SET_UP = 78

# ComfyUI's name for this module is its path; only tests and tools import it as a part of the program.
if __name__ != "morpheus_boot.comfyui.guard":
    try:
        from .installation import install, wait_for_packages

        install(os.environ)
        wait_for_packages(os.environ, os.getppid())
    except BaseException as error:  # noqa: BLE001 - whatever it is, ComfyUI would log it and serve unguarded
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"morpheus_boot_node: it can't guard ComfyUI ({cause})", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(_NOT_SET_UP)
