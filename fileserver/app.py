"""The application: every route, and what stands behind it."""

from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import Metric
from pydantic import BaseModel
from starlette.types import ASGIApp

from fileserver.answers import ErrorAnswer, JobPath, LastResort, NoVolume, answer_errors
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


@dataclass(frozen=True, slots=True)
class _Volume:
    """What serves the volume, in threads of its own: reads don't wait behind writes."""

    layout: Layout
    threads: VolumeThreads
    intake: Intake
    downloads: Downloads
    jobs: Jobs


def build_app(
    settings: ServerSettings, presence: Presence | None, runner: Runner | None
) -> ASGIApp:
    """The file server's application, with the token's gate in front.

    ``presence`` None: there is no volume; ``runner`` None: this container runs no jobs.
    """
    boot = BootStatus(settings.local_dir)
    metrics = Metrics(boot)
    volume = _volume(settings, presence, runner)
    api = FastAPI(
        title="Morpheus file server",
        version=__version__,
        openapi_url="/openapi.json" if settings.docs else None,
        redirect_slashes=False,
        responses={"4XX": {"model": ErrorAnswer}, "5XX": {"model": ErrorAnswer}},
    )
    answer_errors(api)
    add_boot_routes(api, boot)
    add_upload_route(api, volume.intake if volume else None, metrics)
    add_tus_routes(api, TusUploads(volume.intake) if volume else None, metrics, settings.limits)
    add_download_routes(api, volume.downloads if volume else None)
    add_job_routes(api, volume.jobs if volume else None, settings.limits)
    _add_cleanup_route(api, volume)
    _add_metrics_route(api, volume, metrics, runner)
    if runner is not None:
        runner.on_ended(lambda status: metrics.jobs_ended.labels(status).inc())
    app = LastResort(TokenGate(TusProtocol(api), settings.token), settings.limits.connections)
    return CountedRequests(app, metrics)


def _volume(
    settings: ServerSettings, presence: Presence | None, runner: Runner | None
) -> _Volume | None:
    if presence is None:
        return None
    layout = presence.layout
    reading = VolumeThreads(presence, "read", _READERS, _WAITING)
    writing = VolumeThreads(presence, "write", _WRITERS, _WAITING)
    return _Volume(
        layout,
        writing,
        Intake(layout, writing, settings.limits),
        Downloads(layout, reading),
        Jobs(layout, writing, runner, settings.times.silence_s, settings.limits.job_files),
    )


def _add_cleanup_route(app: FastAPI, volume: _Volume | None) -> None:
    @app.post("/cleanup/{job}")
    async def cleanup(job: JobPath) -> CleanupAnswer:
        if volume is None:
            raise NoVolume
        layout, job_id = volume.layout, JobId(job)
        await volume.jobs.end(job_id)
        removed = await volume.threads.run(lambda: remove_job(layout, job_id))
        volume.intake.counts.forget(job_id)
        return CleanupAnswer(
            message="removed" if removed else "there was no such job", worker_job_id=job
        )


def _add_metrics_route(
    app: FastAPI,
    volume: _Volume | None,
    metrics: Metrics,
    runner: Runner | None,
) -> None:
    @app.get("/metrics", response_class=Response)
    async def page() -> Response:
        more = [] if runner is None else await _work_of(runner)
        if volume is not None:
            jobs = await _count_jobs(volume)
            if jobs is not None:
                more.append(gauge("morpheus_jobs", "Jobs that have files on the volume.", jobs))
            answers = float(jobs is not None)
            more.append(gauge("morpheus_volume_answers", "1 where jobs/ can be read.", answers))
        return Response(metrics.page(more), media_type=CONTENT_TYPE_LATEST)


async def _work_of(runner: Runner) -> list[Metric]:
    """The jobs of this worker, and ComfyUI's queue where it says how long that is."""
    work = [jobs_at_hand(run.record.status for run in runner.runs)]
    waiting = await runner.queue_length()
    if waiting is not None:
        work.append(gauge("morpheus_comfyui_queue", "Prompts that ComfyUI has to run.", waiting))
    return work


async def _count_jobs(volume: _Volume) -> int | None:
    """How many jobs have files; None where the volume does not say so in time."""
    layout = volume.layout
    try:
        return await volume.threads.run(lambda: count_jobs(layout), deadline_s=_METRICS_DEADLINE_S)
    except MorpheusError:
        return None
