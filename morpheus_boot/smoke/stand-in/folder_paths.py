"""ComfyUI's `folder_paths`: its directories and model folders, under the names that custom nodes call."""

import logging
import mimetypes
import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import yaml

supported_pt_extensions: Final = {
    *(".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft")
}
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

# Name -> (places in order, suffixes that count; none: all files count).
folder_names_and_paths: Final[dict[str, tuple[list[str], set[str]]]] = {}
_directories: Final[dict[str, str]] = {}


def set_up(base: Path) -> None:
    """Puts every directory and model folder below ``base``, before options change them."""
    for folder in _MODEL_FOLDERS:
        places = [str(base / "models" / p) for p in _SEVERAL_PLACES.get(folder, (folder,))]
        folder_names_and_paths[folder] = (places, supported_pt_extensions)
    folder_names_and_paths["configs"] = ([str(base / "models" / "configs")], {".yaml"})
    folder_names_and_paths["custom_nodes"] = ([str(base / "custom_nodes")], set())
    for name in ("output", "input", "temp", "user"):
        _directories[name] = str(base / name)


def load_extra_path_config(config: Path) -> None:
    """Adds the places that an ``--extra-model-paths-config`` names: sections of folders, one place a line."""
    for section in (yaml.safe_load(config.read_text()) or {}).values():
        is_default = bool(section.pop("is_default", False))
        base = os.path.expandvars(os.path.expanduser(section.pop("base_path", "")))
        for folder, places in section.items():
            for place in filter(None, places.split("\n")):
                path = os.path.normpath(config.parent.absolute() / base / place)
                logging.info("Adding extra search path %s %s", folder, path)
                add_model_folder_path(folder, path, is_default)


def set_directory(name: str, path: str) -> None:
    """Moves output, input, temp or user."""
    logging.info("Setting %s directory to: %s", name, path)
    _directories[name] = path


def get_output_directory() -> str:
    """Where SaveImage writes."""
    return _directories["output"]


def get_input_directory() -> str:
    """Where LoadImage reads."""
    return _directories["input"]


def get_temp_directory() -> str:
    """Where PreviewImage writes."""
    return _directories["temp"]


def get_user_directory() -> str:
    """Where settings and databases lie."""
    return _directories["user"]


def get_directory_by_type(type_name: str) -> str | None:
    """The directory that ``type=`` in a URL names; never the user directory."""
    return _directories.get(type_name) if type_name != "user" else None


def annotated_filepath(name: str) -> tuple[str, str | None]:
    """Splits ``x.png [output]`` into the name and the directory it is annotated with."""
    for annotation in ("output", "input", "temp"):
        if name.endswith(f"[{annotation}]"):
            return name.removesuffix(f"[{annotation}]")[:-1], _directories[annotation]
    return name, None


def get_annotated_filepath(name: str) -> str:
    """The path that ``name`` stands for. Raises ValueError where it leaves its directory."""
    bare, directory = annotated_filepath(name)
    base = directory or get_input_directory()
    path = os.path.abspath(os.path.join(base, bare))
    if not is_within(base, path):
        message = f"Invalid file path: {bare!r}"
        raise ValueError(message)
    return path


def exists_annotated_filepath(name: str) -> bool:
    """Whether the file is there and inside its directory, through links too (as from 0.28 on)."""
    try:
        return os.path.exists(get_annotated_filepath(name))
    except ValueError:
        return False


def is_within(directory: str, path: str) -> bool:
    """Whether ``path`` lies in ``directory``, links followed."""
    return Path(path).resolve().is_relative_to(Path(directory).resolve())


def filter_files_content_types(files: Iterable[str], content_types: Collection[str]) -> list[str]:
    """Those of ``files`` whose suffix says image, video or audio."""
    kinds = {f: (mimetypes.guess_type(f, strict=False)[0] or "").partition("/")[0] for f in files}
    return [f for f, kind in kinds.items() if kind in content_types]


def add_model_folder_path(folder: str, path: str, is_default: bool = False) -> None:  # noqa: FBT001, FBT002 - ComfyUI's signature
    """Adds a place to ``folder``, in front where ``is_default``; an unknown folder comes into being."""
    places, _ = folder_names_and_paths.setdefault(_RENAMED.get(folder, folder), ([], set()))
    if path in places and not is_default:
        return
    if path in places:
        places.remove(path)
    places.insert(0 if is_default else len(places), path)


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


def get_full_path(folder: str, name: str) -> str | None:
    """The first file of that name in the places of ``folder``; None where there is none."""
    inside = os.path.relpath(os.path.join("/", name), "/")
    for place in get_folder_paths(folder):
        path = os.path.join(place, inside)
        if os.path.isfile(path):
            return path
        if os.path.islink(path):
            logging.warning("WARNING path %s exists but doesn't link anywhere, skipping.", path)
    return None


def get_full_path_or_raise(folder: str, name: str) -> str:
    """As get_full_path. Raises FileNotFoundError."""
    path = get_full_path(folder, name)
    if path is None:
        message = f"Model in folder '{folder}' with filename '{name}' not found."
        raise FileNotFoundError(message)
    return path


def get_save_image_path(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, int, str, str]:
    """Where ``<prefix>_<counter>_`` goes: folder, name, counter, subfolder, prefix.

    Raises ValueError for a prefix that leaves ``output_dir``.
    """
    prefix = filename_prefix.replace("%width%", str(image_width))
    prefix = prefix.replace("%height%", str(image_height))
    for field, directive in (("year", "%Y"), ("month", "%m"), ("day", "%d")):
        prefix = prefix.replace(f"%{field}%", time.strftime(directive))
    subfolder, name = os.path.split(os.path.normpath(prefix))
    folder = os.path.abspath(os.path.join(output_dir, subfolder))
    if not is_within(output_dir, folder):
        message = f"Saving image outside the output folder is not allowed: {folder}"
        raise ValueError(message)
    os.makedirs(folder, exist_ok=True)
    digits = (
        e[len(name) + 1 :].partition("_")[0] for e in os.listdir(folder) if e.startswith(f"{name}_")
    )
    counter = max((int(number) for number in digits if number.isdecimal()), default=0) + 1
    return folder, name, counter, subfolder, prefix
