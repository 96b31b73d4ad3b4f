"""What a run of services does next: events in, decisions out, and nothing here that acts."""

import math
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from morpheus_boot.errors import ServiceFailed
from morpheus_boot.services.events import Event, Exited, Signalled, StoryEnded
from morpheus_boot.services.output import quote_lines
from morpheus_boot.services.process import ServiceSpec, ending_text
from morpheus_boot.services.restarts import Convalescence, Due
from morpheus_boot.work.stopping import STOP_SIGNALS

_MENDS: Final = {
    -signal.SIGKILL: "look whether its memory ran out, and at its lines in the log",
}
_MEND: Final = "read its lines in the log, mend what they say, and start again"


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
class Course:
    """Where a run stands. Times are of the monotonic clock.

    ``recovery``: who is started again after a death. ``since`` is when services began to be stopped,
    ``until`` when the hold is over, or when what is still there is killed; ``told`` says that the story has ended;
    ``error`` is why the run gave up; ``signum`` the signal that ended it or its hold.
    """

    grace_s: float
    recovery: Convalescence
    hold: Hold | None = None
    stage: Stage = Stage.UP
    since: float = math.inf
    until: float = math.inf
    told: bool = False
    error: BaseException | None = None
    signum: int | None = None

    def after(self, event: Event, now: float) -> "Course":
        """The course once ``event`` has happened."""
        match self.stage:
            case Stage.UP:
                return self._after_when_up(event, now)
            case Stage.HOLDING:
                return self._after_when_holding(event, now)
            case Stage.STOPPING:
                twice = self.signum == signal.SIGINT and event == Signalled(signal.SIGINT)
                # Ctrl-C twice: a person who does not want to wait.
                return replace(self, since=-math.inf, until=now) if twice else self

    def _after_when_up(self, event: Event, now: float) -> "Course":
        match event:
            case Signalled(signum) if signum in STOP_SIGNALS:
                return replace(self._stopping(now), signum=signum)
            case StoryEnded(None):
                return replace(self, told=True)
            case StoryEnded(BaseException() as error):
                return self._giving_up(error, now)
            case Exited() as ended:
                return self._after_death(ended, now)
            case _:
                return self

    def _after_death(self, ended: Exited, now: float) -> "Course":
        recovery = self.recovery.after_death(ended, now)
        if recovery is None:
            return self._giving_up(_failure(ended), now)
        return replace(self, recovery=recovery)

    def _after_when_holding(self, event: Event, now: float) -> "Course":
        match event:
            case Signalled(signum) if signum in STOP_SIGNALS:
                return replace(self._stopping(now), signum=signum)
            case Exited(service) if self.keeps(service):
                return self._stopping(now)
            case _:
                return self

    def at(self, now: float) -> "Course":
        """The course at this time: a hold may be over."""
        if self.stage is Stage.HOLDING and now >= self.until:
            return self._stopping(now)
        return self

    @property
    def due(self) -> tuple[Due, ...]:
        """The services to be started again."""
        return self.recovery.due if self.stage is Stage.UP else ()

    def started(self, service: str) -> "Course":
        """The course once a service that was due runs again."""
        return replace(self, recovery=self.recovery.without(service))

    def without_hold(self, now: float) -> "Course":
        """The course where the service of the hold can't be started."""
        return self._stopping(now)

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

    def _giving_up(self, error: BaseException, now: float) -> "Course":
        if self.hold is None:
            return replace(self._stopping(now), error=error)
        until = now + self.hold.seconds
        return replace(self, stage=Stage.HOLDING, since=now, until=until, error=error)

    def _stopping(self, now: float) -> "Course":
        return replace(self, stage=Stage.STOPPING, since=now, until=now + self.grace_s)


def _failure(ended: Exited) -> ServiceFailed:
    cause = f"it ended by itself ({ending_text(ended.code)}); {quote_lines(ended.lines)}"
    return ServiceFailed(ended.service, cause, _MENDS.get(ended.code, _MEND))
