"""ComfyUI from its cached models to its first answer: links, start, readiness."""

import logging
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from morpheus_boot.cache import CachedModel
from morpheus_boot.comfyui.command import comfyui_command
from morpheus_boot.comfyui.custom_nodes import CustomNodes, Imports
from morpheus_boot.comfyui.environment import comfyui_environment
from morpheus_boot.comfyui.find import ComfyUI
from morpheus_boot.comfyui.links import Link, put_links
from morpheus_boot.comfyui.listing import Unlisted, find_unlisted
from morpheus_boot.comfyui.our_node import (
    our_node_environment,
    place_our_node,
    require_our_node,
)
from morpheus_boot.comfyui.places import choose_place, likely_misspelt, write_extra_paths
from morpheus_boot.config.settings import REPOSITORY
from morpheus_boot.deployment import Deployment
from morpheus_boot.errors import NotSetUp, local_error, storage_error
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.report.state import ServiceStage
from morpheus_boot.services.process import ServiceSpec
from morpheus_boot.services.services import COMFYUI
from morpheus_boot.services.supervisor import Supervisor
from morpheus_boot.volume.mount import read_mounts

if TYPE_CHECKING:
    from morpheus_boot.comfyui.api import ComfyUIApi

_LOG: Final = logging.getLogger("morpheus.comfyui")
_ANSWER_DEADLINE_S: Final = 900.0


