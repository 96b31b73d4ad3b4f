"""The chain that smoke proves: cold boot, upload, job, download, cleanup, stop, warm boot."""

import logging
import secrets
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from morpheus_boot.config.settings import REPOSITORY, Settings
from morpheus_boot.errors import MorpheusError
from morpheus_boot.smoke.client import Client
from morpheus_boot.smoke.inner import InnerBoot, free_ports
from morpheus_boot.smoke.models import UPSCALER, make_models, write_manifest
from morpheus_boot.smoke.origin import Origin
from morpheus_boot.smoke.samples import gradient, png_size
from morpheus_boot.smoke.steps import Step, Steps, retold
from morpheus_boot.smoke.target import Target, choose_target, remove_links

_LOG: Final = logging.getLogger("morpheus.smoke")

# Neither the upload's size nor twice that, which the upscaler makes of it.
_UPLOADED_SIZE: Final = (48, 32)
_WANTED_SIZE: Final = (80, 60)
_REPORT: Final = "report this with the log"


@dataclass(frozen=True, slots=True)
class Report:
    """What smoke found: its steps, and which ComfyUI they ran with."""

    steps: tuple[Step, ...]
    target: Target


def run_chain(settings: Settings, stopping: threading.Event) -> Report:
    """Runs the whole chain in a temporary folder, and leaves nothing behind; ``stopping`` ends its waits.

    Raises MorpheusError: the first step that failed, named, with the inner boot's last lines.
    """
    with tempfile.TemporaryDirectory(prefix="morpheus-smoke-") as folder:
        workspace = Path(folder).resolve()
        target = choose_target(settings, workspace)
        _LOG.info("using %s, and models and a volume of smoke's own", target.description)
        chain = _Chain(settings, workspace, target, stopping)
        try:
            return chain.run()
        finally:
            places = [place for model in chain.models for place in model.places]
            remove_links(target.comfyui, places, chain.volume)


