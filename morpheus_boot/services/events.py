"""What may happen while services are supervised: plain values, put into one queue by whoever sees them."""

from concurrent.futures import Future
from dataclasses import dataclass

from morpheus_boot.services.process import ServiceSpec


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


@dataclass(frozen=True, slots=True)
class StartRequested:
    """The story wants a service; ``done`` answers it."""

    spec: ServiceSpec
    done: Future[None]


Event = Signalled | StoryEnded | Exited | StartRequested
