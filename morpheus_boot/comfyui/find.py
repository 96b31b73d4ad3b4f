"""Finds ComfyUI and the interpreter that it is run by, which is never ours."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.errors import NotSetUp

# The guide's place, worker-comfyui's, runpod/comfyui's, and two that other images use.
USUAL_PLACES: Final = (
    Path("/workspace/ComfyUI"),
    Path("/comfyui"),
    Path("/workspace/runpod-slim/ComfyUI"),
    Path("/ComfyUI"),
    Path("/opt/ComfyUI"),
)
_IMAGE_VENV: Final = Path("/opt/venv")


@dataclass(frozen=True, slots=True)
class ComfyUI:
    """An installed ComfyUI: its folder (with main.py) and its interpreter."""

    folder: Path
    python: Path

    @property
    def models(self) -> Path:
        """Its own models folder, which holds links of ours and nothing else of ours."""
        return self.folder / "models"

    def knows_option(self, option: str) -> bool:
        """Whether this version has a command-line option, by its own source (comfy/cli_args.py)."""
        try:
            return f'"{option}"' in (self.folder / "comfy" / "cli_args.py").read_text("utf-8")
        except OSError:
            return False


def find_comfyui(
    given: Path | None, python: Path | None, *, places: tuple[Path, ...] = USUAL_PLACES
) -> ComfyUI:
    """The ComfyUI that ``given`` (COMFYUI_DIR) names, else the first of the usual places.

    Raises:
        NotSetUp: there is none, or no interpreter for it; the line says where it looked.
    """
    looked = (given,) if given is not None else places
    folder = next((place for place in looked if (place / "main.py").is_file()), None)
    if folder is None:
        raise NotSetUp(
            "ComfyUI",
            f"no main.py in {', '.join(map(str, looked))}",
            "set COMFYUI_DIR to the folder that holds ComfyUI's main.py",
        )
    return ComfyUI(folder, _python_of(folder, python))


def _python_of(folder: Path, given: Path | None) -> Path:
    if given is not None:
        found = shutil.which(given)
        if found is None:
            raise NotSetUp(
                "COMFYUI_PYTHON", f"{given} is not a program", "set it to ComfyUI's own interpreter"
            )
        return Path(found)
    for venv in (folder / ".venv", folder / "venv", _IMAGE_VENV):
        if (venv / "bin" / "python").exists():
            return venv / "bin" / "python"
    system = shutil.which("python3")
    if system is None:
        raise NotSetUp(
            "ComfyUI", "no python3 to run it with", "set COMFYUI_PYTHON to its interpreter"
        )
    return Path(system)
