"""The application: every route, and what stands behind it."""

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import Metric
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from fileserver.answers import ErrorAnswer, JobPath, LastResort, Refused, answer_errors
from fileserver.boot import BootStatus, add_boot_routes
from fileserver.downloads import Downloads, add_download_routes
from fileserver.job_routes import add_job_routes
from fileserver.jobs import Jobs
from fileserver.metrics import CountedRequests, Metrics, gauge, jobs_at_hand
from fileserver.settings import ServerSettings
from fileserver.threads import VolumeThreads
from fileserver.tokens import TokenGate
from fileserver.tus import TusProtocol, TusUploads, add_tus_routes
from fileserver.uploads import Intake, add_upload_route
from morpheus_boot import __version__
from morpheus_boot.errors import MorpheusError
from morpheus_boot.jobs.files import count_jobs
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.removal import remove_job
from morpheus_boot.jobs.runner import Runner
from morpheus_boot.volume.layout import Layout
from morpheus_boot.volume.presence import Presence

# Cold reads on MooseFS wait for the network: as many at once as there are likely to be downloads.
_READERS: Final = 128
_WRITERS: Final = 32
_WAITING: Final = 512
_METRICS_DEADLINE_S: Final = 2.0


class CleanupAnswer(BaseModel):
    """What a cleanup did."""

    message: str
    worker_job_id: str


def build_app(
    settings: ServerSettings, presence: Presence | None, runner: Runner | None
) -> ASGIApp:
    """The file server's application, with the token's gate in front.

    ``presence`` None: there is no volume; ``runner`` None: this container runs no jobs.
    """
    boot = BootStatus(settings.local_dir)
    metrics = Metrics(boot)
    api = FastAPI(
        title="Morpheus file server",
        version=__version__,
        openapi_url="/openapi.json" if settings.docs else None,
        redirect_slashes=False,
        responses={"4XX": {"model": ErrorAnswer}, "5XX": {"model": ErrorAnswer}},
    )
    answer_errors(api)
    add_boot_routes(api, boot)
    if presence is None:
        api.router.default = _no_volume
        _add_metrics_route(api, metrics)
    else:
        _add_volume_routes(api, settings, presence, runner, metrics)
    if runner is not None:
        runner.on_ended(lambda status: metrics.jobs_ended.labels(status).inc())
    gate: ASGIApp = TokenGate(TusProtocol(api), settings.token, settings.cors_origins)
    if settings.cors_origins:
        gate = CORSMiddleware(
            gate,
            settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    return CountedRequests(LastResort(gate, settings.limits.connections), metrics)


async def _no_volume(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """In the place of every route that needs one: the boot gave up before it found it."""
    raise Refused(503, "volume", "there is none", "see /status for what stopped the boot")


def _add_volume_routes(
    api: FastAPI,
    settings: ServerSettings,
    presence: Presence,
    runner: Runner | None,
    metrics: Metrics,
) -> None:
    layout, limits = presence.layout, settings.limits
    # Reads don't wait behind writes.
    reading = VolumeThreads(presence, "read", _READERS, _WAITING)
    writing = VolumeThreads(presence, "write", _WRITERS, _WAITING)
    intake = Intake(layout, writing, limits)
    jobs = Jobs(layout, writing, runner, settings.times.silence_s, limits.job_files)
    add_upload_route(api, intake, metrics)
    add_tus_routes(api, TusUploads(intake), metrics, limits)
    add_download_routes(api, Downloads(layout, reading))
    add_job_routes(api, jobs, limits)

    @api.post("/cleanup/{job}")
    async def cleanup(job: JobPath) -> CleanupAnswer:
        job_id = JobId(job)
        await jobs.end(job_id)
        removed = await writing.run(lambda: remove_job(layout, job_id))
        intake.counts.forget(job_id)
        return CleanupAnswer(
            message="removed" if removed else "there was no such job", worker_job_id=job
        )

    async def of_volume() -> list[Metric]:
        more = [] if runner is None else await _work_of(runner)
        return more + await _jobs_on(layout, writing)

    _add_metrics_route(api, metrics, of_volume)


def _add_metrics_route(
    api: FastAPI, metrics: Metrics, more: Callable[[], Awaitable[list[Metric]]] | None = None
) -> None:
    @api.get("/metrics", response_class=Response)
    async def page() -> Response:
        return Response(metrics.page(await more() if more else []), media_type=CONTENT_TYPE_LATEST)


async def _work_of(runner: Runner) -> list[Metric]:
    """The jobs of this worker, and ComfyUI's queue where it says how long that is."""
    work = [jobs_at_hand(run.record.status for run in runner.runs)]
    waiting = await runner.queue_length()
    if waiting is not None:
        work.append(gauge("morpheus_comfyui_queue", "Prompts that ComfyUI has to run.", waiting))
    return work


async def _jobs_on(layout: Layout, threads: VolumeThreads) -> list[Metric]:
    """How many jobs have files, and whether the volume says so in time."""
    answers = "morpheus_volume_answers", "1 where jobs/ can be read."
    try:
        jobs = await threads.run(lambda: count_jobs(layout), deadline_s=_METRICS_DEADLINE_S)
    except MorpheusError:
        return [gauge(*answers, 0)]
    counted = gauge("morpheus_jobs", "Jobs that have files on the volume.", jobs)
    return [counted, gauge(*answers, 1)]
