"""ComfyUI's `nodes`: every node class by its name; custom nodes add theirs."""

from typing import Any, Final

import image_nodes
import model_nodes

NODE_CLASS_MAPPINGS: Final[dict[str, Any]] = {
    node.__name__: node
    for node in (
        image_nodes.EmptyImage,
        image_nodes.LoadImage,
        image_nodes.ImageScale,
        image_nodes.SaveImage,
        image_nodes.PreviewImage,
        model_nodes.CheckpointLoaderSimple,
        model_nodes.CLIPTextEncode,
        model_nodes.EmptyLatentImage,
        model_nodes.EmptySD3LatentImage,
        model_nodes.FluxGuidance,
        model_nodes.KSampler,
        model_nodes.VAEDecode,
        model_nodes.UpscaleModelLoader,
        model_nodes.ImageUpscaleWithModel,
    )
}
NODE_DISPLAY_NAME_MAPPINGS: Final[dict[str, str]] = {}


def node_info(name: str) -> dict[str, Any]:
    """What `/object_info` says about one node class."""
    cls = NODE_CLASS_MAPPINGS[name]
    inputs = cls.INPUT_TYPES()
    return {
        "input": inputs,
        "input_order": {section: list(names) for section, names in inputs.items()},
        "output": list(cls.RETURN_TYPES),
        "output_is_list": [False] * len(cls.RETURN_TYPES),
        "output_name": list(getattr(cls, "RETURN_NAMES", cls.RETURN_TYPES)),
        "name": name,
        "display_name": NODE_DISPLAY_NAME_MAPPINGS.get(name, name),
        "description": getattr(cls, "DESCRIPTION", ""),
        "python_module": getattr(cls, "RELATIVE_PYTHON_MODULE", "nodes"),
        "category": getattr(cls, "CATEGORY", "sd"),
        "output_node": getattr(cls, "OUTPUT_NODE", False),
    }
