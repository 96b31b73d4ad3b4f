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


def main() -> None:
    """Runs until a signal; SIGTERM has no handler, as in ComfyUI."""
    read_args(sys.argv[1:])
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.info("Python version: %s", sys.version)
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


def _set_up_folders() -> None:
    here = Path(__file__).resolve().parent
    folder_paths.set_up(Path(args.base_directory).absolute() if args.base_directory else here)
    for config in args.extra_model_paths_config:
        folder_paths.load_extra_path_config(Path(config))
    for name in ("output", "input", "user"):
        given = getattr(args, f"{name}_directory")
        if given:
            folder_paths.set_directory(name, str(Path(given).absolute()))
    if args.temp_directory:
        folder_paths.set_directory("temp", str(Path(args.temp_directory).absolute() / "temp"))
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
            if path.name == "__pycache__" or path.suffix == ".disabled":
                continue
            if path.is_file() and path.suffix != ".py":
                continue
            if args.disable_all_custom_nodes and path.name not in args.whitelist_custom_nodes:
                logging.info("Skipping %s due to disable_all_custom_nodes", path.name)
                continue
            begin = time.perf_counter()
            loaded = _import(path)
            times.append((time.perf_counter() - begin, path, loaded))
    if times:
        logging.info("\nImport times for custom nodes:")
    for seconds, path, loaded in sorted(times):
        logging.info("%6.1f seconds%s: %s", seconds, "" if loaded else " (IMPORT FAILED)", path)


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
    nodes.NODE_CLASS_MAPPINGS.update(mappings | nodes.NODE_CLASS_MAPPINGS)
    return True


if __name__ == "__main__":
    main()
