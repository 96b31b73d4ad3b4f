"""The stand-in's options, spelt and typed as in ComfyUI's comfy/cli_args.py; any other one ends it with 2."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

# Custom nodes import this name, so it is filled in place. Callers look for an option's name in this file.
args: Final = argparse.Namespace()


def read_args(argv: Sequence[str]) -> None:
    """Parses ``argv`` into ``args``. Raises SystemExit(2) for an option that is not known."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8188)
    for name in ("output", "input", "temp"):
        parser.add_argument(f"--{name}-directory")
    parser.add_argument("--user-directory", type=_existing_directory)
    parser.add_argument("--extra-model-paths-config", nargs="+", action="extend", default=[])
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--disable-assets", action="store_true")
    parser.parse_args(argv, namespace=args)


def _existing_directory(path: str) -> str:
    # ComfyUI refuses only this one of its directories when it does not exist.
    if not Path(path).is_dir():
        message = f"The path '{path}' does not exist or is not a directory."
        raise argparse.ArgumentTypeError(message)
    return path
