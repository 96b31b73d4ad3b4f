"""The course of one job through ComfyUI: submitted, followed, submitted again where ComfyUI lost it, or withdrawn."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from morpheus_boot.jobs.comfyui import (
    ComfyUIClient,
    ComfyUIFails,
    ComfyUIGone,
    ComfyUISilent,
    Ending,
    Json,
    PromptRejected,
    QueuePlace,
    read_ending,
)
from morpheus_boot.jobs.files import list_outputs, write_output
from morpheus_boot.jobs.names import FileName, JobId
from morpheus_boot.jobs.record import JobRecord, Progress, Status, now
from morpheus_boot.volume.layout import Layout


@dataclass(frozen=True, slots=True)
class Times:
    """How long the runner waits, in seconds."""

    # A ComfyUI that starts behind a fill of many models is long in coming.
    until_comfyui_s: float = 3600.0
    # The longest job that anybody runs, a film on a small GPU; RunPod's own limit comes through its queue.
    job_s: float = 6 * 3600.0
    # Between two looks at ComfyUI's history while its socket says nothing.
    look_s: float = 2.0
    # A node that does not listen to an interruption: so long is waited for it.
    withdrawal_s: float = 10.0
    retry_s: float = 0.25
    # Between two looks at what the volume says, and between two words to it about progress.
    tick_s: float = 1.0
    # What ComfyUI dies of each time that it takes it is not given to it for ever.
    submissions: int = 3
    # A worker beats each 15 s; one whose beat stands still for so long has lost its jobs.
    silence_s: float = 60.0


class Run:
    """What the worker knows of a job until it is over; ``record`` is what the volume is told, at its time."""

    def __init__(self, job: JobId, record: JobRecord) -> None:
        self.job = job
        self.record = record
        # Set where something happened that whoever follows the prompt must look at.
        self.news = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.over = asyncio.Event()
        # ComfyUI has said that the prompt ended: its history has it now, or in a moment.
        self.ended = False
        self.saving = asyncio.Lock()
        # The volume does not know all of the record yet, and whether it has refused to.
        self.unsaved = False
        self.refused = False
        # Whether it is past waiting for its turn.
        self.taken = False
        self._begun_at: float | None = None
        self._done: set[str] = set()

    @property
    def has_begun(self) -> bool:
        """Whether ComfyUI has begun with it."""
        return self.record.status is Status.RUNNING

    @property
    def runs_for_s(self) -> float:
        """For how long this process has seen it run."""
        return 0.0 if self._begun_at is None else time.monotonic() - self._begun_at

    def change(self, **changes: object) -> None:
        """Changes the record; the volume is told at its time."""
        self.record = self.record.model_copy(update=changes)
        self.unsaved = True

    def end(self, status: Status, **changes: object) -> None:
        """It is over; a job that is done has done all of its nodes, of which ComfyUI does not name the last."""
        if status is Status.DONE:
            nodes = len(self.record.graph)
            changes["progress"] = Progress(nodes_done=nodes, nodes=nodes)
        self.change(status=status, ended_at=now(), **changes)

    def begin(self) -> None:
        """ComfyUI has begun with it."""
        if self._begun_at is None:
            self._begun_at = time.monotonic()
        if not self.has_begun:
            self.change(status=Status.RUNNING, started_at=now(), progress=self._progress())
            self.news.set()

    def hear(self, kind: str, data: Json) -> None:
        """Takes a message of ComfyUI's about this prompt; one that comes after the history said all is too late."""
        if self.record.status.is_over:
            return
        if kind == "execution_start":
            self.begin()
        elif kind == "execution_cached":
            nodes = data.get("nodes")
            self._done.update(map(str, nodes if isinstance(nodes, list) else ()))
        elif kind == "executing" and data.get("node") is not None:
            self._enter(str(data["node"]))
        elif kind == "progress":
            self._step(data)
        elif kind in {"execution_success", "execution_error", "execution_interrupted"} or (
            kind == "executing"
        ):
            self.ended = True
            self.news.set()

    def _enter(self, node: str) -> None:
        self.begin()
        before = self.record.progress
        if before is not None and before.node is not None:
            self._done.add(before.node)
        self.change(progress=self._progress(node=node, class_type=self._class_of(node)))

    def _step(self, data: Json) -> None:
        before = self.record.progress or self._progress()
        node = data.get("node")
        if node is not None and before.node != str(node):
            # What said that it was entered came before the socket was connected.
            self._enter(str(node))
            before = self.record.progress or before
        value, maximum = data.get("value"), data.get("max")
        if isinstance(value, int | float) and isinstance(maximum, int | float):
            steps = {"step": int(value), "steps": int(maximum)}
            self.change(progress=before.model_copy(update=steps))

    def _progress(self, **more: str | None) -> Progress:
        nodes = len(self.record.graph)
        return Progress(nodes_done=min(len(self._done), nodes), nodes=nodes, **more)

    def _class_of(self, node: str) -> str | None:
        # A node that another one expanded into has an id of its own.
        found = self.record.graph.get(node)
        return str(found["class_type"]) if found else None


