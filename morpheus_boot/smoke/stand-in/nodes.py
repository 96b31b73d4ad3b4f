"""ComfyUI's `nodes`: every node class by its name, with arithmetic in place of a GPU; custom nodes add theirs.

What a real model would compute is a plain colour drawn from everything that went in: the same prompt gives the same
picture, another seed another one.
"""

import hashlib
import json
import secrets
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import folder_paths
import png
from png import Picture

# Long enough for progress and interruption to be seen, short enough for twenty steps.
_STEP_S: Final = 0.01
_INT: Final[tuple[str, dict[str, Any]]] = ("INT", {})

# Called by a node that works for long, with its step and how many it has; raises where the prompt was interrupted.
report: Callable[[int, int], object] = max


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def _read_model(folder: str, name: str) -> tuple[bytes]:
    """Reads a model whole; its digest. Raises ValueError for a safetensors file that is not all there."""
    content = Path(folder_paths.get_full_path_or_raise(folder, name)).read_bytes()
    if name.endswith(".safetensors"):
        header_bytes = struct.unpack_from("<Q", content)[0]
        header = json.loads(content[8 : 8 + header_bytes])
        ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
        if 8 + header_bytes + max(ends, default=0) != len(content):
            message = "Error while deserializing header: file not fully covered"
            raise ValueError(message)
    return (_digest(content),)


class _Node:
    """What all nodes here have in common."""

    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)
    FUNCTION = "run"
    CATEGORY = "stand-in"
    REQUIRED: ClassVar[dict[str, Any]] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - ComfyUI's name
        return {"required": cls.REQUIRED}


class EmptyImage(_Node):
    """Pictures of one colour."""

    REQUIRED: ClassVar = {"width": _INT, "height": _INT, "batch_size": _INT, "color": _INT}

    def run(self, width: int, height: int, batch_size: int, color: int = 0) -> tuple[Any, ...]:
        return ([Picture.plain(width, height, color.to_bytes(3, "big"))] * batch_size,)


class LoadImage(_Node):
    """A picture from the input directory, or from another one by annotation."""

    RETURN_TYPES = ("IMAGE", "MASK")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - ComfyUI's name
        files = (entry for entry in Path(folder_paths.get_input_directory()).iterdir())
        images = sorted(entry.name for entry in files if entry.suffix in {".png", ".jpg", ".webp"})
        return {"required": {"image": (images, {"image_upload": True})}}

    @classmethod
    def IS_CHANGED(cls, image: str) -> str:  # noqa: N802 - ComfyUI's name
        content = Path(folder_paths.get_annotated_filepath(image)).read_bytes()
        return hashlib.sha256(content).hexdigest()

    @classmethod
    def VALIDATE_INPUTS(cls, image: str) -> bool | str:  # noqa: N802 - ComfyUI's name
        there = folder_paths.exists_annotated_filepath(image)
        return True if there else f"Invalid image file: {image}"

    def run(self, image: str) -> tuple[Any, ...]:
        picture = png.decode(Path(folder_paths.get_annotated_filepath(image)).read_bytes())
        return ([picture], None)


class ImageScale(_Node):
    """Pictures in another size, of the first pixel's colour."""

    FUNCTION = "upscale"
    REQUIRED: ClassVar = {
        "image": ("IMAGE",),
        "upscale_method": (["nearest-exact", "bilinear", "area", "bicubic", "lanczos"],),
        "width": _INT,
        "height": _INT,
        "crop": (["disabled", "center"],),
    }

    def upscale(
        self, image: Sequence[Picture], width: int, height: int, **_: object
    ) -> tuple[Any, ...]:
        return ([Picture.plain(width, height, one.rgb) for one in image],)


class SaveImage(_Node):
    """Writes pictures below the output directory, never over one that is there."""

    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - ComfyUI's name
        required: dict[str, Any] = {"images": ("IMAGE",), "filename_prefix": ("STRING", {})}
        return {"required": required, "hidden": {"prompt": "PROMPT"}}

    def run(
        self,
        images: Sequence[Picture],
        prompt: object,
        filename_prefix: str,
        kind: str = "output",
    ) -> dict[str, Any]:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.directories[kind], images[0].width, images[0].height
        )
        saved = []
        for number, picture in enumerate(images, start=counter):
            file = f"{name}_{number:05}_.png"
            Path(folder, file).write_bytes(png.encode(picture, {"prompt": json.dumps(prompt)}))
            saved.append({"filename": file, "subfolder": subfolder, "type": kind})
        return {"ui": {"images": saved}}


