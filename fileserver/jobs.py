"""What the server does with jobs: takes them, tells how they stand, cancels them, whichever worker's they are."""

import asyncio
from typing import Final

from fileserver.threads import VolumeThreads
from morpheus_boot.errors import Exit, MorpheusError
from morpheus_boot.jobs.files import NoSuchFile
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import JobRecord, JobView, view_job
from morpheus_boot.jobs.request import parse_request
from morpheus_boot.jobs.runner import Runner
from morpheus_boot.jobs.store import JobStore
from morpheus_boot.volume.layout import Layout

# A cleanup waits so long for a job that was cancelled for its sake.
_LET_GO_S: Final = 15.0
_POLL_S: Final = 0.5


class NoComfyUI(MorpheusError):
    """No ComfyUI runs in this container: it is a gateway to the volume."""

    exit_code = Exit.SETUP

    def __init__(self) -> None:
        super().__init__(
            "job", "this is a gateway without ComfyUI", "post it to a worker; here it can be read"
        )


class StillRunning(MorpheusError):
    """A job was cancelled, and its worker has not let go of it in time."""

    exit_code = Exit.STORAGE

    def __init__(self, job: JobId) -> None:
        super().__init__(str(job), "it is cancelled and not over yet", "try again in a moment")


class Jobs:
    """The jobs of the volume, seen from this worker; ``runner`` None: it has no ComfyUI."""

    def __init__(
        self,
        layout: Layout,
        threads: VolumeThreads,
        runner: Runner | None,
        silence_s: float,
        most_files: int,
    ) -> None:
        """A worker whose heartbeat stands still for ``silence_s`` has lost its jobs.

        ``most_files``: how many a job's input may hold.
        """
        self._layout = layout
        self._store = JobStore(layout)
        self._threads = threads
        self._runner = runner
        self._silence_s = silence_s
        self._most_files = most_files

    async def post(self, body: bytes) -> tuple[JobId, JobRecord]:
        """Takes the job in ``body``.

        Raises NoComfyUI, VolumeHangs; and as parse_request() and JobStore.post() do.
        """
        runner = self._runner
        if runner is None:
            raise NoComfyUI
        worker = runner.worker

        def create() -> tuple[JobId, JobRecord]:
            request = parse_request(self._layout, body)
            # One of a worker that is lost is ended by this.
            self._read(request.job)
            return request.job, self._store.post(worker, request, self._most_files)

        # Whoever has gone meanwhile has posted a job all the same.
        loop = asyncio.get_running_loop()
        job, record = await self._threads.run(
            create, abandoned=lambda posted: loop.call_soon_threadsafe(runner.add, *posted)
        )
        runner.add(job, record)
        return job, record

    async def view(self, job: JobId) -> JobView:
        """How the job stands, with its files. Raises NoSuchFile, VolumeHangs, StorageFailed."""
        layout = self._layout
        live = self._live(job)
        view = await self._threads.run(lambda: view_job(layout, job, live or self._read(job)))
        if view is None:
            raise NoSuchFile(str(job), "there is no such job", "check its id, or post it")
        return view

    async def cancel(self, job: JobId) -> JobRecord:
        """Asks for its end; it comes within seconds. Returns how it stands now.

        Raises NoSuchFile, VolumeHangs, StorageFailed.
        """
        run = self._runner.get(job) if self._runner is not None else None
        if self._runner is not None and run is not None:
            self._runner.cancel(run)
            return run.record
        record = await self._threads.run(lambda: self._read(job))
        if record is None:
            raise NoSuchFile(str(job), "there is no such job", "see its id")
        if not record.status.is_over:
            asked = record
            await self._threads.run(lambda: self._store.ask_to_cancel(job, asked))
        return record

    async def end(self, job: JobId) -> None:
        """Cancels the job where it is queued or running, and returns once it is over.

        Raises StillRunning, VolumeHangs, StorageFailed.
        """
        try:
            record = await self.cancel(job)
        except NoSuchFile:
            return
        run = self._runner.get(job) if self._runner is not None else None
        try:
            async with asyncio.timeout(_LET_GO_S):
                if run is not None:
                    await run.over.wait()
                while run is None and not record.status.is_over:
                    await asyncio.sleep(_POLL_S)
                    found = await self._threads.run(lambda: self._read(job))
                    if found is None or found.run != record.run:
                        return
                    record = found
        except TimeoutError:
            raise StillRunning(job) from None

    def _live(self, job: JobId) -> JobRecord | None:
        """The record of a job that this worker has in hand: the volume's may be a second old."""
        run = self._runner.get(job) if self._runner is not None else None
        return None if run is None else run.record

    def _read(self, job: JobId) -> JobRecord | None:
        """The job's record; one of a worker that is lost is ended first."""
        record = self._store.read(job)
        if record is None or record.status.is_over:
            return record
        if self._runner is not None and record.worker == self._runner.worker:
            return record
        return self._store.settle_lost(job, record, self._silence_s)