@dataclass
class Following:
    """Brings one run to its ending.

    ``save`` tells the volume how it stands; ``has_made`` says whether there is a file of it.
    """

    _run: Run
    _comfyui: ComfyUIClient
    _times: Times
    _save: Callable[[], Awaitable[None]]
    _has_made: Callable[[], Awaitable[bool]]
    _sends: bool = False

    async def ending(self) -> Ending:
        """How it ended: by itself, cancelled, or given up after its time. Raises as ``save`` and ``has_made`` do."""
        course = asyncio.create_task(self._to_its_end())
        cancelled = asyncio.create_task(self._run.cancelled.wait())
        try:
            await asyncio.wait({course, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cancelled.cancel()
            course.cancel()
            await asyncio.wait({course, cancelled})
        if course.cancelled():
            await self._withdraw()
            return Ending(Status.CANCELLED)
        if course.exception() is not None:
            # Not this worker's job any more, or a bug: in either case ComfyUI need not go on with it.
            await self._withdraw()
        return course.result()

    async def _to_its_end(self) -> Ending:
        run = self._run
        while True:
            if run.record.prompt_id is None:
                if run.record.submissions >= self._times.submissions:
                    return Ending(
                        Status.FAILED,
                        f"ComfyUI ended {run.record.submissions} times before it began with it",
                    )
                try:
                    await self._submit()
                except PromptRejected as error:
                    return Ending(Status.FAILED, error.cause, error.node_errors)
                except TimeoutError:
                    waited_s = self._times.until_comfyui_s
                    return Ending(
                        Status.FAILED, f"ComfyUI has not answered within {waited_s:.0f} s"
                    )
            ending = await self._follow()
            if ending is not None:
                return ending
            # It may have begun unseen, and run again would make its files twice.
            if run.has_begun or await self._has_made():
                return Ending(Status.FAILED, "ComfyUI ended while it ran this job")
            run.change(prompt_id=None)

    async def _submit(self) -> None:
        """Returns once ComfyUI has the prompt. Raises PromptRejected, TimeoutError."""
        run, prompt_id, failures = self._run, str(uuid.uuid4()), 0
        run.ended = False
        # Written before it is sent: who comes after us finds the prompt by its id.
        run.change(prompt_id=prompt_id, submissions=run.record.submissions + 1)
        await self._save()
        async with asyncio.timeout(self._times.until_comfyui_s):
            while True:
                try:
                    self._sends = True
                    accepted = await self._comfyui.submit(run.record.graph, prompt_id, run.job)
                    self._sends = False
                except ComfyUIGone:
                    await asyncio.sleep(self._times.retry_s)
                except ComfyUISilent as error:
                    # It may have taken the prompt all the same.
                    await asyncio.sleep(self._times.retry_s)
                    if await self._is_there(prompt_id):
                        return
                    # What it fails at each time must not keep the others waiting.
                    failures += isinstance(error, ComfyUIFails)
                    if failures == self._times.submissions:
                        raise PromptRejected(error.cause, {}) from error
                else:
                    break
        if accepted.prompt_id != prompt_id or accepted.node_errors:
            run.change(prompt_id=accepted.prompt_id, node_errors=accepted.node_errors or None)
            await self._save()

    async def _is_there(self, prompt_id: str) -> bool:
        try:
            return (
                await self._comfyui.place(prompt_id) is not None
                or await self._comfyui.history(prompt_id) is not None
            )
        except (ComfyUIGone, ComfyUISilent):
            return False

    async def _follow(self) -> Ending | None:
        """The prompt's ending; None where ComfyUI does not know the prompt any more."""
        run, quiet = self._run, False
        while True:
            try:
                entry = await self._look(quiet=quiet)
            except (ComfyUIGone, _Lost):
                return None
            except ComfyUISilent:
                entry = None
            if entry is not None:
                return read_ending(entry, run.job)
            if run.has_begun:
                if run.runs_for_s > self._times.job_s:
                    await self._withdraw()
                    limit_s = self._times.job_s
                    return Ending(Status.FAILED, f"it has not ended within {limit_s:.0f} s")
                if run.unsaved:
                    await self._save()
            quiet = not await self._has_news()

    async def _look(self, *, quiet: bool) -> Json | None:
        """ComfyUI's history of the prompt; where it is ``quiet``, whether ComfyUI has the prompt at all is asked too.

        Raises _Lost, ComfyUIGone, ComfyUISilent.
        """
        prompt_id = str(self._run.record.prompt_id)
        entry = await self._comfyui.history(prompt_id)
        if entry is not None or not quiet:
            return entry
        place = await self._comfyui.place(prompt_id)
        if place is QueuePlace.RUNNING:
            self._run.begin()
        elif place is None:
            # It may have ended between the two looks.
            entry = await self._comfyui.history(prompt_id)
            if entry is None:
                raise _Lost
        return entry

    async def _has_news(self) -> bool:
        """Waits for news; False where none came in time for the next look."""
        run = self._run
        try:
            async with asyncio.timeout(self._times.retry_s if run.ended else self._times.look_s):
                await run.news.wait()
        except TimeoutError:
            return False
        run.news.clear()
        return True

    async def _withdraw(self) -> None:
        """Returns once ComfyUI has let go of the prompt, or was waited for long enough."""
        prompt_id = self._run.record.prompt_id
        if prompt_id is None:
            return
        with contextlib.suppress(TimeoutError, ComfyUIGone):
            async with asyncio.timeout(self._times.withdrawal_s):
                if self._sends:
                    # ComfyUI may be about to queue what was sent and not answered yet.
                    await asyncio.sleep(self._times.retry_s)
                while True:
                    with contextlib.suppress(ComfyUISilent):
                        await self._comfyui.withdraw(prompt_id)
                        if await self._comfyui.place(prompt_id) is None:
                            return
                    await asyncio.sleep(self._times.retry_s)


class _Lost(Exception):
    """ComfyUI does not know the prompt: it was started anew since."""


def has_made(layout: Layout, job: JobId, since_ns: int) -> bool:
    """Whether the job has made a file since then, so that it has begun, whoever saw it. Raises StorageFailed."""
    return any(output.mtime_ns >= since_ns for output in list_outputs(layout, job))


def files_made(layout: Layout, job: JobId, since_ns: int, ending: Ending) -> tuple[str, ...]:
    """The files that the job made: those that nodes named, their texts as files, then what else is new, by name.

    Raises VolumeFull, StorageFailed.
    """
    written = []
    for node, text in ending.texts:
        name = FileName.from_client(f"text_{node}.txt")
        write_output(layout, job, name, text.encode())
        written.append(name.text)
    there = {str(output.path): output.mtime_ns for output in list_outputs(layout, job)}
    known = (path for path in (*ending.named, *written) if path in there)
    new = (path for path, mtime_ns in there.items() if mtime_ns >= since_ns)
    return tuple(dict.fromkeys((*known, *new)))
