"""The one runner of a worker: takes the jobs that clients post, and brings each to its end on this ComfyUI."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from morpheus_boot.errors import MorpheusError
from morpheus_boot.jobs.comfyui import ComfyUI, ComfyUIGone, ComfyUISilent
from morpheus_boot.jobs.course import Course, Times
from morpheus_boot.jobs.ending import Ending
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.outputs import Outputs
from morpheus_boot.jobs.record import JobRecord, Status, now
from morpheus_boot.jobs.run import Json, Run
from morpheus_boot.jobs.store import JobGone, JobStore
from morpheus_boot.layout import Layout
from morpheus_boot.redact import Secret

_log = logging.getLogger("morpheus.fileserver")
_T = TypeVar("_T")

# One runs while the next is queued behind it: ComfyUI never waits for us, and its death takes one at most.
_LANES: Final = 2
_AGAIN_S: Final = 1.0


class Threads(Protocol):
    """Threads for calls on the volume, which may hang."""

    async def run(self, call: Callable[[], _T]) -> _T:
        """The result of ``call``. Raises MorpheusError where it does not come in time."""


class Runner:
    """Runs this worker's jobs, first come, first served. For one event loop."""

    def __init__(self, layout: Layout, threads: Threads, worker: str, times: Times) -> None:
        self.worker = worker
        self._layout = layout
        self._store = JobStore(layout)
        self._threads = threads
        self._times = times
        self._runs: dict[JobId, Run] = {}
        self._waiting: asyncio.Queue[Run] = asyncio.Queue()
        self._ended: Callable[[Status], object] = lambda _status: None

    @property
    def runs(self) -> Sequence[Run]:
        """The jobs that are not over."""
        return tuple(self._runs.values())

    def on_ended(self, count: Callable[[Status], object]) -> None:
        """``count`` hears how each job ends."""
        self._ended = count

    def get(self, job: JobId) -> Run | None:
        """The job, where it is this worker's and not over."""
        return self._runs.get(job)

    def add(self, job: JobId, record: JobRecord) -> None:
        """Takes a job whose record lies on the volume."""
        run = self._runs[job] = Run(job, record)
        self._waiting.put_nowait(run)

    async def run(self, port: int, token: Secret | None) -> None:
        """Runs jobs on the ComfyUI at ``port`` until it is cancelled; first those that an earlier process left."""
        async with (
            ComfyUI(port, token, f"morpheus-{self.worker}") as comfyui,
            asyncio.TaskGroup() as group,
        ):
            await self._take_up()
            group.create_task(self._listen(comfyui))
            group.create_task(self._tick())
            for _ in range(_LANES):
                group.create_task(self._lane(comfyui))

    async def _take_up(self) -> None:
        """The jobs that this worker had in hand when its file server ended, in their order."""
        found: list[tuple[JobId, JobRecord]] = []
        for mark in await self._patiently(lambda: self._store.open_jobs(self.worker)):
            if mark.job in self._runs:
                continue
            job = mark.job
            record = await self._patiently(lambda job=job: self._store.read(job))  # type: ignore[misc]
            if record is not None and record.run == mark.run and not record.status.is_over:
                found.append((mark.job, record))
        for job, record in sorted(found, key=lambda one: one[1].created_at):
            _log.info("job %s: taken up again", job)
            self.add(job, record)

    async def _patiently(self, call: Callable[[], _T]) -> _T:
        """The result of a call on the volume, however long it takes to answer."""
        while True:
            try:
                return await self._threads.run(call)
            except MorpheusError as error:
                _log.warning("jobs: %s", error)
                await asyncio.sleep(_AGAIN_S)

    async def _lane(self, comfyui: ComfyUI) -> None:
        while True:
            run = await self._waiting.get()
            try:
                await self._carry_out(run, comfyui)
            except Exception:  # noqa: BLE001 - a job that meets a bug of ours must not stop the others
                _log.exception("job %s", run.job)
                run.change(status=Status.FAILED, error="a bug of ours; see the log", ended_at=now())
                await self._close(run)

    async def _carry_out(self, run: Run, comfyui: ComfyUI) -> None:
        outputs = Outputs(self._layout, run.job)
        course = Course(run, comfyui, self._times, lambda: self._save(run))
        try:
            if run.record.submissions == 0:
                await self._threads.run(outputs.look)
            ending = await course.ending()
            made = await self._threads.run(lambda: outputs.made(ending.named, ending.texts))
        except JobGone as gone:
            _log.info("%s", gone)
            await self._drop(run)
            return
        except MorpheusError as error:
            ending, made = Ending(Status.FAILED, str(error)), ()
        run.change(
            status=ending.status,
            error=ending.error,
            node_errors=ending.node_errors or run.record.node_errors,
            ended_at=now(),
            made=made,
        )
        await self._close(run)

    async def _close(self, run: Run) -> None:
        """Tells the volume how the run ended; where it refuses, this worker alone answers so, and tries on."""
        _log.info(
            "job %s: %s%s",
            run.job,
            run.record.status,
            f": {run.record.error}" if run.record.error else "",
        )
        self._ended(run.record.status)
        try:
            await self._save(run)
        except JobGone as gone:
            _log.info("%s", gone)
        except MorpheusError as error:
            _log.warning("job %s: its outcome can't be written yet: %s", run.job, error)
            run.over.set()
            return
        await self._drop(run)

    async def _drop(self, run: Run) -> None:
        try:
            await self._threads.run(lambda: self._store.forget(run.job, run.record))
        except MorpheusError as error:
            _log.warning("job %s: %s", run.job, error)
        if self._runs.get(run.job) is run:
            del self._runs[run.job]
        run.over.set()

    async def _save(self, run: Run) -> None:
        """Raises JobGone; VolumeFull and StorageFailed where the run is over."""
        record = run.record
        run.unsaved = False
        try:
            await self._threads.run(lambda: self._store.update(run.job, record))
        except JobGone:
            raise
        except MorpheusError as error:
            run.unsaved = True
            if record.status.is_over:
                raise
            # It can be run all the same: a volume that is full may have room for its files by then.
            _log.warning("job %s: %s", run.job, error)

    async def _listen(self, comfyui: ComfyUI) -> None:
        """Hands what ComfyUI's socket says to the runs; connects again for ever."""
        while True:
            try:
                await comfyui.listen(self._hear)
            except (ComfyUIGone, ComfyUISilent):
                await asyncio.sleep(self._times.retry_s)
            for run in self.runs:
                run.news.set()

    def _hear(self, kind: str, data: Json) -> None:
        prompt_id = data.get("prompt_id")
        if prompt_id is not None:
            for run in self.runs:
                if run.record.prompt_id == prompt_id:
                    run.hear(kind, data)

    async def _tick(self) -> None:
        """Each second: looks for requests to cancel, and tells the volume of progress."""
        while True:
            await asyncio.sleep(self._times.tick_s)
            if not self._runs:
                continue
            try:
                await self._look_for_cancels()
                for run in self.runs:
                    await self._tell(run)
            except MorpheusError as error:
                _log.warning("jobs: %s", error)

    async def _look_for_cancels(self) -> None:
        for mark in await self._threads.run(lambda: self._store.cancels(self.worker)):
            run = self._runs.get(mark.job)
            if run is not None and run.record.run == mark.run:
                run.cancelled.set()

    async def _tell(self, run: Run) -> None:
        if run.over.is_set():
            await self._close_again(run)
        elif run.unsaved and run.has_begun:
            try:
                await self._save(run)
            except JobGone:
                # Cleaned up, or taken for lost: ComfyUI need not go on with it.
                run.cancelled.set()

    async def _close_again(self, run: Run) -> None:
        if run.unsaved:
            with contextlib.suppress(JobGone):
                await self._save(run)
            await self._drop(run)
