"""The container: our Python and disk, ComfyUI and its Python, the GPU, the ports."""

import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from typing import Final

from morpheus_boot.comfyui.custom_nodes.interpreter import look_at
from morpheus_boot.comfyui.environment import environment_without_secrets
from morpheus_boot.comfyui.find import ComfyUI, find_comfyui
from morpheus_boot.config.settings import REPOSITORY
from morpheus_boot.doctor.check import Finding, Patient, error, errors_of, ok, warning
from morpheus_boot.errors import NotSetUp
from morpheus_boot.report.state import read_state, state_file
from morpheus_boot.services.ports import holder_of, require_free
from morpheus_boot.volume.mount import mount_of, read_mounts, size_text
from morpheus_boot.work.program import run_program

_LITTLE_DISK_BYTES: Final = 2 * 10**9
_TORCH_TIMEOUT_S: Final = 300.0
_GPU_PROBE: Final = """
import json, sys
try:
    import torch
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
there = torch.cuda.is_available()
print(json.dumps({
    "name": torch.cuda.get_device_name(0) if there else None,
    "bytes": torch.cuda.get_device_properties(0).total_memory if there else 0,
    "cuda": torch.version.cuda or torch.version.hip,
}))
"""


def look_at_python(patient: Patient) -> Iterator[Finding]:
    """The Python that runs this, and the local disk that our environment and the custom nodes lie on."""
    local = patient.settings.local_dir
    there = next(folder for folder in (local, *local.parents) if folder.exists())
    free_bytes = shutil.disk_usage(there).free
    mount = mount_of(local, read_mounts())
    if mount.is_network:
        yield warning(
            "Python",
            f"MORPHEUS_LOCAL_DIR {local} lies on a network ({mount.kind}), where small files crawl",
            "set it to a folder on the container's own disk",
        )
    if not os.access(there, os.W_OK):
        yield error(
            "Python", f"{local} can't be written", "set MORPHEUS_LOCAL_DIR to a folder of yours"
        )
    elif free_bytes < _LITTLE_DISK_BYTES:
        yield warning(
            "Python",
            f"{local} has {size_text(free_bytes)} free",
            "custom nodes' packages go there: give the container a larger disk",
        )
    yield ok("Python", f"{platform.python_version()}; {local} has {size_text(free_bytes)} free")


def look_at_comfyui(patient: Patient) -> Iterator[Finding]:
    """Which ComfyUI would be started, by which Python, and whether that has torch. Raises MorpheusError."""
    comfyui = _comfyui(patient)
    held = look_at(
        comfyui.python,
        environ=_environ(patient),
        folder=comfyui.folder,
        stopping=patient.stopping,
    )
    yield ok(
        "ComfyUI",
        f"{_version(comfyui)} in {comfyui.folder}, {comfyui.python} is {held.version}",
    )
    if "torch" not in held.held:
        yield error(
            "ComfyUI",
            f"{comfyui.python} has no torch: it is not ComfyUI's",
            "set COMFYUI_PYTHON to ComfyUI's own interpreter",
        )


def look_at_gpu(patient: Patient) -> Iterator[Finding]:
    """What torch in ComfyUI's Python sees."""
    try:
        comfyui = _comfyui(patient)
    except NotSetUp:
        yield warning("GPU", "not looked at: ComfyUI's torch is who would say", "see ComfyUI")
        return
    ended = run_program(
        (str(comfyui.python), "-c", _GPU_PROBE),
        environ=_environ(patient),
        folder=comfyui.folder,
        timeout_s=_TORCH_TIMEOUT_S,
        stopping=patient.stopping,
    )
    if ended.code != 0:
        yield error("GPU", f"torch can't be imported ({ended.words})", "mend ComfyUI's Python")
        return
    said = json.loads(ended.out.splitlines()[-1])
    if said["name"] is not None:
        yield ok("GPU", f"{said['name']}, {size_text(said['bytes'])} (torch for {said['cuda']})")
    elif "--cpu" in (*patient.manifest.comfyui.args, *patient.settings.comfyui_args):
        yield ok("GPU", "none, and ComfyUI is told so by --cpu")
    elif patient.settings.runpod.gives_gpu:
        yield error(
            "GPU",
            f"RunPod gave one, and torch (for {said['cuda']}) can't use it",
            "choose a host whose driver knows that CUDA (the endpoint's or Pod's CUDA filter)",
        )
    else:
        yield warning(
            "GPU",
            "none: ComfyUI won't start without --cpu",
            "rent one, or add --cpu to COMFYUI_ARGS",
        )


def look_at_ports(patient: Patient) -> Iterator[Finding]:
    """Whether each is free, or held by this container's own service."""
    settings = patient.settings
    wanted = [
        (settings.comfyui_port, "ComfyUI", "COMFYUI_PORT"),
        (settings.fileserver_port, "the file server", "FILESERVER_PORT"),
        *((port, "the file server", "PORT or PORT_HEALTH") for port in settings.extra_ports),
    ]
    state = read_state(state_file(settings.local_dir))
    ours = {s.pid: s.name for s in state.services if s.pid is not None} if state else {}
    for port, what, variable in wanted:
        try:
            require_free(port, what, variable)
        except NotSetUp as taken:
            holder = holder_of(port)
            if holder in ours:
                yield ok(
                    "ports",
                    f"{port}: the boot that runs here has it ({ours[holder]}, pid {holder})",
                )
            else:
                yield from errors_of("ports", taken)
        else:
            yield ok("ports", f"{port}: free for {what}")


def _comfyui(patient: Patient) -> ComfyUI:
    return find_comfyui(patient.settings.comfyui_dir, patient.settings.comfyui_python)


def _environ(patient: Patient) -> dict[str, str]:
    return environment_without_secrets(patient.settings.environ, (), REPOSITORY)


def _version(comfyui: ComfyUI) -> str:
    try:
        text = (comfyui.folder / "comfyui_version.py").read_text("utf-8")
    except OSError:
        return "an unknown version"
    match = re.search(r'__version__ = "([^"]+)"', text)
    return match[1] if match else "an unknown version"
