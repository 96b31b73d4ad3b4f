"""Prompts in ComfyUI's API form."""

from typing import Any

Graph = dict[str, Any]


def node(class_type: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def plain(prefix: str, *, width: int = 8, height: int = 4) -> Graph:
    """A picture of one colour, saved."""
    return {
        "make": node("EmptyImage", width=width, height=height, batch_size=1, color=0xFF8000),
        "save": node("SaveImage", images=["make", 0], filename_prefix=prefix),
    }


def loaded(image: str) -> Graph:
    """A picture that is loaded and saved again in twice the size."""
    scale = {"upscale_method": "bilinear", "width": 16, "height": 8, "crop": "disabled"}
    return {
        "load": node("LoadImage", image=image),
        "scale": node("ImageScale", image=["load", 0], **scale),
        "save": node("SaveImage", images=["scale", 0], filename_prefix="j/output/scaled"),
    }


def upscaled(model: str) -> Graph:
    """A picture of 8 by 4 that a model enlarges."""
    return {
        "make": node("EmptyImage", width=8, height=4, batch_size=1, color=0),
        "model": node("UpscaleModelLoader", model_name=model),
        "up": node("ImageUpscaleWithModel", upscale_model=["model", 0], image=["make", 0]),
        "save": node("SaveImage", images=["up", 0], filename_prefix="j/output/up"),
    }


def sampled(checkpoint: str, *, seed: int = 1, steps: int = 2, prefix: str = "j/output/s") -> Graph:
    """The usual text to image prompt."""
    sampler = {"seed": seed, "steps": steps, "cfg": 7.0, "sampler_name": "euler", "denoise": 1.0}
    return {
        "ckpt": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "good": node("CLIPTextEncode", text="a lighthouse", clip=["ckpt", 1]),
        "bad": node("CLIPTextEncode", text="fog", clip=["ckpt", 1]),
        "empty": node("EmptyLatentImage", width=64, height=32, batch_size=1),
        "sample": node(
            "KSampler",
            model=["ckpt", 0],
            positive=["good", 0],
            negative=["bad", 0],
            latent_image=["empty", 0],
            scheduler="normal",
            **sampler,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["ckpt", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix=prefix),
    }
