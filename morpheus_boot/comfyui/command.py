"""The command line that ComfyUI is started with."""

from pathlib import Path
from typing import Final

from morpheus_boot.comfyui.find import ComfyUI
from morpheus_boot.config.settings import may_mean

# A database with a lock, and scans of the whole jobs folder on a network volume (ComfyUI 0.38).
_NO_ASSETS: Final = "--disable-assets"
# Else it lies below ComfyUI's own user folder, wherever --user-directory points, and there may be none to write to.
_DATABASE: Final = "--database-url"


def comfyui_command(
    comfyui: ComfyUI,
    *,
    port: int,
    jobs: Path,
    local: Path,
    extra_paths: Path,
    more: tuple[str, ...],
) -> tuple[str, ...]:
    """ComfyUI's argv: outputs go to ``jobs`` on the volume; input, temp and user folders stay below ``local``.

    Its database lies in that user folder, too, unless ``more`` names another.
    """
    no_assets = (_NO_ASSETS,) if comfyui.knows_option(_NO_ASSETS) else ()
    user = local / "user"
    database: tuple[str, ...] = ()
    if comfyui.knows_option(_DATABASE) and not any(may_mean(arg, (_DATABASE,)) for arg in more):
        database = (_DATABASE, f"sqlite:///{user / 'comfyui.db'}")
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
        str(user),
        "--extra-model-paths-config",
        str(extra_paths),
        *no_assets,
        *database,
        *more,
    )
