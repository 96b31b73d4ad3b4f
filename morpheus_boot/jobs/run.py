"""One submission of a job while its worker has it in hand."""

import asyncio
import time
from typing import Any

from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import JobRecord, Progress, Status, now

Json = dict[str, Any]


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
