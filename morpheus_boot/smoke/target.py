"""The ComfyUI that smoke runs: a real one where there is one, else the stand-in."""

import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.comfyui.find import find_comfyui
from morpheus_boot.config.settings import Settings
from morpheus_boot.errors import NotSetUp

_STAND_IN: Final = Path(__file__).parent / "stand-in"
_GPU_DEVICES: Final = (Path("/dev/nvidia0"), Path("/dev/kfd"))


@dataclass(frozen=True, slots=True)
class Target:
    """``comfyui`` is ComfyUI's folder, ``variables`` what its inner boots see besides."""

    comfyui: Path
    variables: Mapping[str, str]
    description: str


def choose_target(settings: Settings, workspace: Path) -> Target:
    """The ComfyUI that ``settings`` find; where they name none and none is found, the stand-in.

    The stand-in is copied below ``workspace``: boots write links into ComfyUI's folder.

    Raises:
        NotSetUp: the ComfyUI that was named is none.
    """
    try:
        found = find_comfyui(settings.comfyui_dir, settings.comfyui_python)
    except NotSetUp as error:
        if settings.comfyui_dir or settings.comfyui_python:
            raise
        folder = workspace / "ComfyUI"
        shutil.copytree(_STAND_IN, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("models", "custom_nodes"):
            (folder / name).mkdir()
        variables = {"COMFYUI_PYTHON": sys.executable, "COMFYUI_ARGS": ""}
        return Target(folder, variables, f"the stand-in ComfyUI ({error.cause})")
    cpu = () if _has_gpu() or "--cpu" in settings.comfyui_args else ("--cpu",)
    args = " ".join((settings.environ.get("COMFYUI_ARGS", ""), *cpu)).strip()
    return Target(found.folder, {"COMFYUI_ARGS": args}, f"the real ComfyUI in {found.folder}")


def remove_links(comfyui: Path, places: Iterable[str], volume: Path) -> None:
    """Removes smoke's links from ComfyUI's models/: those of its names that lead to its ``volume``."""
    for place in places:
        link = comfyui / "models" / place
        if link.is_symlink() and link.readlink().is_relative_to(volume):
            link.unlink()


def _has_gpu() -> bool:
    return any(device.exists() for device in _GPU_DEVICES) or shutil.which("nvidia-smi") is not None
