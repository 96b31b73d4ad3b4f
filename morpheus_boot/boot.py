"""One boot, told once: from models.yaml to a ComfyUI that is ready, and then its supervision."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final, TextIO

from morpheus_boot import __version__
from morpheus_boot.cache import CachedModel, FillContext, Heart, Plan, fill, hash_pending, preload
from morpheus_boot.cache.reports import outcome_of, planned
from morpheus_boot.comfyui.find import ComfyUI, find_comfyui
from morpheus_boot.comfyui.launch import Launch
from morpheus_boot.comfyui.listing import Unlisted
from morpheus_boot.config.settings import REPOSITORY, Invocation, Settings, worker_file
from morpheus_boot.deployment import (
    Deployment,
    announce,
    fill_optional,
    keep_our_environment,
    make_volume_folder,
    read_deployment,
)
from morpheus_boot.errors import Exit, MorpheusError, NotSetUp, each_of, local_error
from morpheus_boot.jobs.workflows import copy_workflows
from morpheus_boot.queue import QUEUE, prepare_queue, read_sdk_line, warn_of_long_fill
from morpheus_boot.report.log import parse_json_line
from morpheus_boot.report.progress import Progress
from morpheus_boot.report.state import (
    BootState,
    Readiness,
    ServiceState,
    StateBoard,
    VolumeState,
    state_file,
    utc_now,
)
from morpheus_boot.services.policy import Hold, RestartPolicy
from morpheus_boot.services.ports import require_free
from morpheus_boot.services.process import ServiceSpec
from morpheus_boot.services.services import (
    COMFYUI,
    FILE_SERVER,
    file_server,
    log_line,
    wait_until_it_listens,
)
from morpheus_boot.services.supervisor import Supervisor
from morpheus_boot.volume.flock import try_flock
from morpheus_boot.volume.mount import Volume
from morpheus_boot.work.background import begin
from morpheus_boot.work.stopping import Stopped

_LOG: Final = logging.getLogger("morpheus.boot")
# The file server and RunPod's SDK log in JSON.
_READERS: Final = {FILE_SERVER: parse_json_line, QUEUE: read_sdk_line}
_FILE_SERVER_DEADLINE_S: Final = 120.0


class Boot:
    """One boot of this container. ``up()`` tells it from the top."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._settings = invocation.settings
        self._began = time.monotonic()
        # Held until the process ends, and taken before the state document, which may be another boot's.
        self._lock = _take_local_folder(self._settings)
        self._board = _open_board(invocation)
        self._heart: Heart | None = None
        self._progress = Progress(self._board.put_model)
        self._launch: Launch | None = None
        # Held by whoever looks at what runs and sets the readiness by it: nothing may come between the two.
        self._turning = threading.Lock()
        self._supervisor = Supervisor(
            on_line=self._on_line, on_service=self._on_service, restarts=RestartPolicy()
        )

    def up(self) -> None:
        """The whole boot, then supervision until SIGTERM or SIGINT.

        Raises MorpheusError, after everything was stopped and MORPHEUS_HOLD_S is over.
        """
        _LOG.info("morpheus boot %s, worker %s", __version__, self._settings.worker)
        self._supervise(self._tell)

    def files(self) -> None:
        """The file server alone, until SIGTERM or SIGINT: a CPU Pod as the gateway to the volume."""
        _LOG.info("morpheus boot %s, file server alone", __version__)
        self._supervise(self._tell_files)

    def give_up(self, error: MorpheusError) -> None:
        """Raises ``error`` as up() and files() raise theirs."""

        def story() -> None:
            raise error

        self._supervise(story)

    def _tell(self) -> None:
        phase = self._phase
        with phase("read models.yaml and find the volume"):
            deployment = read_deployment(self._invocation)
            comfyui = find_comfyui(self._settings.comfyui_dir, self._settings.comfyui_python)
            require_free(self._settings.comfyui_port, "ComfyUI", "COMFYUI_PORT")
            launch = Launch(deployment, comfyui, self._supervisor)
            self._launch = launch
        self._start_file_server(deployment.volume, runs_jobs=True)
        nodes = begin(launch.bring_nodes, "custom nodes")
        with phase("plan"):
            self._heart = announce(deployment)
            plan = self._plan(deployment)
        with phase("fill"):
            cached = fill(plan, self._context(deployment))
        with phase("custom nodes"):
            nodes.result()
        with phase("link"):
            launch.link(cached)
        with phase("start ComfyUI"):
            packages = begin(launch.provide_nodes, "packages")
            launch.start()
            queue = self._prepare_queue(deployment, comfyui)
            self._preload(cached)
            packages.result()
            self._wait_until_it_answers(launch, cached)
        if queue is not None:
            with phase("start the queue handler"):
                self._supervisor.start(queue.result())
        while not self._become_ready(launch):
            self._wait_until_it_answers(launch, cached)
        _LOG.info("ready after %.1f s", time.monotonic() - self._began)
        self._in_background(lambda: self._finish(cached, launch, deployment))
        self._keep_ready(launch, cached)

    def _tell_files(self) -> None:
        with self._board.phase("read models.yaml and find the volume"):
            deployment = read_deployment(self._invocation)
        self._start_file_server(deployment.volume, runs_jobs=False)
        self._wait_for_file_server()
        with self._turning:
            self._supervisor.raise_if_stopping()
            self._board.set_readiness(Readiness.READY)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self._supervisor.raise_if_stopping()
        with self._board.phase(name):
            yield

    def _start_file_server(self, volume: Volume, *, runs_jobs: bool) -> None:
        make_volume_folder(volume)
        self._board.set_volume(VolumeState(str(volume.root), volume.size_bytes))
        require_free(self._settings.fileserver_port, "the file server", "FILESERVER_PORT")
        if self._settings.morpheus_token is None:
            _LOG.warning("MORPHEUS_TOKEN is not set: whoever reaches the ports may use them")
        self._supervisor.start(file_server(self._settings, volume.root, runs_jobs=runs_jobs))
        copy_workflows(REPOSITORY / "workflows", volume.layout)

    def _plan(self, deployment: Deployment) -> Plan:
        """The plan for the models that the boot waits for."""
        plan = deployment.plan()
        self._board.put_models(map(planned, plan.steps))
        _LOG.info("%d models, %d need work", len(plan.steps), len(plan.work))
        required = Plan(tuple(s for s in plan.steps if s.model.required))
        if self._settings.runpod.endpoint_id is not None:
            warn_of_long_fill(required.steps, self._settings.runpod.init_timeout_s)
        return required

    def _context(self, deployment: Deployment) -> FillContext:
        return deployment.context(self._supervisor.stopping, self._progress)

    def _prepare_queue(
        self, deployment: Deployment, comfyui: ComfyUI
    ) -> Future[ServiceSpec] | None:
        """Begins to make RunPod's queue handler ready, where this is a worker of a queue endpoint."""
        settings, stopping = self._settings, self._supervisor.stopping
        if settings.runpod.queue_url is None:
            return None
        archive_lock = deployment.archive_lock(stopping)
        return begin(
            lambda: prepare_queue(
                settings, deployment.layout, comfyui, archive_lock=archive_lock, stopping=stopping
            ),
            "queue",
        )

    def _preload(self, cached: Iterable[CachedModel]) -> None:
        files = [c.file for c in cached if c.model.preload]
        self._in_background(lambda: preload(files, self._supervisor.stopping))

    def _wait_until_it_answers(self, launch: Launch, cached: tuple[CachedModel, ...]) -> None:
        self._name_unlisted(launch.wait_until_ready(cached))
        self._wait_for_file_server()

    def _name_unlisted(self, unlisted: Iterable[Unlisted]) -> None:
        """Shows in the state what ComfyUI does not list, beside the models themselves."""
        reasons = {u.name: u.reason for u in unlisted}
        self._board.put_models(
            replace(model, detail=reasons[model.path])
            for model in self._board.state.models
            if model.path in reasons
        )

    def _wait_for_file_server(self) -> None:
        stopping = self._supervisor.stopping
        port = self._settings.fileserver_port
        wait_until_it_listens(FILE_SERVER, port, _FILE_SERVER_DEADLINE_S, stopping)
        self._supervisor.raise_if_stopping()

    def _become_ready(self, launch: Launch) -> bool:
        """Says so, unless ComfyUI has ended or started since it was looked at. Raises Stopped."""
        with self._turning:
            self._supervisor.raise_if_stopping()
            if launch.changed.is_set():
                return False
            self._board.set_readiness(Readiness.READY)
        return True

    def _keep_ready(self, launch: Launch, cached: tuple[CachedModel, ...]) -> None:
        """Each time that ComfyUI has ended, waits until it is ready again."""
        while True:
            launch.changed.wait()
            self._wait_until_it_answers(launch, cached)
            if self._become_ready(launch):
                _LOG.info("ready again")

    def _finish(
        self, cached: tuple[CachedModel, ...], launch: Launch, deployment: Deployment
    ) -> None:
        """What the boot did not wait for: optional models, digests not yet known, our packages on the volume."""
        there = self._fill_optional(launch, deployment)
        hash_pending((*cached, *there), self._context(deployment))
        keep_our_environment(deployment, self._supervisor.stopping)

    def _fill_optional(self, launch: Launch, deployment: Deployment) -> tuple[CachedModel, ...]:
        """The models that the boot did not wait for; their failure stops nothing."""
        there: tuple[CachedModel, ...] = ()
        for outcome in fill_optional(deployment, self._context(deployment)):
            try:
                if isinstance(outcome, MorpheusError):
                    raise outcome
                launch.link((outcome,))
                # It may be another worker that brought it in.
                self._board.put_model(outcome_of(outcome.model, outcome))
            except (MorpheusError, OSError) as error:
                _LOG.warning("not required, left out: %s", error)
            else:
                there += (outcome,)
        return there

    def _in_background(self, work: Callable[[], None]) -> None:
        def until_stopped() -> None:
            with suppress(Stopped):
                work()

        threading.Thread(target=until_stopped, name="background", daemon=True).start()

    def _supervise(self, story: Callable[[], None]) -> None:
        hold = Hold(self._settings.hold_s, file_server(self._settings, None, runs_jobs=False))
        try:
            self._supervisor.run(
                story, hold=hold if hold.seconds else None, on_failure=self._on_failure
            )
        finally:
            if self._heart is not None:
                self._heart.end()
        self._board.set_readiness(Readiness.STOPPED)
        _LOG.info("stopped in order")

    def _on_line(self, service: str, line: str) -> None:
        log_line(_READERS, service, line)
        if service == COMFYUI and self._launch is not None:
            self._launch.heard(line)

    def _on_service(self, service: ServiceState) -> None:
        self._board.put_service(service)
        if service.name != COMFYUI or self._launch is None:
            return
        with self._turning:
            self._launch.turned(service.stage)
            if self._board.state.readiness is Readiness.READY:
                self._board.set_readiness(Readiness.STARTING)

    def _on_failure(self, error: BaseException) -> None:
        said: tuple[BaseException, ...] = (error,)
        code = Exit.BUG
        if isinstance(error, MorpheusError):
            said, code = each_of(error), error.exit_code
        with self._turning:
            self._board.set_readiness(Readiness.FAILED, error=str(error), exit_code=code)
        if self._settings.hold_s:
            for one in said:
                _LOG.error("giving up in %.0f s: %s", self._settings.hold_s, one)


