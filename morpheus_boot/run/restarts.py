"""When a service that died is started again: a pure decision over its deaths."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Restarts:
    """After a backoff from ``first_s`` to ``longest_s``, until it has died ``most`` times within ``within_s``."""

    most: int = 5
    within_s: float = 60.0
    first_s: float = 0.5
    longest_s: float = 8.0


@dataclass(frozen=True, slots=True)
class Death:
    """A service ended by itself at that time of the monotonic clock."""

    service: str
    at: float


@dataclass(frozen=True, slots=True)
class Due:
    """A service is to be started again from that time of the monotonic clock on."""

    service: str
    at: float


@dataclass(frozen=True, slots=True)
class Convalescence:
    """The deaths that still count, and who is due to be started again."""

    rule: Restarts
    deaths: tuple[Death, ...] = ()
    due: tuple[Due, ...] = ()

    def after_death(self, service: str, now: float) -> "Convalescence | None":
        """With the service due again, or None where it has died too often."""
        counted = tuple(d for d in self.deaths if now - d.at < self.rule.within_s)
        before = sum(d.service == service for d in counted)
        if before + 1 >= self.rule.most:
            return None
        backoff_s = min(self.rule.longest_s, self.rule.first_s * 2**before)
        return replace(
            self,
            deaths=(*counted, Death(service, now)),
            due=(*self.due, Due(service, now + backoff_s)),
        )

    def without(self, service: str) -> "Convalescence":
        """With the service due no more: it was started."""
        return replace(self, due=tuple(d for d in self.due if d.service != service))
