"""ComfyUI from its cached models to its first answer: links, start, readiness."""

import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from morpheus_boot.cache import CachedModel
from morpheus_boot.cache.lock.lock import Turns
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.comfyui.api import ComfyUIApi
from morpheus_boot.comfyui.command import comfyui_command
from morpheus_boot.comfyui.custom_nodes import CustomNodes, Printed, failed_imports
from morpheus_boot.comfyui.environment import comfyui_environment
from morpheus_boot.comfyui.find import ComfyUI
from morpheus_boot.comfyui.links import Link, put_links
from morpheus_boot.comfyui.listing import Unlisted, find_unlisted
from morpheus_boot.comfyui.our_node import (
    our_node_environment,
    place_our_node,
    require_our_node,
)
from morpheus_boot.comfyui.places import (
    Place,
    choose_place,
    likely_misspelt,
    write_extra_paths,
)
from morpheus_boot.config.settings import REPOSITORY, Settings
from morpheus_boot.deployment import Deployment
from morpheus_boot.errors import NotSetUp, local_error, storage_error
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.report.state import ServiceStage
from morpheus_boot.services.process import ServiceSpec
from morpheus_boot.services.services import COMFYUI
from morpheus_boot.services.supervisor import Supervisor
from morpheus_boot.volume.mount import read_mounts

_LOG: Final = logging.getLogger("morpheus.comfyui")
_ANSWER_DEADLINE_S: Final = 900.0


def make_launch(
    settings: Settings, deployment: Deployment, comfyui: ComfyUI, supervisor: Supervisor
) -> "Launch":
    """The launch of ``comfyui``, with its place among this machine's mounts; nothing is written yet.

    Warns of folders in models.yaml that look misspelt. Raises NotSetUp where an argument would keep our node out.
    """
    require_our_node(_more_arguments(settings, deployment))
    names = [name for model in deployment.manifest.models for name in names_of(model)]
    for folder, meant in likely_misspelt(names):
        _LOG.warning("models.yaml: %s/ is no folder of ComfyUI's; did you mean %s/?", folder, meant)
    farm = _local_folder(settings) / "models"
    place = choose_place(comfyui.models, farm, read_mounts())
    return Launch(settings, deployment, comfyui, supervisor, place)


class Launch:
    """One ComfyUI of this container."""

    def __init__(
        self,
        settings: Settings,
        deployment: Deployment,
        comfyui: ComfyUI,
        supervisor: Supervisor,
        place: Place,
    ) -> None:
        """``place`` is where the links go. See make_launch()."""
        self._settings = settings
        self._deployment = deployment
        self._comfyui = comfyui
        self._supervisor = supervisor
        self._place = place
        self._local = _local_folder(settings)
        self._api = ComfyUIApi(settings.comfyui_port, settings.morpheus_token)
        self._more = _more_arguments(settings, deployment)
        self._nodes = self._custom_nodes()
        self._started = False
        self._printed = Printed()
        self.changed = threading.Event()
        """Set when ComfyUI has started or ended since wait_until_ready() last looked at it."""

    def heard(self, line: str) -> None:
        """Takes a line that ComfyUI printed; from the thread that reads its output."""
        self._printed.add(line)

    def turned(self, stage: ServiceStage) -> None:
        """Says that ComfyUI has started or ended; what the one that ended has printed is forgotten."""
        if stage is ServiceStage.ENDED:
            self._printed.clear()
        self.changed.set()

    def bring_nodes(self) -> None:
        """Puts the custom nodes on local disk, which start() needs. Raises MorpheusError, Stopped."""
        self._nodes.bring()

    def provide_nodes(self) -> None:
        """Gives them their packages, which ComfyUI waits for. Raises MorpheusError, Stopped."""
        self._nodes.provide()

    def _custom_nodes(self) -> CustomNodes:
        settings, layout = self._settings, self._deployment.volume.layout
        stopping = self._supervisor.stopping
        return CustomNodes(
            self._deployment.manifest.nodes,
            comfyui=self._comfyui,
            layout=layout,
            local=settings.local_dir,
            user=self._local / "user",
            environ=settings.environ,
            named=self._deployment.manifest.variables,
            turn=Turns(layout, settings.worker, stopping, LockTimes()).turn,
            stopping=stopping,
        )

    def link(self, cached: Iterable[CachedModel]) -> None:
        """Puts the models where ComfyUI looks. Raises NotSetUp, StorageFailed."""
        links = [Link(name, model.file) for model in cached for name in names_of(model.model)]
        cache = self._deployment.volume.layout.model_cache
        put_links(self._place.root, links, cache, running=self._started)

    def start(self) -> None:
        """Starts ComfyUI. Raises MorpheusError."""
        manifest, layout = self._deployment.manifest, self._deployment.volume.layout
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
            names = [name for model in manifest.models for name in names_of(model)]
            nodes = (our_nodes, *self._nodes.folders)
            write_extra_paths(extra_paths, self._place, names, nodes)
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
        if self._nodes.python_path is not None:
            before = env.get("PYTHONPATH", "")
            env["PYTHONPATH"] = f"{self._nodes.python_path}:{before}".rstrip(":")
        env |= our_node_environment(
            jobs=layout.jobs,
            worker=settings.worker,
            volume_root=layout.root,
            token=settings.morpheus_token,
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
        names = [name for model in cached for name in names_of(model.model)]
        unlisted = self._api.when_it_answers(
            lambda: self._look(names),
            deadline_s=_ANSWER_DEADLINE_S,
            stopping=self._supervisor.stopping,
            last_lines=lambda: " | ".join(self._supervisor.last_lines(COMFYUI)),
        )
        for u in unlisted:
            _LOG.warning("%s: %s", u.name, u.reason)
        for failed in failed_imports(self._printed.lines):
            _LOG.warning("custom node %s: ComfyUI can't import it, %s", failed.name, failed.reason)
        return unlisted

    def _look(self, names: Iterable[str]) -> tuple[Unlisted, ...]:
        """One look at the ComfyUI of now. Raises NotSetUp, NoAnswer."""
        self.changed.clear()
        self._api.require_answer()
        if self._settings.morpheus_token is not None and not self._api.refuses_strangers():
            raise NotSetUp(
                "ComfyUI",
                "it answers without the token",
                "report this with its version; until then unset MORPHEUS_TOKEN or don't expose its port",
            )
        folder_paths = self._api.folder_paths(str(self._place.root))
        unlisted = find_unlisted(self._place.root, names, folder_paths, self._api.files_of)
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


def _local_folder(settings: Settings) -> Path:
    return settings.local_dir / "comfyui"


def _more_arguments(settings: Settings, deployment: Deployment) -> tuple[str, ...]:
    return (*deployment.manifest.comfyui.args, *settings.comfyui_args)