class Launch:
    """One ComfyUI of this container."""

    def __init__(self, deployment: Deployment, comfyui: ComfyUI, supervisor: Supervisor) -> None:
        """Finds the place for the links among this machine's mounts; nothing is written yet.

        Warns of folders in models.yaml that look misspelt. Raises NotSetUp where an argument would keep our node out.
        """
        self._deployment = deployment
        self._settings = deployment.invocation.settings
        self._comfyui = comfyui
        self._supervisor = supervisor
        self._local = self._settings.local_dir / "comfyui"
        self._names = [name for model in deployment.manifest.models for name in names_of(model)]
        self._more = (*deployment.manifest.comfyui.args, *self._settings.comfyui_args)
        require_our_node(self._more)
        for folder, meant in likely_misspelt(self._names):
            said = "models.yaml: %s/ is no folder of ComfyUI's; did you mean %s/?"
            _LOG.warning(said, folder, meant)
        self._place = choose_place(comfyui.models, self._local / "models", read_mounts())
        self._nodes = self._custom_nodes()
        self._started = False
        self._imports = Imports()
        self.changed = threading.Event()
        """Set when ComfyUI has started or ended since wait_until_ready() last looked at it."""

    def heard(self, line: str) -> None:
        """Takes a line that ComfyUI printed; from the thread that reads its output."""
        self._imports.add(line)

    def turned(self, stage: ServiceStage) -> None:
        """Says that ComfyUI has started or ended; what the one that ended could not import is forgotten."""
        if stage is ServiceStage.ENDED:
            self._imports.clear()
        self.changed.set()

    def bring_nodes(self) -> None:
        """Puts the custom nodes on local disk, which start() needs. Raises MorpheusError, Stopped."""
        self._nodes.bring()

    def provide_nodes(self) -> None:
        """Gives them their packages, which ComfyUI waits for. Raises MorpheusError, Stopped."""
        self._nodes.provide()

    def _custom_nodes(self) -> CustomNodes:
        stopping = self._supervisor.stopping
        return CustomNodes(
            self._deployment.manifest.nodes,
            comfyui=self._comfyui,
            layout=self._deployment.layout,
            local=self._settings.local_dir,
            user=self._local / "user",
            environ=self._settings.environ,
            named=self._deployment.manifest.variables,
            archive_lock=self._deployment.archive_lock(stopping),
            stopping=stopping,
        )

    def link(self, cached: Iterable[CachedModel]) -> None:
        """Puts the models where ComfyUI looks. Raises NotSetUp, StorageFailed."""
        links = [Link(name, model.file) for model in cached for name in names_of(model.model)]
        cache = self._deployment.layout.model_cache
        put_links(self._place.root, links, cache, running=self._started)

    def start(self) -> None:
        """Starts ComfyUI. Raises MorpheusError."""
        manifest, layout = self._deployment.manifest, self._deployment.layout
        extra_paths = self._local / "extra_model_paths.yaml"
        our_nodes = self._local / "our_nodes"
        try:
            layout.jobs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error("jobs", layout.jobs, error) from error
        try:
            for folder in (self._local / "input", self._local / "user"):
                folder.mkdir(parents=True, exist_ok=True)
            place_our_node(our_nodes)
            nodes = (our_nodes, *self._nodes.folders)
            write_extra_paths(extra_paths, self._place, self._names, nodes)
        except OSError as error:
            raise local_error("ComfyUI's folders", self._local, error) from error
        settings = self._settings
        command = comfyui_command(
            self._comfyui,
            port=settings.comfyui_port,
            jobs=layout.jobs,
            local=self._local,
            extra_paths=extra_paths,
            more=self._more,
        )
        env = comfyui_environment(
            settings.environ,
            manifest.comfyui.env,
            REPOSITORY,
            layout.node_cache,
            named=manifest.variables,
        )
        withheld = ", ".join(sorted(settings.environ.keys() - env.keys()))
        _LOG.debug("withheld from ComfyUI (comfyui.env passes what a node needs): %s", withheld)
        if self._nodes.python_path is not None:
            before = env.get("PYTHONPATH", "")
            env["PYTHONPATH"] = f"{self._nodes.python_path}:{before}".rstrip(":")
        env |= our_node_environment(
            jobs=layout.jobs,
            worker=settings.worker,
            volume_root=layout.root,
            token=settings.morpheus_token,
            origins=settings.cors_origins,
            gate=self._nodes.gate,
            packages=self._nodes.packages,
        )
        self._started = True
        self._supervisor.start(
            ServiceSpec(COMFYUI, command, env, self._comfyui.folder, settings.comfyui_port)
        )

    def wait_until_ready(self, cached: Iterable[CachedModel]) -> tuple[Unlisted, ...]:
        """Returns once ComfyUI answers and lists every model whose folder it reads; those it does not read.

        Raises:
            WaitedTooLong: it does not answer; with its last lines.
            NotSetUp: it does not ask for the token, or does not list a model.
            Stopped: the boot is being stopped.
        """
        # Here, since ComfyUI's start need not wait for what HTTP imports.
        from morpheus_boot.comfyui.api import ComfyUIApi  # noqa: PLC0415

        names = [name for model in cached for name in names_of(model.model)]
        api = ComfyUIApi(self._settings.comfyui_port, self._settings.morpheus_token)
        unlisted = api.when_it_answers(
            lambda: self._look(api, names),
            deadline_s=_ANSWER_DEADLINE_S,
            stopping=self._supervisor.stopping,
            last_lines=lambda: " | ".join(self._supervisor.last_lines(COMFYUI)),
        )
        for u in unlisted:
            _LOG.warning("%s: %s", u.name, u.reason)
        for failed in self._imports.failed:
            _LOG.warning("custom node %s: ComfyUI can't import it, %s", failed.name, failed.reason)
        return unlisted

    def _look(self, api: "ComfyUIApi", names: Iterable[str]) -> tuple[Unlisted, ...]:
        """One look at the ComfyUI of now. Raises NotSetUp, NoAnswer."""
        self.changed.clear()
        api.require_answer()
        if self._settings.morpheus_token is not None and not api.refuses_strangers():
            raise NotSetUp(
                "ComfyUI",
                "it answers without the token",
                "report this with its version; until then unset MORPHEUS_TOKEN or don't expose its port",
            )
        folder_paths = api.folder_paths(str(self._place.root))
        unlisted = find_unlisted(self._place.root, names, folder_paths, api.files_of)
        known = [u for u in unlisted if u.known]
        if known:
            said = "; ".join(f"{u.name}: {u.reason}" for u in known)
            raise NotSetUp(
                "ComfyUI",
                f"it runs but does not list every model ({said})",
                "check the file's ending and its folder in models.yaml",
            )
        return unlisted


def names_of(model: ModelSpec) -> tuple[str, ...]:
    """All places of a model below models/."""
    return (model.path, *model.links)
