"""A stand-in for ComfyUI: takes its arguments, answers its routes, runs its simplest nodes, needs no torch.

`morpheus boot smoke` copies this folder and starts it as it would start ComfyUI, where none is installed.
"""

import asyncio
import importlib.util
import logging
import shutil
import sys
import time
import traceback
from pathlib import Path

import folder_paths
import nodes
from comfy.cli_args import args, read_args
from comfyui_version import __version__
from server import PromptServer


def _set_up_folders() -> None:
    for config in map(Path, args.extra_model_paths_config):
        folder_paths.load_extra_path_config(config)
    for name in ("output", "input", "user"):
        given = getattr(args, f"{name}_directory")
        if given:
            folder_paths.directories[name] = str(Path(given).absolute())
    if args.temp_directory:
        folder_paths.directories["temp"] = str(Path(args.temp_directory).absolute() / "temp")
    for folder in ("checkpoints", "clip", "vae", "diffusion_models", "loras"):
        path = Path(folder_paths.get_output_directory(), folder)
        folder_paths.add_model_folder_path(folder, str(path))
    # ComfyUI empties its temp directory at each start.
    shutil.rmtree(folder_paths.get_temp_directory(), ignore_errors=True)
    Path(folder_paths.get_temp_directory()).mkdir(parents=True)
    Path(folder_paths.get_input_directory()).mkdir(parents=True, exist_ok=True)


def _import_custom_nodes() -> None:
    """Imports each one before the server listens; one that fails is logged and left out, as ComfyUI does."""
    times = []
    for place in map(Path, folder_paths.get_folder_paths("custom_nodes")):
        for path in place.iterdir():
            is_node = path.is_dir() or path.suffix == ".py"
            if is_node and path.name != "__pycache__" and path.suffix != ".disabled":
                begin = time.perf_counter()
                failed = "" if _import(path) else " (IMPORT FAILED)"
                times.append((time.perf_counter() - begin, failed, path))
    if times:
        logging.info("\nImport times for custom nodes:")
    for seconds, failed, path in sorted(times):
        logging.info("%6.1f seconds%s: %s", seconds, failed, path)


def _import(path: Path) -> bool:
    name = str(path).replace(".", "_x_")
    file = path / "__init__.py" if path.is_dir() else path
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        return False
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        mappings = module.NODE_CLASS_MAPPINGS
    except Exception as error:  # noqa: BLE001 - a foreign node may raise anything, and ComfyUI goes on
        logging.warning("%s", traceback.format_exc())
        logging.warning("Cannot import %s module for custom nodes: %s", path, error)
        return False
    # A custom node never takes a built-in one's name.
    nodes.NODE_CLASS_MAPPINGS.update(mappings | nodes.NODE_CLASS_MAPPINGS)
    return True


def main() -> None:
    """Runs until a signal; SIGTERM has no handler, as in ComfyUI."""
    read_args(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.info("ComfyUI version: %s (a stand-in)", __version__)
    _set_up_folders()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server = PromptServer(loop)
    _import_custom_nodes()
    try:
        loop.run_until_complete(server.start())
    except KeyboardInterrupt:
        logging.info("\nStopped server")


if __name__ == "__main__":
    main()
