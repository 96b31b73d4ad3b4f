"""Where ComfyUI finds the models: links in its own models/, or a farm of links of ours beside it.

Either is told to ComfyUI by a generated extra-model-paths file, which also names our folders of custom nodes.
"""

import difflib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_boot.volume.mount import Mount, mount_of
from morpheus_boot.volume.publish import write_whole

# Folders below models/ that ComfyUI reads under another name (folder_paths.py).
_READ_AS: Final = {
    "clip": "text_encoders",
    "unet": "diffusion_models",
    "t2i_adapter": "controlnet",
}


# The folders that ComfyUI reads by itself (folder_paths.py); any other is for custom nodes.
_OWN: Final = (
    *("checkpoints", "loras", "vae", "text_encoders", "clip", "diffusion_models", "unet"),
    *("clip_vision", "style_models", "embeddings", "diffusers", "vae_approx", "controlnet"),
    *("t2i_adapter", "gligen", "upscale_models", "hypernetworks", "photomaker", "classifiers"),
    *("configs", "model_patches", "audio_encoders", "latent_upscale_models"),
)
_NEAR: Final = 0.85


@dataclass(frozen=True, slots=True)
class Place:
    """The folder that the links go to; ``is_farm``: it is ours, and ComfyUI's own tree is not written."""

    root: Path
    is_farm: bool


def choose_place(models: Path, farm: Path, mounts: tuple[Mount, ...]) -> Place:
    """ComfyUI's own ``models``, or the ``farm`` where that can't or must not be written.

    A ComfyUI on a network volume is shared by workers that may see the volume under other paths: a link in its
    tree would be right for some of them and dangle for the others.
    """
    shared = mount_of(models, mounts).is_network
    exists_or_parent = models if models.exists() else models.parent
    writable = os.access(exists_or_parent, os.W_OK | os.X_OK)
    return Place(farm, is_farm=True) if shared or not writable else Place(models, is_farm=False)


def likely_misspelt(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Folders of ``names`` (folder/file) that are nearly one of ComfyUI's own, each with that one.

    They are registered all the same: a custom node may want just that name.
    """
    folders = sorted({name.partition("/")[0] for name in names} - set(_OWN))
    near = ((f, difflib.get_close_matches(f, _OWN, n=1, cutoff=_NEAR)) for f in folders)
    return tuple((folder, found[0]) for folder, found in near if found)


def write_extra_paths(
    path: Path, place: Place, names: Iterable[str], custom_nodes: Iterable[Path]
) -> None:
    """Writes the extra-model-paths file for the folders of ``names`` (folder/file below models/).

    In ComfyUI's own tree a folder with another name for it is known already, and is left out. Raises OSError.
    """
    section: dict[str, str] = {"base_path": str(place.root)}
    for folder in sorted({name.partition("/")[0] for name in names}):
        known_as = _READ_AS.get(folder)
        if known_as is None:
            section[folder] = _with(section.get(folder), folder)
        elif place.is_farm:
            section[known_as] = _with(section.get(known_as), folder)
    nodes = "\n".join(map(str, custom_nodes))
    if nodes:
        section["custom_nodes"] = nodes
    # JSON is YAML, and quotes every name.
    document = json.dumps({"morpheus": section}, ensure_ascii=False, indent=1)
    write_whole(path, document.encode(), durable=False)


def _with(before: str | None, folder: str) -> str:
    return folder if before is None else f"{before}\n{folder}"