class PreviewImage(SaveImage):
    """Writes pictures to the temp directory under a name of its own."""

    FUNCTION = "preview"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - ComfyUI's name
        return {"required": {"images": ("IMAGE",)}, "hidden": {"prompt": "PROMPT"}}

    def preview(self, images: Sequence[Picture], prompt: object) -> dict[str, Any]:
        return self.run(images, prompt, f"ComfyUI_temp_{secrets.token_hex(3)}", "temp")


class CheckpointLoaderSimple(_Node):
    """Reads a checkpoint whole."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - ComfyUI's name
        return {"required": {"ckpt_name": (folder_paths.get_filename_list("checkpoints"), {})}}

    def run(self, ckpt_name: str) -> tuple[Any, ...]:
        return _read_model("checkpoints", ckpt_name) * 3


class UpscaleModelLoader(_Node):
    """Reads an upscaler; its choices come in the newer form that a loader may have."""

    RETURN_TYPES = ("UPSCALE_MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - ComfyUI's name
        names = folder_paths.get_filename_list("upscale_models")
        return {"required": {"model_name": ("COMBO", {"options": names})}}

    def run(self, model_name: str) -> tuple[Any, ...]:
        return _read_model("upscale_models", model_name)


class ImageUpscaleWithModel(_Node):
    """Pictures of twice the size."""

    REQUIRED: ClassVar = {"upscale_model": ("UPSCALE_MODEL",), "image": ("IMAGE",)}

    def run(self, image: Sequence[Picture], **_: object) -> tuple[Any, ...]:
        return ([Picture.plain(2 * one.width, 2 * one.height, one.rgb) for one in image],)


class CLIPTextEncode(_Node):
    """A text as the sampler takes it."""

    RETURN_TYPES = ("CONDITIONING",)
    REQUIRED: ClassVar = {"text": ("STRING", {}), "clip": ("CLIP",)}

    def run(self, **given: object) -> tuple[Any, ...]:
        return (_digest(sorted(given.items())),)


class FluxGuidance(CLIPTextEncode):
    """A text and how closely it is followed."""

    REQUIRED: ClassVar = {"conditioning": ("CONDITIONING",), "guidance": ("FLOAT", {})}


class EmptyLatentImage(EmptyImage):
    """Where sampling begins: black pictures, since there is no space but that of pixels here."""

    RETURN_TYPES = ("LATENT",)
    REQUIRED: ClassVar = {"width": _INT, "height": _INT, "batch_size": _INT}


class EmptySD3LatentImage(EmptyLatentImage):
    """The same for models of the newer kind."""


class KSampler(_Node):
    """Draws a colour from all its inputs, a little time a step, with progress."""

    RETURN_TYPES = ("LATENT",)
    REQUIRED: ClassVar = {
        "model": ("MODEL",),
        "seed": _INT,
        "steps": _INT,
        "sampler_name": (["euler", "euler_ancestral", "heun", "dpmpp_2m", "ddim", "lcm"], {}),
        "scheduler": (["simple", "sgm_uniform", "karras", "exponential", "normal", "beta"], {}),
        "positive": ("CONDITIONING",),
        "negative": ("CONDITIONING",),
        "latent_image": ("LATENT",),
    }

    def run(self, latent_image: Sequence[Picture], steps: int, **given: object) -> tuple[Any, ...]:
        for step in range(steps):
            time.sleep(_STEP_S)
            report(step + 1, steps)
        colour = _digest(steps, sorted(given.items()))[:3]
        return ([Picture(one.width, one.height, colour) for one in latent_image],)


class VAEDecode(_Node):
    """The pictures that sampling drew."""

    REQUIRED: ClassVar = {"samples": ("LATENT",), "vae": ("VAE",)}

    def run(self, samples: Sequence[Picture], vae: bytes) -> tuple[Any, ...]:
        return ([Picture(one.width, one.height, _digest(one.rgb, vae)[:3]) for one in samples],)


NODE_CLASS_MAPPINGS: Final[dict[str, Any]] = {
    node.__name__: node
    for node in (
        *(EmptyImage, LoadImage, ImageScale, SaveImage, PreviewImage),
        *(CheckpointLoaderSimple, UpscaleModelLoader, ImageUpscaleWithModel),
        *(CLIPTextEncode, FluxGuidance, EmptyLatentImage, EmptySD3LatentImage),
        *(KSampler, VAEDecode),
    )
}
