"""The file server's environment, read once; the only place of it that reads ``os.environ``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from morpheus_boot.config.redact import Secret, secrets_in
from morpheus_boot.config.variables import Limits, Variables, read_limits
from morpheus_boot.errors import UsageError
from morpheus_boot.jobs.following import Times
from morpheus_boot.volume.layout import Layout, is_job_id


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Everything that the environment says, parsed.

    ``volume`` None: there is none to serve; ``worker`` None: this container runs no ComfyUI, and so no jobs.
    """

    port: int
    extra_ports: tuple[int, ...]
    volume: Layout | None
    local_dir: Path
    worker: str | None
    token: Secret | None
    cors_origins: tuple[str, ...]
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


def read_server_settings(environ: Mapping[str, str] | None = None) -> ServerSettings:
    """Reads the environment as the boot gives it. Raises UsageError that names the variable."""
    env = os.environ if environ is None else environ

    variables = Variables(env)
    port = variables.port("FILESERVER_PORT") or 8000
    comfyui_port = variables.port("COMFYUI_PORT") or 8188
    more = [variables.port(name) for name in ("PORT", "PORT_HEALTH")]
    volume, token = variables.path("MORPHEUS_VOLUME"), variables.token("MORPHEUS_TOKEN")
    local_dir = variables.path("MORPHEUS_LOCAL_DIR")
    if local_dir is None:
        raise UsageError("MORPHEUS_LOCAL_DIR", "it is not set", "the boot sets it")
    return ServerSettings(
        port=port,
        extra_ports=tuple(p for p in dict.fromkeys(more) if p not in {None, port, comfyui_port}),
        volume=Layout(volume) if volume else None,
        local_dir=local_dir,
        worker=_worker(variables.text("MORPHEUS_WORKER")),
        token=token,
        cors_origins=variables.origins("MORPHEUS_CORS_ORIGINS"),
        job_ttl_hours=variables.number("MORPHEUS_JOB_TTL_HOURS"),
        comfyui_port=comfyui_port,
        secrets=(*((token,) if token else ()), *secrets_in(env)),
        log_format=read_log_format(env),
        docs=variables.text("MORPHEUS_DOCS") == "1",
        limits=read_limits(variables),
    )


def _worker(value: str | None) -> str | None:
    if value is not None and not is_job_id(value):
        raise UsageError("MORPHEUS_WORKER", f"'{value}' is no job id", "the boot sets it")
    return value