class _Chain:
    """One run of the chain."""

    def __init__(
        self, settings: Settings, workspace: Path, target: Target, stopping: threading.Event
    ) -> None:
        self.models = make_models()
        self.volume = workspace / "volume"
        self._settings = settings
        self._workspace = workspace
        self._target = target
        self._stopping = stopping
        self._manifest = workspace / "models.yaml"
        self._steps = Steps()

    def run(self) -> Report:
        """The story, downwards."""
        with Origin({model.name: model.content for model in self.models}) as origin:
            write_manifest(self._manifest, self.models, origin.url)
            with self._boot("cold boot") as client:
                self._check_fetched_once(origin)
                self._check_listed(client)
                self._run_job(client)
            origin.stop()
        with self._boot("warm boot, origin gone") as client:
            self._check_listed(client)
        return Report(self._steps.done, self._target)

    @contextmanager
    def _boot(self, name: str) -> Iterator[Client]:
        """A boot that is ready, and that is stopped by SIGTERM afterwards."""
        files_port, comfyui_port = free_ports(2)
        with InnerBoot(
            self._arguments(),
            self._environ(files_port, comfyui_port),
            (files_port, comfyui_port),
            self._stopping,
            show_log=self._settings.verbosity >= 0,
        ) as boot:
            try:
                with self._steps.step(name, "from start to ready"):
                    boot.wait_until_ready()
                yield Client(files_port, comfyui_port, self._stopping)
                with self._steps.step("stop", "SIGTERM to exit code 0, nothing left"):
                    boot.stop()
            except MorpheusError as error:
                raise retold(error, after=f"; the boot's last lines: {boot.last_lines}") from error

    def _arguments(self) -> list[str]:
        return [
            "up",
            *("--models", str(self._manifest)),
            *("--volume", str(self.volume)),
            *("--comfyui", str(self._target.comfyui)),
            *("--log-format", self._settings.log_format),
        ]

    def _environ(self, files_port: int, comfyui_port: int) -> dict[str, str]:
        """The user's own environment without what would make the boot another one."""
        own = {
            name: value
            for name, value in self._settings.environ.items()
            if not name.startswith(("RUNPOD_", "MORPHEUS_")) and name not in {"PORT", "PORT_HEALTH"}
        }
        # For the embedded origin, which the fill would ask through the user's proxy; ComfyUI is asked directly.
        known_to_no_proxy = ",".join(filter(None, (own.get("NO_PROXY"), "127.0.0.1")))
        python_path = ":".join(filter(None, (str(REPOSITORY), own.get("PYTHONPATH"))))
        return own | {
            "MORPHEUS_LOCAL_DIR": str(self._workspace / "local"),
            "FILESERVER_PORT": str(files_port),
            "COMFYUI_PORT": str(comfyui_port),
            "PYTHONPATH": python_path,
            "NO_PROXY": known_to_no_proxy,
            "no_proxy": known_to_no_proxy,
            **self._target.variables,
        }

    def _check_fetched_once(self, origin: Origin) -> None:
        wanted = sum(len(model.content) for model in self.models)
        detail = f"{len(self.models)} models, {wanted} bytes, each byte once"
        with self._steps.step("models fetched", detail):
            sent = origin.sent_bytes
            # An origin is asked for a model's size by its first byte.
            if not wanted <= sent <= wanted + len(self.models):
                cause = f"the origin sent {sent} bytes for models of {wanted}"
                raise MorpheusError("origin", cause, _REPORT)

    def _check_listed(self, client: Client) -> None:
        with self._steps.step("models listed", "by ComfyUI, the linked one too"):
            for place in (place for model in self.models for place in model.places):
                folder, _, name = place.partition("/")
                if name not in client.listed(folder):
                    raise MorpheusError(place, f"ComfyUI does not list it in {folder}", _REPORT)

    def _run_job(self, client: Client) -> None:
        straight, by_name = (f"smoke-{secrets.token_hex(4)}" for _ in range(2))
        with self._steps.step("upload"):
            comfy_path = client.upload(straight, "morpheus.png", gradient(*_UPLOADED_SIZE))
        with self._steps.step("job", "upscaled by a model from the cache, scaled, saved"):
            saved = client.run(_graph(comfy_path, f"{straight}/output/smoke"))
        with self._steps.step("job by name", "rescale, through the file server"):
            rescaled = client.run_by_name("rescale", by_name, _rescaling(comfy_path))
        made = ((straight, saved), (by_name, rescaled))
        with self._steps.step("download", f"a PNG of {_WANTED_SIZE[0]} x {_WANTED_SIZE[1]}"):
            for job, name in made:
                picture = client.download(job, name)
                if picture is None or png_size(picture) != _WANTED_SIZE:
                    found = "nothing" if picture is None else f"{len(picture)} bytes"
                    cause = f"{found} instead of a PNG of {_WANTED_SIZE}"
                    raise MorpheusError(f"{job}/{name}", cause, _REPORT)
        with self._steps.step("cleanup", "404 afterwards"):
            for job, name in made:
                client.clean_up(job)
                if client.download(job, name) is not None or (self.volume / "jobs" / job).exists():
                    raise MorpheusError(job, "is still there after its cleanup", _REPORT)


def _rescaling(comfy_path: str) -> dict[str, Any]:
    width, height = _WANTED_SIZE
    return {"image": comfy_path, "width": width, "height": height}


def _graph(comfy_path: str, filename_prefix: str) -> dict[str, Any]:
    """A prompt of nodes that every ComfyUI has, and that a CPU runs in a second."""
    width, height = _WANTED_SIZE
    scale = {"upscale_method": "bilinear", "width": width, "height": height, "crop": "disabled"}
    nodes = {
        "load": ("LoadImage", {"image": comfy_path}),
        "model": ("UpscaleModelLoader", {"model_name": UPSCALER}),
        "upscale": (
            "ImageUpscaleWithModel",
            {"upscale_model": ["model", 0], "image": ["load", 0]},
        ),
        "scale": ("ImageScale", {"image": ["upscale", 0], **scale}),
        "save": ("SaveImage", {"images": ["scale", 0], "filename_prefix": filename_prefix}),
    }
    return {n: {"class_type": kind, "inputs": inputs} for n, (kind, inputs) in nodes.items()}
