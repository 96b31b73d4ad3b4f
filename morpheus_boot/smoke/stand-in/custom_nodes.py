"""Imports custom nodes from every place of the folder `custom_nodes`, before the server listens."""

import importlib.util
import logging
import sys
import time
import traceback
from pathlib import Path

import folder_paths
import nodes
from comfy.cli_args import args


def import_custom_nodes() -> None:
    """Imports each one; one that fails is logged and left out, as ComfyUI does."""
    builtin = frozenset(nodes.NODE_CLASS_MAPPINGS)
    times = []
    for place in map(Path, folder_paths.get_folder_paths("custom_nodes")):
        for path in place.iterdir():
            if path.name == "__pycache__" or path.suffix == ".disabled":
                continue
            if path.is_file() and path.suffix != ".py":
                continue
            if args.disable_all_custom_nodes and path.name not in args.whitelist_custom_nodes:
                logging.info("Skipping %s due to disable_all_custom_nodes", path.name)
                continue
            begin = time.perf_counter()
            loaded = _import(path, builtin)
            times.append((time.perf_counter() - begin, path, loaded))
    if times:
        logging.info("\nImport times for custom nodes:")
    for seconds, path, loaded in sorted(times):
        logging.info("%6.1f seconds%s: %s", seconds, "" if loaded else " (IMPORT FAILED)", path)


def _import(path: Path, builtin: frozenset[str]) -> bool:
    name = str(path).replace(".", "_x_")
    file = path / "__init__.py" if path.is_dir() else path
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        return False
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception:  # noqa: BLE001 - a foreign node may raise anything, and ComfyUI goes on
        logging.warning("%s", traceback.format_exc())
        logging.warning("Cannot import %s module for custom nodes", path)
        return False
    mappings = getattr(module, "NODE_CLASS_MAPPINGS", None)
    if mappings is None:
        logging.warning(
            "Skip %s module for custom nodes due to the lack of NODE_CLASS_MAPPINGS", path
        )
        return False
    # A custom node never takes a built-in one's name.
    nodes.NODE_CLASS_MAPPINGS.update({k: v for k, v in mappings.items() if k not in builtin})
    nodes.NODE_DISPLAY_NAME_MAPPINGS.update(getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", {}))
    return True
