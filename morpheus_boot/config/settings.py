"""Arguments and environment, read once, at the edge; standard library only (environment.py uses it too)."""

import os
import re
import secrets
import shlex
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from morpheus_boot.config.redact import Redactor, Secret, secrets_in
from morpheus_boot.config.variables import Limits, Variables, read_limits
from morpheus_boot.errors import MorpheusError, NotSetUp, UsageError
from morpheus_boot.volume.layout import is_job_id

REPOSITORY: Final = Path(__file__).resolve().parents[2]
# The longest wait for a model that another worker fetches, and how long an origin may fail to get on.
LOCK_TIMEOUT_S: Final = 3600.0
RETRY_S: Final = 60.0
LOG_FORMATS: Final = ("text", "json")
# ComfyUI's arguments that this program sets itself: a second value would contradict the contract.
OWN_COMFYUI_ARGS: Final = (
    "--listen",
    "--port",
    "--base-directory",
    "--output-directory",
    "--input-directory",
    "--temp-directory",
    "--user-directory",
)


@dataclass(frozen=True, slots=True)
class RunPod:
    """What RunPod says about this container; all None or False elsewhere."""

    pod_id: str | None
    endpoint_id: str | None
    queue_url: Secret | None
    init_timeout_s: float | None
    gives_gpu: bool

    @property
    def present(self) -> bool:
        """Whether this is a RunPod container at all."""
        return self.pod_id is not None

    @property
    def is_pod(self) -> bool:
        """A Pod rather than a Serverless worker: RunPod starts it again when it exits, and bills it."""
        return self.pod_id is not None and self.endpoint_id is None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that arguments and environment say, parsed. None: not given, to be looked for."""

    models: Path
    volume: Path | None
    volume_gb: float | None
    local_dir: Path
    comfyui_dir: Path | None
    comfyui_python: Path | None
    comfyui_args: tuple[str, ...]
    comfyui_port: int
    fileserver_port: int
    extra_ports: tuple[int, ...]
    hf_token: Secret | None
    hf_endpoint: str
    civitai_token: Secret | None
    morpheus_token: Secret | None
    cors_origins: tuple[str, ...]
    job_ttl_hours: float | None
    limits: Limits
    hold_s: float
    log_format: str
    verbosity: int
    runpod: RunPod
    worker: str
    environ: Mapping[str, str] = field(repr=False)
    # What read_what_is_right() took for not set.
    wrong: tuple[MorpheusError, ...] = ()

    @property
    def endpoint(self) -> str:
        """Whose manifest this boot leaves on the volume: the endpoint's, else the worker's own."""
        return self.runpod.endpoint_id or self.worker

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """All that must never be seen in a log, a status page or a record."""
        named = (self.hf_token, self.civitai_token, self.morpheus_token, self.runpod.queue_url)
        return (*(s for s in named if s is not None), *secrets_in(self.environ))


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says in place of a variable; None: not given."""

    models: Path | None = None
    volume: Path | None = None
    comfyui: Path | None = None
    log_format: str | None = None
    verbosity: int = 0


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of the program: the settings, and the options of single commands.

    ``repair`` is verify's, ``write`` pin's, ``file`` import's; ``apply``, ``forget``, ``jobs_older_than_h`` are gc's.
    """

    settings: Settings
    redact: Redactor = field(default_factory=Redactor)
    json: bool = False
    replace_in_place: bool = False
    repair: bool = False
    write: bool = False
    apply: bool = False
    forget: tuple[str, ...] = ()
    jobs_older_than_h: float | None = None
    file: Path = Path()
    lock_timeout_s: float = LOCK_TIMEOUT_S
    retry_s: float = RETRY_S


def read_environ() -> dict[str, str]:
    """The environment itself, for programs that need it before it is known to be right."""
    return dict(os.environ)


def read_settings(
    overrides: Overrides = Overrides(), environ: Mapping[str, str] | None = None
) -> Settings:
    """Reads arguments and environment.

    Raises:
        UsageError: names the variable and what it must be.
        NotSetUp: PORT, where the platform sends requests, is ComfyUI's.
    """
    env = read_environ() if environ is None else dict(environ)
    variables = Variables(env)
    queue_url = variables.text("RUNPOD_WEBHOOK_GET_JOB")
    runpod = RunPod(
        variables.text("RUNPOD_POD_ID"),
        variables.text("RUNPOD_ENDPOINT_ID"),
        Secret(queue_url) if queue_url else None,
        variables.number("RUNPOD_INIT_TIMEOUT"),
        variables.text("RUNPOD_GPU_COUNT") not in (None, "0"),
    )
    local_dir = variables.path("MORPHEUS_LOCAL_DIR") or _default_local_dir(env)
    comfyui_port, fileserver_port, extra_ports = _ports(variables)
    return Settings(
        models=_absolute(overrides.models)
        or variables.path("MORPHEUS_MODELS")
        or REPOSITORY / "models.yaml",
        volume=_absolute(overrides.volume) or variables.path("MORPHEUS_VOLUME"),
        volume_gb=variables.number("MORPHEUS_VOLUME_GB"),
        local_dir=local_dir,
        comfyui_dir=_absolute(overrides.comfyui) or variables.path("COMFYUI_DIR"),
        comfyui_python=variables.program("COMFYUI_PYTHON"),
        comfyui_args=_comfyui_args(variables.text("COMFYUI_ARGS") or ""),
        comfyui_port=comfyui_port,
        fileserver_port=fileserver_port,
        extra_ports=extra_ports,
        hf_token=variables.token("HF_TOKEN"),
        hf_endpoint=(variables.text("HF_ENDPOINT") or "https://huggingface.co").rstrip("/"),
        civitai_token=variables.token("CIVITAI_TOKEN"),
        morpheus_token=variables.token("MORPHEUS_TOKEN"),
        cors_origins=variables.origins("MORPHEUS_CORS_ORIGINS"),
        job_ttl_hours=variables.number("MORPHEUS_JOB_TTL_HOURS"),
        limits=read_limits(variables),
        hold_s=_hold_s(variables.text("MORPHEUS_HOLD_S"), runpod),
        log_format=overrides.log_format or variables.choice("MORPHEUS_LOG", LOG_FORMATS) or "text",
        verbosity=overrides.verbosity,
        runpod=runpod,
        worker=_worker(runpod, local_dir),
        environ=env,
    )


def read_what_is_right(
    overrides: Overrides = Overrides(), environ: Mapping[str, str] | None = None
) -> Settings | None:
    """As read_settings(), but what is wrong counts as not set, also in ``environ``; None where that is not enough."""
    env = read_environ() if environ is None else dict(environ)
    errors: list[MorpheusError] = []
    while True:
        try:
            return replace(read_settings(overrides, env), wrong=tuple(errors))
        except MorpheusError as error:
            errors.append(error)
            # By default FILESERVER_PORT is not set, and may be COMFYUI_PORT all the same.
            wrong = error.subject if error.subject in env else "COMFYUI_PORT"
            if env.pop(wrong, None) is None:
                return None


def may_mean(argument: str, options: Iterable[str]) -> bool:
    """Whether ComfyUI may take ``argument`` for one of ``options``: for argparse any unique beginning is the option.

    Which one is unique differs from version to version, so that the shortest counts.
    """
    option = argument.partition("=")[0]
    return len(option) > len("--") and any(whole.startswith(option) for whole in options)


def _default_local_dir(environ: Mapping[str, str]) -> Path:
    """For root ``/opt/morpheus``, else below the user's cache folder. pod_start.sh looks there first, too."""
    if os.geteuid() == 0:
        return Path("/opt/morpheus")
    if cache := environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "morpheus"
    try:
        return Path.home() / ".cache" / "morpheus"
    except RuntimeError as error:
        raise UsageError(
            "MORPHEUS_LOCAL_DIR",
            f"user {os.geteuid()} has no home folder, and it is not set",
            "set it to a folder on local disk",
        ) from error


