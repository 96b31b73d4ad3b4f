"""A stand-in for ComfyUI: takes its arguments, answers its routes, runs its simplest nodes, needs no torch.

`morpheus boot smoke` copies this folder and starts it as it would start ComfyUI, where none is installed.
"""

import asyncio
import logging
import shutil
import sys
from pathlib import Path

import folder_paths
from comfy.cli_args import args, read_args
from comfyui_version import __version__
from custom_nodes import import_custom_nodes
from extra_paths import load_extra_path_config
from server import PromptServer


def _set_up_folders() -> None:
    here = Path(__file__).resolve().parent
    folder_paths.set_up(Path(args.base_directory).absolute() if args.base_directory else here)
    configs = [Path(path) for paths in args.extra_model_paths_config for path in paths]
    for config in (here / "extra_model_paths.yaml", *configs):
        if config in configs or config.is_file():
            load_extra_path_config(config)
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
    import_custom_nodes()
    try:
        loop.run_until_complete(server.start())
    except KeyboardInterrupt:
        logging.info("\nStopped server")


if __name__ == "__main__":
    main()
