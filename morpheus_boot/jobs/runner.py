"""The one runner of a worker: takes the jobs that clients post, and brings each to its end on this ComfyUI."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from morpheus_boot.config.redact import Secret
from morpheus_boot.errors import MorpheusError
from morpheus_boot.jobs.comfyui import ComfyUIClient, ComfyUIGone, ComfyUISilent, Ending, Json
from morpheus_boot.jobs.following import Following, Run, Times, files_made, has_made
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import JobRecord, Status
from morpheus_boot.jobs.store import JobGone, JobStore
from morpheus_boot.volume.layout import Layout

_log = logging.getLogger("morpheus.fileserver")
_T = TypeVar("_T")

# One runs while the next is queued behind it: ComfyUI never waits for us, and its death takes the one that runs.
_LANES: Final = 2
_AGAIN_S: Final = 1.0
_QUEUE_TIMEOUT_S: Final = 1.0


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
        self._group: asyncio.TaskGroup | None = None
        self._comfyui: ComfyUIClient | None = None

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
        """Takes a job whose record lies on the volume; the same run again is the one that it has."""
        known = self._runs.get(job)
        if known is None or known.record.run != record.run:
            run = self._runs[job] = Run(job, record)
            self._waiting.put_nowait(run)

    def cancel(self, run: Run) -> None:
        """Ends the job: at once where it waits for its turn, else as soon as ComfyUI lets go of it."""
        run.cancelled.set()
        if not run.taken and self._group is not None:
            run.taken = True
            self._group.create_task(self._finish(run, Ending(Status.CANCELLED)))

    async def queue_length(self) -> int | None:
        """How many prompts ComfyUI has to run, not ours alone; None where it does not say so in time."""
        if self._comfyui is None:
            return None
        try:
            async with asyncio.timeout(_QUEUE_TIMEOUT_S):
                return await self._comfyui.queue_length()
        except (ComfyUIGone, ComfyUISilent, TimeoutError):
            return None

    async def run(self, port: int, token: Secret | None) -> None:
        """Runs jobs on the ComfyUI at ``port`` until it is cancelled; first those that an earlier process left."""
        async with (
            ComfyUIClient(port, token, f"morpheus-{self.worker}") as comfyui,
            asyncio.TaskGroup() as group,
        ):
            self._group = group
            self._comfyui = comfyui
            await self._take_up()
            group.create_task(self._listen(comfyui))
            group.create_task(self._tick())
            for _ in range(_LANES):
                group.create_task(self._lane(comfyui))

    async def _take_up(self) -> None:
        """The jobs that this worker had in hand when its file server ended, in their order."""
        while True:
            try:
                left = await self._threads.run(lambda: self._store.open_jobs(self.worker))
                break
            except MorpheusError as error:
                _log.warning("jobs: %s", error)
                await asyncio.sleep(_AGAIN_S)
        if left:
            _log.info("jobs: %d that are not over are taken up again", len(left))
        for job, record in left:
            self.add(job, record)

    async def _lane(self, comfyui: ComfyUIClient) -> None:
        while True:
            run = await self._waiting.get()
            if run.taken:
                continue  # it was cancelled
            run.taken = True
            try:
                await self._carry_out(run, comfyui)
            except Exception:  # noqa: BLE001 - a job that meets a bug of ours must not stop the others
                _log.exception("job %s", run.job)
                await self._finish(run, Ending(Status.FAILED, "a bug of ours; see the log"))

    async def _carry_out(self, run: Run, comfyui: ComfyUIClient) -> None:
        layout, job, since_ns = self._layout, run.job, run.record.posted_ns
        made: tuple[str, ...] = ()
        following = Following(
            run,
            comfyui,
            self._times,
            lambda: self._save(run),
            lambda: self._threads.run(lambda: has_made(layout, job, since_ns)),
        )
        try:
            ending = await following.ending()
            made = await self._threads.run(lambda: files_made(layout, job, since_ns, ending))
        except JobGone as gone:
            _log.info("%s", gone)
            await self._drop(run)
            return
        except MorpheusError as error:
            ending = Ending(Status.FAILED, str(error))
        await self._finish(run, ending, made)

    async def _finish(self, run: Run, ending: Ending, made: tuple[str, ...] = ()) -> None:
        """Tells how the run ended; where the volume refuses, this worker alone answers so, and tries on."""
        run.end(
            ending.status,
            error=ending.error,
            node_errors=ending.node_errors or run.record.node_errors,
            made=made,
        )
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
        except MorpheusError:
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
        saving = asyncio.create_task(self._save_in_turn(run))
        saving.add_done_callback(_heard)
        # Whoever is cancelled leaves its thread at work: the next one waits for that all the same.
        await asyncio.shield(saving)

    async def _save_in_turn(self, run: Run) -> None:
        # One at a time: an older record, slow in its thread, must not follow a later one.
        async with run.saving:
            if not run.unsaved:
                return
            record, run.unsaved = run.record, False
            try:
                await self._threads.run(lambda: self._store.update(run.job, record))
            except JobGone:
                raise
            except MorpheusError as error:
                if not run.refused:
                    _log.warning("job %s: the volume is not told yet: %s", run.job, error)
                run.unsaved = run.refused = True
                # What is not over can go on all the same: by its end there may be room again.
                if record.status.is_over:
                    raise
            else:
                run.refused = False

    async def _listen(self, comfyui: ComfyUIClient) -> None:
        """Hands what ComfyUI's socket says to the runs; connects again for ever."""
        while True:
            with contextlib.suppress(ComfyUIGone, ComfyUISilent):
                await comfyui.listen(self._hear)
            for run in self.runs:
                run.news.set()
            await asyncio.sleep(self._times.retry_s)

    def _hear(self, kind: str, data: Json) -> None:
        prompt_id = data.get("prompt_id")
        if prompt_id is not None:
            for run in self.runs:
                if run.record.prompt_id == prompt_id:
                    run.hear(kind, data)

    async def _tick(self) -> None:
        """Each second: looks for requests to cancel, and tells the volume of progress."""
        refused = False
        while True:
            await asyncio.sleep(self._times.tick_s)
            try:
                await self._look_for_cancels()
                refused = False
            except MorpheusError as error:
                if not refused:
                    _log.warning("jobs: %s", error)
                refused = True
            for run in self.runs:
                with contextlib.suppress(MorpheusError):  # the first time is in the log
                    await self._tell(run)

    async def _look_for_cancels(self) -> None:
        for mark in await self._threads.run(lambda: self._store.cancels(self.worker)):
            run = self._runs.get(mark.job)
            if run is not None and run.record.run == mark.run:
                self.cancel(run)
            else:
                await self._threads.run(partial(self._store.cancel_unheld, mark))

    async def _tell(self, run: Run) -> None:
        """Tells the volume what it does not know yet."""
        if not run.unsaved:
            return
        if run.record.status.is_over:
            if run.refused:
                with contextlib.suppress(JobGone):
                    await self._save(run)
                await self._drop(run)
        elif run.has_begun:
            try:
                await self._save(run)
            except JobGone:
                # Cleaned up, or taken for lost: ComfyUI need not go on with it.
                self.cancel(run)


def _heard(task: asyncio.Task[None]) -> None:
    """Takes note of a failure, so that asyncio does not report it as one that nobody saw."""
    if not task.cancelled():
        task.exception()