def _absolute(path: Path | None) -> Path | None:
    return path.expanduser().absolute() if path is not None else None


def worker_file(local_dir: Path) -> Path:
    """Where a boot keeps the worker's id for as long as its container lives."""
    return local_dir / "worker"


def _worker(runpod: RunPod, local_dir: Path) -> str:
    """RunPod's id for the container, else what an earlier boot has drawn, else one drawn now."""
    try:
        kept = worker_file(local_dir).read_text(errors="replace")
    except OSError:
        kept = ""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).lstrip("._-")[:100] or "worker"
    drawn = f"{host}-{secrets.token_hex(3)}"
    return next(i for i in (runpod.pod_id, kept, drawn) if i is not None and is_job_id(i))


def _ports(variables: Variables) -> tuple[int, int, tuple[int, ...]]:
    """ComfyUI's port, the file server's, and the file server's more ones."""
    comfyui = variables.port("COMFYUI_PORT") or 8188
    file_server = variables.port("FILESERVER_PORT") or 8000
    if comfyui == file_server:
        mend = "give them two ports"
        raise UsageError("FILESERVER_PORT", f"{file_server} is COMFYUI_PORT too", mend)
    port, health = variables.port("PORT"), variables.port("PORT_HEALTH")
    if port == comfyui:
        # A load balancer would send its requests to ComfyUI, which knows neither /ping nor /jobs.
        raise NotSetUp("PORT", f"{port} is COMFYUI_PORT too", "set COMFYUI_PORT to another port")
    more = dict.fromkeys(p for p in (port, health) if p is not None and p != comfyui)
    return comfyui, file_server, tuple(more)


def _hold_s(value: str | None, runpod: RunPod) -> float:
    if value is None:
        return 900.0 if runpod.is_pod else 0.0
    if not re.fullmatch(r"\d+(\.\d+)?", value):
        cause = f"'{value}' is not a number of seconds"
        raise UsageError("MORPHEUS_HOLD_S", cause, "give 0 or more")
    return float(value)


def _comfyui_args(value: str) -> tuple[str, ...]:
    try:
        args = tuple(shlex.split(value))
    except ValueError as error:
        cause = f"can't be split as a shell does ({error})"
        raise UsageError("COMFYUI_ARGS", cause, "mend its quotes") from error
    for arg in args:
        if may_mean(arg, OWN_COMFYUI_ARGS):
            cause = f"{arg.partition('=')[0]} is set by this program"
            raise UsageError("COMFYUI_ARGS", cause, "remove it from COMFYUI_ARGS")
    return args
