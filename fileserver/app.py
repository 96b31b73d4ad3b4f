"""The application: every route, and what stands behind it."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import Metric
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from fileserver.answers import NoVolume, error_answer, invalid_answer, no_route_answer
from fileserver.boot_state import BootStatus
from fileserver.download_routes import DownloadRoutes
from fileserver.downloads import Downloads
from fileserver.input_counts import InputCounts
from fileserver.intake import Intake
from fileserver.job_routes import add_job_routes
from fileserver.jobs import Jobs
from fileserver.metrics import CountedRequests, Metrics, gauge, jobs_at_hand
from fileserver.openapi import JOB_SCHEMA, UPLOAD_BODY, download_paths, errors
from fileserver.page import make_page
from fileserver.settings import Settings
from fileserver.threads import VolumeThreads
from fileserver.tokens import TokenGate
from fileserver.tus import TusProtocol, add_tus_routes
from fileserver.tus_uploads import TusUploads
from fileserver.uploads import UploadAnswer, Uploads, upload_answer
from fileserver.zips import Zips
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
    uploads: Uploads
    tus: TusUploads
    counts: InputCounts
    downloads: Downloads
    zips: Zips
    threads: VolumeThreads
    jobs: Jobs


def build_app(settings: Settings, presence: Presence | None, runner: Runner | None) -> ASGIApp:
    """The file server's application, with the token's gate in front where there is a token.

    ``presence`` None: there is no volume; ``runner`` None: this container runs no jobs.
    """
    boot = BootStatus(settings.local_dir)
    metrics = Metrics(boot)
    volume = _volume(settings, presence, runner)
    api = _Api(
        title="Morpheus file server",
        version=__version__,
        openapi_url="/openapi.json" if settings.docs else None,
        redirect_slashes=False,
    )
    api.add_exception_handler(MorpheusError, error_answer)
    api.add_exception_handler(RequestValidationError, invalid_answer)
    api.add_exception_handler(HTTPException, no_route_answer)
    api.add_exception_handler(ClientDisconnect, _gone)
    _add_boot_routes(api, boot)
    _add_file_routes(api, volume, metrics)
    add_tus_routes(api, volume.tus if volume else None, metrics, settings.limits.upload_bytes)
    add_job_routes(api, volume.jobs if volume else None, settings.limits)
    _add_metrics_route(api, volume, metrics, runner)
    if runner is not None:
        runner.on_ended(lambda status: metrics.jobs_ended.labels(status).inc())
    app: ASGIApp = DownloadRoutes(
        api, volume.downloads if volume else None, volume.zips if volume else None
    )
    if settings.token is not None:
        app = TokenGate(app, settings.token)
    return CountedRequests(TusProtocol(app), metrics)


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        schema = super().openapi()
        schema["paths"].update(download_paths())
        return schema


def _volume(settings: Settings, presence: Presence | None, runner: Runner | None) -> _Volume | None:
    if settings.volume is None or presence is None:
        return None
    reading = VolumeThreads(presence, "read", _READERS, _WAITING)
    writing = VolumeThreads(presence, "write", _WRITERS, _WAITING)
    # All uploads together hold so much in memory.
    intake = Intake(settings.limits)
    counts = InputCounts(settings.volume, settings.limits.job_files)
    return _Volume(
        settings.volume,
        Uploads(settings.volume, writing, settings.limits, intake, counts),
        TusUploads(settings.volume, writing, settings.limits, intake, counts),
        counts,
        Downloads(settings.volume, reading),
        Zips(settings.volume, reading),
        writing,
        Jobs(
            settings.volume,
            writing,
            runner,
            settings.times.silence_s,
            settings.limits.job_files,
        ),
    )


async def _gone(_request: Request, _error: Exception) -> Response:
    """Nobody reads it; it is an answer only so that a client's leaving is not taken for a bug."""
    return Response(status_code=400)


def _add_boot_routes(app: FastAPI, boot: BootStatus) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get(
        "/ping",
        status_code=200,
        responses={204: {"description": "The boot runs"}, 503: {"description": "The boot failed"}},
        response_class=Response,
    )
    async def ping() -> Response:
        return Response(status_code=boot.ping)

    @app.get("/status")
    async def status() -> JSONResponse:
        return JSONResponse(boot.document())

    shown = make_page()

    @app.get("/", response_class=HTMLResponse)
    async def page() -> Response:
        return shown


def _add_file_routes(app: FastAPI, volume: _Volume | None, metrics: Metrics) -> None:
    @app.post(
        "/upload",
        openapi_extra=UPLOAD_BODY,
        responses=errors(400, 408, 409, 413, 422, 500, 503, 507),
    )
    async def upload(request: Request) -> UploadAnswer:
        if volume is None:
            raise NoVolume
        uploaded = await volume.uploads.receive(request)
        metrics.uploaded.inc(uploaded.size_bytes)
        return upload_answer(volume.layout, uploaded)

    @app.post("/cleanup/{job}", responses=errors(409, 422, 500, 503))
    async def cleanup(
        job: Annotated[str, Path(json_schema_extra=dict(JOB_SCHEMA))],
    ) -> CleanupAnswer:
        if volume is None:
            raise NoVolume
        layout, job_id = volume.layout, JobId(job)
        await volume.jobs.end(job_id)
        removed = await volume.threads.run(lambda: remove_job(layout, job_id))
        volume.counts.forget(job_id)
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
