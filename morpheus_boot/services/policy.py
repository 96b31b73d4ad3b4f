"""What a supervisor does next: events in, decisions out, and nothing here that acts."""

import math
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from morpheus_boot.errors import ServiceFailed
from morpheus_boot.services.output import quote_lines
from morpheus_boot.services.process import ServiceSpec, ending_text
from morpheus_boot.work.backoff import Backoff
from morpheus_boot.work.stopping import STOP_SIGNALS

# What torch says as the last of a traceback, and what that means.
_NO_DRIVER: Final = "Found no NVIDIA driver"
_MEND: Final = "read its lines in the log, mend what they say, and start again"
_MEND_KILLED: Final = "look whether its memory ran out, and at its lines in the log"


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal came."""

    signum: int


@dataclass(frozen=True, slots=True)
class StoryEnded:
    """The story returned (``error`` None) or raised."""

    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Exited:
    """A service's first process is gone, after ``lived_s``. ``code`` is negative for a signal."""

    service: str
    code: int
    lines: tuple[str, ...] = ()
    lived_s: float = 0.0


Event = Signalled | StoryEnded | Exited


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """After a ``backoff``, until it has died ``most`` times in a row.

    A life of ``well_after_s`` ends a row. ``alike`` deaths in a row with one exit code and one last line are enough:
    a wrong argument or a broken installation says the same for ever, at length.
    """

    most: int = 5
    alike: int = 3
    well_after_s: float = 60.0
    backoff: Backoff = Backoff(first_s=0.5, most_s=8.0, jitter=0)

    def row(self, deaths: Sequence[Exited]) -> tuple[Exited, ...]:
        """Those of one service's ``deaths``, in their order, that still count."""
        well = [number for number, d in enumerate(deaths, 1) if d.lived_s >= self.well_after_s]
        return tuple(deaths[max(well, default=0) :])

    def backoff_s(self, row: Sequence[Exited]) -> float | None:
        """How long after the last death of a ``row`` to start again; None: it has died too often."""
        if len(row) >= self.most or self._is_hopeless(row[-self.alike :]):
            return None
        return self.backoff.wait_s(max(0, len(row) - 1))

    def _is_hopeless(self, last: Sequence[Exited]) -> bool:
        said = {(death.code, death.lines[-1:]) for death in last}
        # A signal's death has no last words of its own.
        ended_itself = all(death.code > 0 and death.lines for death in last)
        return len(last) == self.alike and len(said) == 1 and ended_itself


@dataclass(frozen=True, slots=True)
class Hold:
    """After giving up, ``service`` is kept (or started) for ``seconds``, so that the cause can be seen."""

    seconds: float
    service: ServiceSpec


class Stage(Enum):
    """Which services are to run: all that were started, the one of the hold, none."""

    UP = "up"
    HOLDING = "holding"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Run:
    """Where a run of services stands. Times are of the monotonic clock.

    ``deaths`` are those that count; ``due`` says from when on a service is to be started again. ``since`` is when
    services began to be stopped, ``until`` when the hold is over, or when what is still there is killed; ``told`` says
    that the story has ended; ``error`` is why the run gave up; ``signum`` the signal that ended it or its hold.
    """

    grace_s: float
    policy: RestartPolicy
    hold: Hold | None = None
    stage: Stage = Stage.UP
    deaths: tuple[Exited, ...] = ()
    due: Mapping[str, float] = field(default_factory=dict)
    since: float = math.inf
    until: float = math.inf
    told: bool = False
    error: BaseException | None = None
    signum: int | None = None

    def after(self, event: Event, now: float) -> "Run":
        """The run once ``event`` has happened."""
        after = self
        match self.stage, event:
            case Stage.UP | Stage.HOLDING, Signalled(signum) if signum in STOP_SIGNALS:
                after = replace(self.stopping(now), signum=signum)
            case Stage.UP, StoryEnded(None):
                after = replace(self, told=True)
            case Stage.UP, StoryEnded(BaseException() as error):
                after = self._giving_up(error, now)
            case Stage.UP, Exited() as ended:
                after = self._after_death(ended, now)
            case Stage.HOLDING, Exited(service) if self.keeps(service):
                after = self.stopping(now)
            case Stage.STOPPING, Signalled(signal.SIGINT) if self.signum == signal.SIGINT:
                # Ctrl-C twice: a person who does not want to wait.
                after = replace(self, since=-math.inf, until=now)
        return after

    def _after_death(self, ended: Exited, now: float) -> "Run":
        row = self.policy.row([*(d for d in self.deaths if d.service == ended.service), ended])
        backoff_s = self.policy.backoff_s(row)
        if backoff_s is None:
            return self._giving_up(_failure(ended), now)
        others = (d for d in self.deaths if d.service != ended.service)
        due = {**self.due, ended.service: now + backoff_s}
        return replace(self, deaths=(*others, *row), due=due)

    def started(self, service: str) -> "Run":
        """The run once a service that was due runs again."""
        return replace(self, due={name: at for name, at in self.due.items() if name != service})

    def at(self, now: float) -> "Run":
        """The run at this time: a hold may be over."""
        over = self.stage is Stage.HOLDING and now >= self.until
        return self.stopping(now) if over else self

    def stopping(self, now: float) -> "Run":
        """The run from now on to its end."""
        return replace(self, stage=Stage.STOPPING, due={}, since=now, until=now + self.grace_s)

    def _giving_up(self, error: BaseException, now: float) -> "Run":
        if self.hold is None:
            return replace(self.stopping(now), error=error)
        until = now + self.hold.seconds
        return replace(self, stage=Stage.HOLDING, due={}, since=now, until=until, error=error)

    @property
    def is_over(self) -> bool:
        """Whether the run ends once nothing is left running."""
        ended = self.stage is Stage.UP and self.told and not self.due
        return ended or self.stage is Stage.STOPPING

    def keeps(self, service: str) -> bool:
        """Whether a service of this name may go on."""
        if self.stage is Stage.HOLDING and self.hold is not None:
            return service == self.hold.service.name
        return self.stage is Stage.UP

    def leaving(self, services: Sequence[str], now: float) -> tuple[str, ...]:
        """Those of ``services``, in the order of their first start, that are to be told to stop by now.

        What was started last goes first, since it needs the others; the next follows when that is gone, or after
        a quarter of the grace, so that each has had its word long before the grace is over.
        """
        going = [service for service in services if not self.keeps(service)]
        waited = sum(now >= self.since + n * self.grace_s / 4 for n in range(1, len(going)))
        return tuple(going[-1 - waited :])


def _failure(ended: Exited) -> ServiceFailed:
    if any(_NO_DRIVER in line for line in ended.lines):
        return ServiceFailed(
            ended.service,
            f"it found no NVIDIA driver on this host ({ending_text(ended.code)})",
            "take a host with a GPU, or set COMFYUI_ARGS=--cpu",
        )
    cause = f"it ended by itself ({ending_text(ended.code)}); {quote_lines(ended.lines)}"
    mend = _MEND_KILLED if ended.code == -signal.SIGKILL else _MEND
    return ServiceFailed(ended.service, cause, mend)
