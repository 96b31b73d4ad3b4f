"""Custom nodes: fetched pinned, kept on the volume, given their packages, and none of it in ComfyUI's own tree."""

from morpheus_boot.comfyui.custom_nodes.imports import FailedImport, Imports
from morpheus_boot.comfyui.custom_nodes.nodes import CustomNodes

__all__ = ["CustomNodes", "FailedImport", "Imports"]
