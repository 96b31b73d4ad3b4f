"""The custom nodes of one boot beside ComfyUI's start: it waits at a gate until they have their packages."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from morpheus_boot.comfyui.custom_nodes.manager import configure_manager, is_manager
from morpheus_boot.comfyui.custom_nodes.packages import PACKAGES
from morpheus_boot.comfyui.custom_nodes.prepare import BroughtNodes, Preparation
from morpheus_boot.manifest import NodeSpec

_LOG: Final = logging.getLogger("morpheus.nodes")


class GatedNodes:
    """What ComfyUI is told of the custom nodes before they have their packages.

    bring(), then ComfyUI may be started, then provide(). The ``gate`` is a file that our own node waits for
    (comfyui/guard/waiting.py).
    """

    def __init__(
        self,
        nodes: Sequence[NodeSpec],
        preparation: Preparation,
        *,
        local: Path,
        comfyui: Path,
        user: Path,
    ) -> None:
        """``comfyui`` is its folder, ``user`` its user directory; ``local`` is as Preparation has it."""
        self._nodes = nodes
        self._preparation = preparation
        self._gate = local / "nodes" / "packages-are-there"
        self._comfyui = comfyui
        self._user = user
        self._brought: BroughtNodes | None = None

    def bring(self) -> None:
        """Puts the nodes' own files in place; all of provide(), too, where ComfyUI's start needs it.

        Raises MorpheusError and Stopped as Preparation does; OSError where the local disk can't be written.
        """
        if not self._nodes:
            return
        self._brought = self._preparation.bring(self._nodes)
        self._gate.unlink(missing_ok=True)  # an earlier boot of this container opened it
        if self._brought.packages_first:
            self._provide(self._brought)

    def provide(self) -> None:
        """Gives the nodes their packages, and opens the gate. Raises as bring() does."""
        if self._brought is not None and not self._gate.exists():
            self._provide(self._brought)

    def _provide(self, brought: BroughtNodes) -> None:
        prepared = self._preparation.provide(brought)
        for tree in filter(is_manager, prepared.trees):
            configure_manager(tree, self._comfyui, self._user)
        for warning in prepared.warnings:
            _LOG.warning("%s", warning)
        for node in prepared.left_out:
            _LOG.warning("custom node %s is left out: %s", node.name, node.reason)
        self._gate.touch()
        _LOG.info("the custom nodes and their packages are in place")

    @property
    def folders(self) -> tuple[Path, ...]:
        """Further ``custom_nodes`` folders for ComfyUI."""
        return (self._preparation.folder,) if self._brought is not None else ()

    @property
    def python_path(self) -> Path | None:
        """What comes first on ComfyUI's PYTHONPATH."""
        return self._brought.python_path if self._brought is not None else None

    @property
    def gate(self) -> Path | None:
        """The file that ComfyUI waits for; None where there is nothing to wait for."""
        return self._gate if self._brought is not None else None

    @property
    def packages(self) -> Path | None:
        """Where the nodes' packages will be."""
        site = self._brought.site if self._brought is not None else None
        return site / PACKAGES if site is not None else None
