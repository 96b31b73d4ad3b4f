"""The command line that ComfyUI is started with."""

from pathlib import Path
from typing import Final

from morpheus_boot.comfyui.find import ComfyUI

# A database with a lock, and scans of the whole jobs folder on a network volume (ComfyUI 0.38).
_NO_ASSETS: Final = "--disable-assets"


def comfyui_command(
    comfyui: ComfyUI,
    *,
    port: int,
    jobs: Path,
    local: Path,
    extra_paths: Path,
    more: tuple[str, ...],
) -> tuple[str, ...]:
    """ComfyUI's argv: outputs go to ``jobs`` on the volume; input, temp and user folders stay below ``local``."""
    no_assets = (_NO_ASSETS,) if comfyui.knows_option(_NO_ASSETS) else ()
    return (
        str(comfyui.python),
        "-u",
        str(comfyui.folder / "main.py"),
        "--listen",
        "0.0.0.0",  # noqa: S104 - RunPod's proxy reaches the container from outside
        "--port",
        str(port),
        "--output-directory",
        str(jobs),
        "--input-directory",
        str(local / "input"),
        "--temp-directory",
        str(local),
        "--user-directory",
        str(local / "user"),
        "--extra-model-paths-config",
        str(extra_paths),
        *no_assets,
        *more,
    )
