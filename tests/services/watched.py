"""A supervisor whose lines and service states are kept, and the services that it is given."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from morpheus_boot.report.state import ServiceStage, ServiceState
from morpheus_boot.services.policy import RestartPolicy
from morpheus_boot.services.process import ServiceSpec
from morpheus_boot.services.supervisor import Supervisor
from tests.wait import wait_until

_CHILD = Path(__file__).parent / "child.py"
_BARE = ("-I", "-S", "-u")


class Watched:
    """A supervisor for which one death is too many, and what it said.

    Its ``on_...`` are called back by a service's name.
    """

    def __init__(self, grace_s: float = 10.0) -> None:
        self.lines: list[tuple[str, str]] = []
        self.states: list[ServiceState] = []
        self.on_line: dict[str, Callable[[], object]] = {}
        self.on_started: dict[str, Callable[[], object]] = {}
        self.on_ended: dict[str, Callable[[], object]] = {}
        self.supervisor = Supervisor(
            on_line=self.note_line,
            on_service=self.note,
            restarts=RestartPolicy(most=1),
            grace_s=grace_s,
        )

    def note_line(self, service: str, line: str) -> None:
        self.lines.append((service, line))
        self.on_line.get(service, lambda: None)()

    def note(self, state: ServiceState) -> None:
        self.states.append(state)
        calls = self.on_ended if state.stage is ServiceStage.ENDED else self.on_started
        calls.get(state.name, lambda: None)()

    def start(self, name: str, *how: str) -> int:
        """Starts child.py; returns its pid once it is ready."""
        self.supervisor.start(child(name, *how))
        self.wait_for(name, "ready")
        return self.states[-1].pid or 0

    def wait_for(self, service: str, line: str) -> None:
        wait_until(lambda: (service, line) in self.lines)

    def said(self, service: str) -> list[str]:
        return [line for name, line in self.lines if name == service]

    def stages(self, service: str) -> list[ServiceStage]:
        return [state.stage for state in self.states if state.name == service]

    def grandchild(self, service: str) -> int:
        [line] = [line for line in self.said(service) if line.startswith("grandchild ")]
        return int(line.split()[1])


def child(name: str, *how: str, port: int = 1) -> ServiceSpec:
    return program(name, str(_CHILD), *how, port=port)


def program(
    name: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path = Path("/"),
    port: int = 1,
) -> ServiceSpec:
    """A service that Python runs with nothing imported."""
    return ServiceSpec(name, (sys.executable, *_BARE, *arguments), env or {}, cwd, port)


def signal_us(signum: signal.Signals) -> None:
    """As from outside: to the process, not to a thread."""
    os.kill(os.getpid(), signum)


def signal_this_thread(signum: signal.Signals) -> None:
    """As the kernel may do with a signal for the process."""
    signal.pthread_kill(threading.get_ident(), signum)


def runs(pid: int) -> bool:
    """Whether this process is there and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