def hold_error(invocation: Invocation, error: MorpheusError) -> None:
    """Holds an ``error`` that came before there was anything to boot, for MORPHEUS_HOLD_S, and raises it.

    Returns at once where this can't be: another boot may run here.
    """
    try:
        boot = Boot(invocation)
    except MorpheusError:
        return
    boot.give_up(error)


def _take_local_folder(settings: Settings) -> TextIO:
    """Makes the local folder and locks it against other boots for as long as the returned file is open.

    Two would share the state document, our nodes and what ComfyUI is told of both. The worker's id is kept there.

    Raises:
        NotSetUp: another boot has it; names that process.
        StorageFailed: it can't be written.
    """
    folder = settings.local_dir
    path = folder / "boot.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
        if not try_flock(file.fileno()):
            file.seek(0)
            pid = file.read()
            file.close()
            raise NotSetUp(
                "boot",
                f"process {pid or 'unknown'} boots and serves with {folder} already",
                "stop that one, or set MORPHEUS_LOCAL_DIR and both ports to others for this one",
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        worker_file(folder).write_text(settings.worker)
    except OSError as error:
        raise local_error("boot", path, error) from error
    return file


def _open_board(invocation: Invocation) -> StateBoard:
    settings = invocation.settings
    state = BootState(
        __version__, settings.worker, settings.endpoint, pid=os.getpid(), started_at=utc_now()
    )
    return StateBoard(state_file(settings.local_dir), state, invocation.redact)
