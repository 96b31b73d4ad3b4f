"""The file server's command line and environment; ComfyUI's are comfyui/'s."""

import sys
from collections.abc import Mapping
from pathlib import Path

from morpheus_boot.run.process import ServiceSpec

FILE_SERVER = "fileserver"
COMFYUI = "comfyui"


def file_server(
    *,
    port: int,
    extra_ports: tuple[int, ...],
    comfyui_port: int,
    volume: Path | None,
    local_dir: Path,
    repository: Path,
    environ: Mapping[str, str],
) -> ServiceSpec:
    """The file server on ``port`` and, where free, on ``extra_ports``; ``volume`` None: it serves its state only."""
    env = {
        name: value
        for name, value in environ.items()
        if name not in ("PORT", "PORT_HEALTH", "MORPHEUS_VOLUME")
    }
    env["FILESERVER_PORT"] = str(port)
    env["COMFYUI_PORT"] = str(comfyui_port)
    env["MORPHEUS_LOCAL_DIR"] = str(local_dir)
    env["PYTHONPATH"] = str(repository)
    env["PYTHONUNBUFFERED"] = "1"
    env["MORPHEUS_LOG"] = "json"
    for name, extra in zip(("PORT", "PORT_HEALTH"), extra_ports, strict=False):
        env[name] = str(extra)
    if volume is not None:
        env["MORPHEUS_VOLUME"] = str(volume)
    return ServiceSpec(
        name=FILE_SERVER,
        argv=(sys.executable, "-m", "fileserver"),
        env=env,
        cwd=local_dir,
        port=port,
    )
