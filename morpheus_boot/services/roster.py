"""The services that run now. Used by the main thread alone; others only read the last lines."""

import logging
from collections.abc import Callable
from typing import Final

from morpheus_boot.report.state import ServiceStage, ServiceState
from morpheus_boot.services.events import Exited
from morpheus_boot.services.output import Output
from morpheus_boot.services.process import Process, ServiceSpec, ending_text

_LOG: Final = logging.getLogger("morpheus.run")


class Roster:
    """Starts and stops services, and says what became of them."""

    def __init__(
        self,
        on_line: Callable[[str, str], None],
        on_service: Callable[[ServiceState], None],
        grace_s: float,
    ) -> None:
        self._on_line = on_line
        self._on_service = on_service
        self._grace_s = grace_s
        self._processes: dict[str, Process] = {}
        self._outputs: dict[str, Output] = {}
        self._specs: dict[str, ServiceSpec] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Every service of which something is left, in the order of their first starts."""
        return tuple(name for name in self._specs if name in self._processes)

    @property
    def pids(self) -> tuple[int, ...]:
        """The first processes of these services."""
        return tuple(process.pid for process in self._processes.values())

    @property
    def is_stopping(self) -> bool:
        """Whether something is on its way out."""
        return any(process.stop_requested for process in self._processes.values())

    def last_lines(self, name: str) -> tuple[str, ...]:
        """The last lines that a service printed, also after its end; safe from any thread."""
        output = self._outputs.get(name)
        return output.last_lines if output else ()

    def start(self, spec: ServiceSpec) -> None:
        """Starts a service. Raises ServiceFailed, and ValueError where one of its name is still there."""
        if spec.name in self._processes:
            raise ValueError(f"{spec.name} is running already")
        process = Process(spec, lambda line: self._on_line(spec.name, line))
        self._processes[spec.name] = process
        self._specs[spec.name] = spec
        self._outputs[spec.name] = process.output
        _LOG.info("%s started, pid %d", spec.name, process.pid)
        self._say(process, ServiceStage.RUNNING, "")

    def start_again(self, name: str) -> None:
        """Starts a service that is gone as it was started before. Raises ServiceFailed."""
        self.start(self._specs[name])

    def stop(self, name: str, kill_at: float) -> None:
        """Asks a service to stop until ``kill_at`` of the monotonic clock."""
        self._processes[name].request_stop(kill_at)

    def take_exits(self, now: float) -> tuple[Exited, ...]:
        """The services whose first process has ended since the last call; what they left behind is stopped."""
        exits = []
        for name, process in self._processes.items():
            code = process.take_exit_code()
            if code is None:
                continue
            lived_s = now - process.started_at
            exits.append(Exited(name, code, process.output.last_lines, lived_s))
            _LOG.info("%s ended: %s", name, ending_text(code))
            self._say(process, ServiceStage.ENDED, ending_text(code))
            process.request_stop(now + self._grace_s)
        return tuple(exits)

    def tend(self, now: float) -> None:
        """Kills what has had its grace, and forgets what is gone."""
        for name, process in tuple(self._processes.items()):
            if process.kill_if_due(now):
                _LOG.warning("%s did not stop in time: killed", name)
            if process.is_gone():
                del self._processes[name]
            elif process.is_stuck(now):
                del self._processes[name]
                self._leave_behind(process)

    def end_all(self) -> None:
        """KILL to every group, at once and without a word: where the supervisor itself has failed."""
        for process in self._processes.values():
            process.end()

    def _leave_behind(self, process: Process) -> None:
        cause = f"pid {process.pid} does not end, not even by SIGKILL: it hangs in the kernel"
        _LOG.warning("%s: %s", process.spec.name, cause)
        self._say(process, ServiceStage.RUNNING, cause)

    def _say(self, process: Process, stage: ServiceStage, detail: str) -> None:
        spec = process.spec
        self._on_service(ServiceState(spec.name, stage, spec.port, process.pid, detail))
