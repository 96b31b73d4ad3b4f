"""Nodes that load and run models, under the names and inputs of ComfyUI's, with arithmetic in place of a GPU.

What a real model would compute is a plain colour drawn from everything that went in: the same prompt
gives the same picture, another seed another one.
"""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import folder_paths
from image_nodes import Inputs, size_input
from model_file import ModelFile, load_model
from png import Picture
from progress import progress

# Long enough for progress and interruption to be seen, short enough for twenty steps.
_STEP_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class Latent:
    """Pictures to be: their size, how many, and what their colours come from."""

    width: int
    height: int
    batch_size: int
    digest: bytes = bytes(32)


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


class CheckpointLoaderSimple:
    """Reads a checkpoint whole."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load_checkpoint"
    CATEGORY = "loaders"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        names = folder_paths.get_filename_list("checkpoints")
        return {"required": {"ckpt_name": (names, {"tooltip": "The checkpoint to load."})}}

    def load_checkpoint(self, ckpt_name: str) -> tuple[Any, ...]:
        model = load_model(Path(folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)))
        return (model, model, model)


class CLIPTextEncode:
    """A text as the sampler takes it."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"
    CATEGORY = "conditioning"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        return {"required": {"text": ("STRING", {"multiline": True}), "clip": ("CLIP",)}}

    def encode(self, text: str, clip: ModelFile) -> tuple[Any, ...]:
        return (_digest(text, clip.digest),)


class EmptyLatentImage:
    """Where sampling begins."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "generate"
    CATEGORY = "latent"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        return {
            "required": {
                "width": size_input(512, 16),
                "height": size_input(512, 16),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096}),
            }
        }

    def generate(self, width: int, height: int, batch_size: int) -> tuple[Any, ...]:
        return (Latent(width // 8 * 8, height // 8 * 8, batch_size),)


class EmptySD3LatentImage(EmptyLatentImage):
    """The same for models of the newer kind."""


class FluxGuidance:
    """A text and how closely it is followed."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "advanced/conditioning/flux"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        guidance = {"default": 3.5, "min": 0.0, "max": 100.0}
        return {"required": {"conditioning": ("CONDITIONING",), "guidance": ("FLOAT", guidance)}}

    def append(self, conditioning: bytes, guidance: float) -> tuple[Any, ...]:
        return (_digest(conditioning, guidance),)


class KSampler:
    """Draws a colour from all its inputs, a little time a step, with progress."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "sample"
    CATEGORY = "sampling"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        unit = {"default": 1.0, "min": 0.0, "max": 1.0}
        samplers = ["euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "ddim", "lcm"]
        schedulers = ["simple", "sgm_uniform", "karras", "exponential", "normal", "beta"]
        return {
            "required": {
                "model": ("MODEL",),
                "seed": ("INT", {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 10000}),
                "cfg": ("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0}),
                "sampler_name": (samplers,),
                "scheduler": (schedulers,),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",),
                "denoise": ("FLOAT", unit),
            }
        }

    def sample(
        self, model: ModelFile, latent_image: Latent, steps: int, **settings: object
    ) -> tuple[Any, ...]:
        for step in range(steps):
            time.sleep(_STEP_S)
            progress.step(step + 1, steps)
        digest = _digest(model.digest, latent_image.digest, steps, sorted(settings.items()))
        size = latent_image
        return (Latent(size.width, size.height, size.batch_size, digest),)


class VAEDecode:
    """Pictures of the colours that sampling drew."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "decode"
    CATEGORY = "latent"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        return {"required": {"samples": ("LATENT",), "vae": ("VAE",)}}

    def decode(self, samples: Latent, vae: ModelFile) -> tuple[Any, ...]:
        colours = [_digest(samples.digest, vae.digest, n)[:3] for n in range(samples.batch_size)]
        return ([Picture.plain(samples.width, samples.height, colour) for colour in colours],)


class UpscaleModelLoader:
    """Reads an upscaler; its choices come in the newer form that a loader may have."""

    RETURN_TYPES = ("UPSCALE_MODEL",)
    FUNCTION = "load_model"
    CATEGORY = "loaders"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        names = folder_paths.get_filename_list("upscale_models")
        return {"required": {"model_name": ("COMBO", {"options": names})}}

    def load_model(self, model_name: str) -> tuple[Any, ...]:
        model = load_model(Path(folder_paths.get_full_path_or_raise("upscale_models", model_name)))
        return (model,)


class ImageUpscaleWithModel:
    """Pictures enlarged by the factor that an SRVGGNetCompact model's last layer says."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:  # noqa: N802 - ComfyUI's name
        return {"required": {"upscale_model": ("UPSCALE_MODEL",), "image": ("IMAGE",)}}

    def upscale(self, upscale_model: ModelFile, image: Sequence[Picture]) -> tuple[Any, ...]:
        layers = {
            int(name.split(".")[1]): s for name, s in upscale_model.shapes.items() if len(s) == 4
        }
        # The last layer makes three colours for each pixel of a square of factor x factor.
        factor = math.isqrt(layers[max(layers)][0] // 3) if layers else 1
        enlarged = []
        for number, picture in enumerate(image):
            progress.step(number + 1, len(image))
            enlarged.append(picture.scaled(picture.width * factor, picture.height * factor))
        return (enlarged,)
