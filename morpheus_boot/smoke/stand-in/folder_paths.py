"""ComfyUI's `folder_paths`: its directories and model folders, under the names that custom nodes call.

It checks as little as ComfyUI 0.3 does: that no file outside is read or written is the guard's work.
"""

import os
import time
from pathlib import Path
from typing import Final

import yaml

_MODEL_SUFFIXES: Final = {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}
_RENAMED: Final = {"unet": "diffusion_models", "clip": "text_encoders"}

# Folder names with more than one place; all others have one place of their own name.
_SEVERAL_PLACES: Final = {
    "text_encoders": ("text_encoders", "clip"),
    "diffusion_models": ("unet", "diffusion_models"),
    "controlnet": ("controlnet", "t2i_adapter"),
}
_MODEL_FOLDERS: Final = (
    *("checkpoints", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision"),
    *("style_models", "embeddings", "vae_approx", "controlnet", "gligen", "upscale_models"),
    *("latent_upscale_models", "hypernetworks", "photomaker", "model_patches", "audio_encoders"),
)
_HERE: Final = Path(__file__).resolve().parent

# Name -> (places in order, suffixes that count; none: all files count).
folder_names_and_paths: Final[dict[str, tuple[list[str], set[str]]]] = {
    folder: (
        [str(_HERE / "models" / place) for place in _SEVERAL_PLACES.get(folder, (folder,))],
        _MODEL_SUFFIXES,
    )
    for folder in _MODEL_FOLDERS
} | {
    "configs": ([str(_HERE / "models" / "configs")], {".yaml"}),
    "custom_nodes": ([str(_HERE / "custom_nodes")], set()),
}
directories: Final = {name: str(_HERE / name) for name in ("output", "input", "temp", "user")}


def get_output_directory() -> str:
    """Where SaveImage writes."""
    return directories["output"]


def get_input_directory() -> str:
    """Where LoadImage reads."""
    return directories["input"]


def get_temp_directory() -> str:
    """Where PreviewImage writes."""
    return directories["temp"]


def annotated_filepath(name: str) -> tuple[str, str | None]:
    """Splits ``x.png [output]`` into the name and the directory it is annotated with."""
    for annotation in ("output", "input", "temp"):
        if name.endswith(f"[{annotation}]"):
            return name.removesuffix(f"[{annotation}]")[:-1], directories[annotation]
    return name, None


def get_annotated_filepath(name: str) -> str:
    """The path that ``name`` stands for."""
    bare, directory = annotated_filepath(name)
    return os.path.join(directory or get_input_directory(), bare)


def exists_annotated_filepath(name: str) -> bool:
    """Whether that path is there."""
    return os.path.exists(get_annotated_filepath(name))


def add_model_folder_path(folder: str, path: str, is_default: bool = False) -> None:  # noqa: FBT001, FBT002 - ComfyUI's signature
    """Adds a place to ``folder``, in front where ``is_default``; an unknown folder comes into being."""
    places, _ = folder_names_and_paths.setdefault(_RENAMED.get(folder, folder), ([], set()))
    if is_default or path not in places:
        places[:] = [place for place in places if place != path]
        places.insert(0 if is_default else len(places), path)


def load_extra_path_config(config: Path) -> None:
    """Adds what ``config`` names: sections of folder names with one place a line."""
    for section in filter(None, (yaml.safe_load(config.read_text()) or {}).values()):
        is_default = bool(section.pop("is_default", False))
        base = os.path.expandvars(os.path.expanduser(section.pop("base_path", "")))
        for folder, places in section.items():
            for place in filter(None, places.split("\n")):
                path = os.path.normpath(config.parent.absolute() / base / place)
                add_model_folder_path(folder, path, is_default)


def get_folder_paths(folder: str) -> list[str]:
    """The places of ``folder``."""
    return list(folder_names_and_paths[_RENAMED.get(folder, folder)][0])


def get_filename_list(folder: str) -> list[str]:
    """The files of ``folder`` as workflows name them: links are followed, dangling ones listed too."""
    places, suffixes = folder_names_and_paths[_RENAMED.get(folder, folder)]
    found = {
        os.path.relpath(os.path.join(parent, name), place)
        for place in places
        for parent, _, names in os.walk(place, followlinks=True)
        for name in names
        if not suffixes or os.path.splitext(name)[1].lower() in suffixes
    }
    return sorted(found)


def get_full_path_or_raise(folder: str, name: str) -> str:
    """The first file of that name in the places of ``folder``. Raises FileNotFoundError."""
    for place in get_folder_paths(folder):
        path = os.path.join(place, name)
        if os.path.isfile(path):
            return path
    message = f"Model in folder '{folder}' with filename '{name}' not found."
    raise FileNotFoundError(message)


def get_save_image_path(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, int, str, str]:
    """Where ``<prefix>_<counter>_`` goes: folder, name, counter, subfolder, prefix."""
    prefix = filename_prefix.replace("%width%", str(image_width))
    prefix = prefix.replace("%height%", str(image_height))
    for field, directive in (("year", "%Y"), ("month", "%m"), ("day", "%d")):
        prefix = prefix.replace(f"%{field}%", time.strftime(directive))
    subfolder, name = os.path.split(os.path.normpath(prefix))
    folder = os.path.join(output_dir, subfolder)
    os.makedirs(folder, exist_ok=True)
    counters = [_counter(entry, name) for entry in os.listdir(folder)]
    return folder, name, max(counters, default=0) + 1, subfolder, prefix


def _counter(entry: str, name: str) -> int:
    digits = entry.removeprefix(f"{name}_").partition("_")[0]
    return int(digits) if entry.startswith(f"{name}_") and digits.isdecimal() else 0
