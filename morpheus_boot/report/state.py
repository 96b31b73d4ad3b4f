"""The boot's state document: one JSON file on local disk, which everything that shows the boot renders.

It lies on local disk because who reads it (``/ping``, the page) must answer while the volume hangs.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from morpheus_boot.config.redact import Redactor
from morpheus_boot.volume.documents import from_document, to_document
from morpheus_boot.volume.publish import write_whole

_LOG: Final = logging.getLogger("morpheus.boot")
# Progress alone need not be written more often; what changes a state is written at once.
_PROGRESS_INTERVAL_S = 0.5

_T = TypeVar("_T")


class Readiness(StrEnum):
    """What ``/ping`` answers from: 204, 200, 503."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


class ModelStage(StrEnum):
    """Where a model stands in this boot."""

    MISSING = "missing"
    WAITING = "waiting"
    FETCHING = "fetching"
    PRESENT = "present"
    FAILED = "failed"


class ServiceStage(StrEnum):
    """Where a service of this container stands."""

    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of the boot; ``seconds`` is None while it runs."""

    name: str
    started_at: str
    seconds: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model: ``done_bytes`` of ``size_bytes`` (None: not known yet), and why it stands where it does.

    While it is fetched: its rate over the last seconds, the seconds left at that rate (None: not known), how often a
    connection failed and was tried again, and as ``detail`` what the last one failed of.
    """

    path: str
    stage: ModelStage
    done_bytes: int = 0
    size_bytes: int | None = None
    required: bool = True
    detail: str = ""
    rate_bytes_per_s: float = 0.0
    left_s: float | None = None
    retries: int = 0


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service of this container."""

    name: str
    stage: ServiceStage
    port: int | None
    pid: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class VolumeState:
    """The volume as this boot found it; ``size_bytes`` is what was bought."""

    path: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class BootState:
    """Everything that ``status``, ``/status``, ``/ping`` and the page say about this boot."""

    version: str
    worker: str
    endpoint: str
    pid: int
    started_at: str
    readiness: Readiness = Readiness.STARTING
    error: str = ""
    exit_code: int | None = None
    phases: tuple[Phase, ...] = ()
    models: tuple[ModelState, ...] = ()
    services: tuple[ServiceState, ...] = ()
    volume: VolumeState | None = None


def utc_now() -> str:
    """The wall time as records and logs show it: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def state_file(local_dir: Path) -> Path:
    """Where the state document of this container lies."""
    return local_dir / "state.json"


def read_state(path: Path) -> BootState | None:
    """The state document at ``path``; None where there is none, or one of another version."""
    try:
        return from_document(BootState, path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


class StateBoard:
    """Holds the state and writes the document at every change, where it can; safe from any thread."""

    def __init__(self, path: Path | None, state: BootState, redact: Redactor) -> None:
        """``path`` None: the state is kept, and nothing is written (commands other than the boot)."""
        self._path = path
        self._state = state
        self._redact = redact
        self._lock = threading.Lock()
        self._written_at = 0.0
        self._is_old = False
        self._change(lambda s: s)

    @property
    def state(self) -> BootState:
        """The state now."""
        return self._state

    def set_volume(self, volume: VolumeState) -> None:
        """Says which volume this boot uses."""
        self._change(lambda s: replace(s, volume=volume))

    def set_readiness(
        self, readiness: Readiness, *, error: str = "", exit_code: int | None = None
    ) -> None:
        """Says that the boot is ready, failed (with ``error`` and ``exit_code``), or stopped."""
        error = self._redact(error)
        self._change(lambda s: replace(s, readiness=readiness, error=error, exit_code=exit_code))

    def put_model(self, model: ModelState) -> None:
        """Adds a model or replaces what stood under its path. Progress alone is written now and then."""
        before = next((m for m in self._state.models if m.path == model.path), None)
        self.put_models([model], at_once=before is None or before.stage != model.stage)

    def put_models(self, models: Iterable[ModelState], *, at_once: bool = True) -> None:
        """Adds these models, or replaces those under their paths: one document for all."""
        new = [replace(m, detail=self._redact(m.detail)) for m in models]
        self._change(
            lambda s: replace(s, models=_put(s.models, new, lambda m: m.path)), at_once=at_once
        )

    def put_service(self, service: ServiceState) -> None:
        """Adds a service or replaces what stood under its name."""
        new = [replace(service, detail=self._redact(service.detail))]
        self._change(lambda s: replace(s, services=_put(s.services, new, lambda x: x.name)))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times one step of the boot; a failure stands in its detail."""
        begin = time.monotonic()
        started = Phase(name, utc_now())
        self._put_phase(started)
        detail = ""
        try:
            yield
        except BaseException as error:
            detail = self._redact(str(error)) or type(error).__name__
            raise
        finally:
            seconds = round(time.monotonic() - begin, 3)
            self._put_phase(replace(started, seconds=seconds, detail=detail))

    def _put_phase(self, phase: Phase) -> None:
        self._change(lambda s: replace(s, phases=_put(s.phases, [phase], lambda p: p.name)))

    def _change(self, change: Callable[[BootState], BootState], *, at_once: bool = True) -> None:
        with self._lock:
            self._state = change(self._state)
            due = time.monotonic() - self._written_at >= _PROGRESS_INTERVAL_S
            if self._path is not None and (at_once or due):
                self._write(self._path)
                self._written_at = time.monotonic()

    def _write(self, path: Path) -> None:
        """A rendering must not end what it renders: where it fails, the next change is another try."""
        try:
            write_whole(path, to_document(self._state, indent=1), durable=False)
        except OSError as error:
            if not self._is_old:
                said = "%s can't be written (%s): until it can, /status and /ping say what was"
                _LOG.warning(said, path, error.strerror)
            self._is_old = True
        else:
            self._is_old = False


def _put(items: Iterable[_T], new: Iterable[_T], name: Callable[[_T], str]) -> tuple[_T, ...]:
    """``items`` and ``new``, which take the places of those of their names."""
    return tuple(({name(i): i for i in items} | {name(i): i for i in new}).values())
