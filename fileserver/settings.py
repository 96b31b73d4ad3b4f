"""The file server's environment, read once; the only place of it that reads ``os.environ``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from morpheus_boot.config.limits import Limits, read_limits
from morpheus_boot.config.redact import Secret, secrets_in
from morpheus_boot.config.variables import parse_port, parse_positive
from morpheus_boot.errors import UsageError
from morpheus_boot.jobs.following import Times
from morpheus_boot.volume.layout import Layout, is_job_id


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the environment says, parsed.

    ``volume`` None: there is none to serve; ``worker`` None: this container runs no ComfyUI, and so no jobs.
    """

    port: int
    extra_ports: tuple[int, ...]
    volume: Layout | None
    local_dir: Path
    worker: str | None
    token: Secret | None
    job_ttl_hours: float | None
    comfyui_port: int
    secrets: tuple[Secret, ...]
    log_format: str
    docs: bool
    limits: Limits
    # No variables of their own: what they hold for is not the user's to tune.
    times: Times = field(default_factory=Times)


def read_log_format(environ: Mapping[str, str] | None = None) -> str:
    """``json`` or ``text``: known also where the rest of the environment is wrong."""
    env = os.environ if environ is None else environ
    return "json" if env.get("MORPHEUS_LOG", "").strip() == "json" else "text"


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Reads the environment as the boot gives it. Raises UsageError that names the variable."""
    env = os.environ if environ is None else environ

    def text(name: str) -> str:
        return env.get(name, "").strip()

    port = parse_port("FILESERVER_PORT", text("FILESERVER_PORT") or "8000")
    comfyui_port = parse_port("COMFYUI_PORT", text("COMFYUI_PORT") or "8188")
    extra = [parse_port(name, text(name)) for name in ("PORT", "PORT_HEALTH") if text(name)]
    volume, token = text("MORPHEUS_VOLUME"), text("MORPHEUS_TOKEN")
    hours, local_dir = text("MORPHEUS_JOB_TTL_HOURS"), text("MORPHEUS_LOCAL_DIR")
    if not local_dir:
        raise UsageError("MORPHEUS_LOCAL_DIR", "it is not set", "the boot sets it")
    return Settings(
        port=port,
        extra_ports=tuple(p for p in dict.fromkeys(extra) if p not in {port, comfyui_port}),
        volume=Layout(Path(volume)) if volume else None,
        local_dir=Path(local_dir),
        worker=_worker(text("MORPHEUS_WORKER")),
        token=Secret(token) if token else None,
        job_ttl_hours=parse_positive("MORPHEUS_JOB_TTL_HOURS", hours) if hours else None,
        comfyui_port=comfyui_port,
        secrets=(*((Secret(token),) if token else ()), *secrets_in(env)),
        log_format=read_log_format(env),
        docs=text("MORPHEUS_DOCS") == "1",
        limits=read_limits(env),
    )


def _worker(value: str) -> str | None:
    if value and not is_job_id(value):
        raise UsageError("MORPHEUS_WORKER", f"'{value}' is no job id", "the boot sets it")
    return value or None
