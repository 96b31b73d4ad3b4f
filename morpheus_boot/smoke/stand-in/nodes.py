"""The nodes that smoke, our workflows and the tests use, under the names and inputs of ComfyUI's.

Arithmetic stands in a GPU's place: what a real model would compute is a colour drawn from all that went in, so that
the same prompt gives the same picture and another seed another one.
"""

import hashlib
import json
import math
import os
import secrets
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import folder_paths
import png
from comfy.cli_args import args
from execution import progress
from png import Picture

# Name -> (type, limits), or (choices, limits).
Inputs = dict[str, Any]
Pictures = list[Picture]
# Long enough for progress and interruption to be seen, short enough for twenty steps.
_STEP_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model: its bytes' digest, and each tensor's shape (none for other than safetensors)."""

    digest: bytes
    shapes: dict[str, tuple[int, ...]]


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def _whole(default: int, low: int, high: int = 16384) -> tuple[str, dict[str, int]]:
    return ("INT", {"default": default, "min": low, "max": high})


def _empty_image(width: int, height: int, batch_size: int, color: int) -> tuple[Pictures]:
    return ([Picture.plain(width, height, color.to_bytes(3, "big"))] * batch_size,)


def _input_images() -> Inputs:
    files = [e.name for e in os.scandir(folder_paths.get_input_directory()) if e.is_file()]
    images = sorted(folder_paths.filter_files_content_types(files, ["image"]))
    return {"image": (images, {"image_upload": True})}


def _load_image(image: str) -> tuple[Pictures, None]:
    return ([png.decode(Path(folder_paths.get_annotated_filepath(image)).read_bytes())], None)


def _content_of(image: str) -> str:
    content = Path(folder_paths.get_annotated_filepath(image)).read_bytes()
    return hashlib.sha256(content).hexdigest()


def _is_there(image: str) -> bool | str:
    return folder_paths.exists_annotated_filepath(image) or f"Invalid image file: {image}"


def _scale_image(image: Pictures, width: int, height: int, **_settings: str) -> tuple[Pictures]:
    first = image[0]
    width = width or max(1, round(first.width * height / first.height))
    height = height or max(1, round(first.height * width / first.width))
    return ([picture.scaled(width, height) for picture in image],)


def _save_images(
    images: Pictures,
    filename_prefix: str,
    prompt: object,
    extra_pnginfo: dict[str, object] | None,
    kind: str = "output",
) -> dict[str, Any]:
    directory = folder_paths.get_directory_by_type(kind) or ""
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        filename_prefix, directory, images[0].width, images[0].height
    )
    notes = {} if args.disable_metadata else {"prompt": prompt, **(extra_pnginfo or {})}
    saved = []
    for number, picture in enumerate(images):
        stem = name.replace("%batch_num%", str(number))
        file = f"{stem}_{counter + number:05}_.png"
        content = png.encode(picture, {key: json.dumps(note) for key, note in notes.items()})
        Path(folder, file).write_bytes(content)
        saved.append({"filename": file, "subfolder": subfolder, "type": kind})
    return {"ui": {"images": saved}}


def _preview_images(images: Pictures, **hidden: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    prefix = f"ComfyUI_temp_{secrets.token_hex(3)}"
    return _save_images(images, prefix, **hidden, kind="temp")


def _load_model(folder: str, name: str) -> Model:
    """Reads a model as a loader would: a safetensors file must be whole, any other must have bytes."""
    content = Path(folder_paths.get_full_path_or_raise(folder, name)).read_bytes()
    if not content:
        message = "Ran out of input"
        raise EOFError(message)
    shapes = {}
    if name.endswith((".safetensors", ".sft")):
        header_bytes = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else len(content)
        header = json.loads(content[8 : 8 + header_bytes] or b"{}")
        tensors = {key: t for key, t in header.items() if key != "__metadata__"}
        end = max((t["data_offsets"][1] for t in tensors.values()), default=0)
        if 8 + header_bytes + end != len(content):
            message = "Error while deserializing header: file not fully covered"
            raise ValueError(message)
        shapes = {key: tuple(t["shape"]) for key, t in tensors.items()}
    return Model(hashlib.sha256(content).digest(), shapes)


def _load_checkpoint(ckpt_name: str) -> tuple[Model, Model, Model]:
    model = _load_model("checkpoints", ckpt_name)
    return (model, model, model)


def _encode_text(text: str, clip: Model) -> tuple[bytes]:
    return (_digest(text, clip.digest),)


def _empty_latent(width: int, height: int, batch_size: int) -> tuple[Pictures]:
    return ([Picture.plain(width // 8 * 8, height // 8 * 8, bytes(3))] * batch_size,)


def _sample(
    model: Model, latent_image: Pictures, steps: int, **settings: object
) -> tuple[Pictures]:
    for step in range(steps):
        time.sleep(_STEP_S)
        progress.step(step + 1, steps)
    return (_coloured(latent_image, _digest(model.digest, steps, sorted(settings.items()))),)


def _decode_latent(samples: Pictures, vae: Model) -> tuple[Pictures]:
    return (_coloured(samples, samples[0].rgb[:3] + vae.digest),)


def _guide(conditioning: bytes, guidance: float) -> tuple[bytes]:
    return (_digest(conditioning, guidance),)


def _coloured(pictures: Pictures, source: bytes) -> Pictures:
    """Pictures of the same sizes, each of one colour that comes from ``source`` and its number."""
    sized = enumerate(pictures)
    return [Picture.plain(p.width, p.height, _digest(source, n)[:3]) for n, p in sized]


def _upscale(upscale_model: Model, image: Pictures) -> tuple[Pictures]:
    """Enlarges by the factor that an SRVGGNetCompact model's last layer says."""
    shapes = upscale_model.shapes.items()
    layers = {int(name.split(".")[1]): shape[0] for name, shape in shapes if len(shape) == 4}
    # The last layer makes three colours for each pixel of a square of factor x factor.
    factor = math.isqrt(layers[max(layers)] // 3) if layers else 1
    progress.step(1, 1)
    return ([p.scaled(p.width * factor, p.height * factor) for p in image],)


def _node(
    run: Callable[..., Any],
    returns: tuple[str, ...],
    required: Callable[[], Inputs],
    **more: object,
) -> type:
    """A node class as ComfyUI's are: ``more`` are its further attributes."""
    hidden = more.pop("hidden", {})
    functions = {name: staticmethod(one) if callable(one) else one for name, one in more.items()}
    declare = classmethod(lambda _cls: {"required": required(), "hidden": hidden})
    return type(
        "Node",
        (),
        {
            "RETURN_TYPES": returns,
            "FUNCTION": "run",
            "CATEGORY": "stand-in",
            "INPUT_TYPES": declare,
            "run": staticmethod(run),
            **functions,
        },
    )


_SIZE: Final = {"width": _whole(512, 1), "height": _whole(512, 1)}
_BATCH: Final = {"batch_size": _whole(1, 1, 4096)}
_SAVES: Final = {
    "OUTPUT_NODE": True,
    "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
}
NODE_CLASS_MAPPINGS: Final[dict[str, Any]] = {
    "EmptyImage": _node(
        _empty_image, ("IMAGE",), lambda: {**_SIZE, **_BATCH, "color": _whole(0, 0, 0xFFFFFF)}
    ),
    "LoadImage": _node(
        _load_image,
        ("IMAGE", "MASK"),
        _input_images,
        IS_CHANGED=_content_of,
        VALIDATE_INPUTS=_is_there,
    ),
    "ImageScale": _node(
        _scale_image,
        ("IMAGE",),
        lambda: {
            "image": ("IMAGE",),
            "upscale_method": (["nearest-exact", "bilinear", "area", "bicubic", "lanczos"],),
            "width": _whole(512, 0),
            "height": _whole(512, 0),
            "crop": (["disabled", "center"],),
        },
    ),
    "SaveImage": _node(
        _save_images,
        (),
        lambda: {"images": ("IMAGE",), "filename_prefix": ("STRING", {"default": "ComfyUI"})},
        **_SAVES,
    ),
    "PreviewImage": _node(_preview_images, (), lambda: {"images": ("IMAGE",)}, **_SAVES),
    "CheckpointLoaderSimple": _node(
        _load_checkpoint,
        ("MODEL", "CLIP", "VAE"),
        lambda: {"ckpt_name": (folder_paths.get_filename_list("checkpoints"), {})},
    ),
    "CLIPTextEncode": _node(
        _encode_text,
        ("CONDITIONING",),
        lambda: {"text": ("STRING", {"multiline": True}), "clip": ("CLIP",)},
    ),
    **dict.fromkeys(
        ("EmptyLatentImage", "EmptySD3LatentImage"),
        _node(_empty_latent, ("LATENT",), lambda: {**_SIZE, **_BATCH}),
    ),
    "FluxGuidance": _node(
        _guide,
        ("CONDITIONING",),
        lambda: {
            "conditioning": ("CONDITIONING",),
            "guidance": ("FLOAT", {"default": 3.5, "min": 0.0, "max": 100.0}),
        },
    ),
    "KSampler": _node(
        _sample,
        ("LATENT",),
        lambda: {
            "model": ("MODEL",),
            "seed": _whole(0, 0, 0xFFFFFFFFFFFFFFFF),
            "steps": _whole(20, 1, 10000),
            "cfg": ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0}),
            "sampler_name": (["euler", "euler_ancestral", "heun", "dpmpp_2m", "ddim", "lcm"],),
            "scheduler": (["simple", "sgm_uniform", "karras", "exponential", "normal", "beta"],),
            "positive": ("CONDITIONING",),
            "negative": ("CONDITIONING",),
            "latent_image": ("LATENT",),
            "denoise": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0}),
        },
    ),
    "VAEDecode": _node(
        _decode_latent, ("IMAGE",), lambda: {"samples": ("LATENT",), "vae": ("VAE",)}
    ),
    # Its choices come in the newer form that a loader may have.
    "UpscaleModelLoader": _node(
        lambda model_name: (_load_model("upscale_models", model_name),),
        ("UPSCALE_MODEL",),
        lambda: {
            "model_name": ("COMBO", {"options": folder_paths.get_filename_list("upscale_models")})
        },
    ),
    "ImageUpscaleWithModel": _node(
        _upscale,
        ("IMAGE",),
        lambda: {"upscale_model": ("UPSCALE_MODEL",), "image": ("IMAGE",)},
    ),
}
