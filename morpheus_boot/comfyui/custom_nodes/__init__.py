"""Custom nodes: fetched pinned, kept on the volume, given their packages, and none of it in ComfyUI's own tree."""

from morpheus_boot.comfyui.custom_nodes.gate import GatedNodes
from morpheus_boot.comfyui.custom_nodes.imports import FailedImport, Printed, failed_imports
from morpheus_boot.comfyui.custom_nodes.prepare import Preparation

__all__ = ["FailedImport", "GatedNodes", "Preparation", "Printed", "failed_imports"]
