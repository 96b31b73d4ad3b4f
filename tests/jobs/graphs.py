"""Jobs as clients send them."""

import base64
from typing import Any, Final

from morpheus_boot.smoke.samples import gradient
from tests.guard.served import REAL, node

PICTURE: Final = gradient(8, 4)
# The checkpoint that worker-comfyui's test input asks for.
FLUX: Final = "flux1-dev-fp8.safetensors"
CREATION: Final = {
    "workflow_name": "creation",
    "prompt": 'a "quoted" lighthouse\nwith \\ and __param:seed__',
    "negative_prompt": "",
    "seed": 7,
    "steps": 3,
    "cfg_scale": 6.5,
    "sampler_name": "euler",
    "width": 64,
    "height": 32,
    "checkpoint_name": FLUX,
}
Json = dict[str, Any]


def rescale(job: str, image: str, width: int = 16, height: int = 8) -> Json:
    """The Morpheus client's form of it."""
    size = {"width": width, "height": height}
    return {"workflow_name": "rescale", "worker_job_id": job, "image": image, **size}


def rescale_graph(job: str | None = None, width: int = 16, height: int = 8) -> Json:
    """The same as a graph with its picture in it, worker-comfyui's form."""
    size = {"width": width, "height": height}
    graph = {
        "load": node("LoadImage", image="in.png"),
        "scale": node(
            "ImageScale", image=["load", 0], upscale_method="bilinear", crop="disabled", **size
        ),
        "save": node("SaveImage", images=["scale", 0], filename_prefix="ComfyUI"),
    }
    images = [{"name": "in.png", "image": base64.b64encode(PICTURE).decode()}]
    return {"workflow": graph, "images": images, **_own(job)}


def creation(job: str) -> Json:
    """A text to a picture."""
    return {**CREATION, "worker_job_id": job}


def worker_comfyui_test_input() -> Json:
    """What worker-comfyui publishes as its test_input.json: the same nodes, ids, links and values, another text."""
    sampling = {"seed": 150959564782347, "steps": 10, "cfg": 1, "denoise": 1}
    graph = {
        "6": node("CLIPTextEncode", text="a fox with a cake by candlelight", clip=["30", 1]),
        "8": node("VAEDecode", samples=["31", 0], vae=["30", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
        "27": node("EmptySD3LatentImage", width=512, height=512, batch_size=1),
        "30": node("CheckpointLoaderSimple", ckpt_name=FLUX),
        "31": node(
            "KSampler",
            sampler_name="euler",
            scheduler="simple",
            model=["30", 0],
            positive=["35", 0],
            negative=["33", 0],
            latent_image=["27", 0],
            **sampling,
        ),
        "33": node("CLIPTextEncode", text="", clip=["30", 1]),
        "35": node("FluxGuidance", guidance=3.5, conditioning=["6", 0]),
    }
    for one in graph.values():
        one["_meta"] = {"title": one["class_type"]}
    return {"input": {"workflow": graph}}


def saved(job: str, *prefixes: str, color: int = 0, kind: str = "SaveImage") -> Json:
    """A picture of one colour, saved once under each prefix."""
    graph: Json = {"make": node("EmptyImage", width=8, height=4, batch_size=1, color=color)}
    for number, prefix in enumerate(prefixes):
        named = {"filename_prefix": prefix} if kind == "SaveImage" else {}
        graph[f"save{number}"] = node(kind, images=["make", 0], **named)
    return {"workflow": graph, **_own(job)}


def slow(job: str, seed: int = 0, part: float = 1.0) -> Json:
    """A job of a minute and more, or ``part`` of it, which can be interrupted at any moment."""
    graph = _slow_on_cpu(seed, part) if REAL else _slow_sampling(seed, part)
    return {"workflow": graph, **_own(job)}


def _slow_sampling(seed: int, part: float) -> Json:
    graph: Json = worker_comfyui_test_input()["input"]["workflow"]
    graph["31"]["inputs"].update(seed=seed, steps=int(6000 * part))
    return graph


def _slow_on_cpu(seed: int, part: float) -> Json:
    """Large pictures scaled again and again: no ComfyUI here has a checkpoint."""
    graph: Json = {"0": node("EmptyImage", width=4096, height=4096, batch_size=1, color=seed)}
    steps = int(120 * part)
    for step in range(1, steps + 1):
        graph[str(step)] = node(
            "ImageScale",
            image=[str(step - 1), 0],
            upscale_method="lanczos",
            width=4096 - step,
            height=4096 - step,
            crop="disabled",
        )
    graph["save"] = node("SaveImage", images=[str(steps), 0], filename_prefix="slow")
    return graph


def _own(job: str | None) -> Json:
    return {} if job is None else {"worker_job_id": job}
