"""When a service that died is started again: a pure decision over its deaths."""

from dataclasses import dataclass, replace

from morpheus_boot.services.events import Exited


@dataclass(frozen=True, slots=True)
class Restarts:
    """After a backoff from ``first_s`` to ``longest_s``, until it has died ``most`` times in a row.

    A life of ``well_after_s`` ends a row. ``alike`` deaths in a row with one exit code and one last line are enough:
    a wrong argument or a broken installation says the same for ever, at length.
    """

    most: int = 5
    alike: int = 3
    well_after_s: float = 60.0
    first_s: float = 0.5
    longest_s: float = 8.0


@dataclass(frozen=True, slots=True)
class Due:
    """A service is to be started again from that time of the monotonic clock on."""

    service: str
    at: float


@dataclass(frozen=True, slots=True)
class Convalescence:
    """The deaths that still count, and who is due to be started again."""

    rule: Restarts
    deaths: tuple[Exited, ...] = ()
    due: tuple[Due, ...] = ()

    def after_death(self, death: Exited, now: float) -> "Convalescence | None":
        """With the service due again, or None where it has died too often."""
        was_well = death.lived_s >= self.rule.well_after_s
        before = () if was_well else tuple(d for d in self.deaths if d.service == death.service)
        row = () if was_well else (*before, death)
        if len(row) >= self.rule.most or self._is_hopeless(row):
            return None
        backoff_s = min(self.rule.longest_s, self.rule.first_s * 2 ** len(before))
        others = tuple(d for d in self.deaths if d.service != death.service)
        return replace(
            self,
            deaths=(*others, *row),
            due=(*self.due, Due(death.service, now + backoff_s)),
        )

    def without(self, service: str) -> "Convalescence":
        """With the service due no more: it was started."""
        return replace(self, due=tuple(d for d in self.due if d.service != service))

    def _is_hopeless(self, row: tuple[Exited, ...]) -> bool:
        if not row:
            return False
        last = row[-self.rule.alike :]
        said = {(death.code, death.lines[-1:]) for death in last}
        # A signal's death has no last words of its own.
        ended_itself = row[-1].code > 0 and bool(row[-1].lines)
        return len(last) == self.rule.alike and len(said) == 1 and ended_itself
