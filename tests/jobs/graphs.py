"""Jobs as clients send them."""

import base64
from typing import Any, Final

from morpheus_boot.smoke.picture import gradient
from tests.comfyui_node.served import node

PICTURE: Final = gradient(8, 4)
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
    own = {} if job is None else {"worker_job_id": job}
    return {"workflow": graph, "images": images, **own}
