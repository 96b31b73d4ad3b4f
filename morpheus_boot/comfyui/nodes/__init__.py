"""Custom nodes: fetched pinned, kept on the volume, given their packages, and none of it in ComfyUI's own tree."""

from morpheus_boot.comfyui.nodes.imports import FailedImport, failed_imports
from morpheus_boot.comfyui.nodes.manager import configure_manager, is_manager
from morpheus_boot.comfyui.nodes.packages import LeftOut
from morpheus_boot.comfyui.nodes.prepare import PreparedNodes, prepare_nodes
from morpheus_boot.comfyui.nodes.program import Stopped

__all__ = [
    "FailedImport",
    "LeftOut",
    "PreparedNodes",
    "Stopped",
    "configure_manager",
    "failed_imports",
    "is_manager",
    "prepare_nodes",
]
