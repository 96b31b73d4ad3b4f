"""What a plan asks of the volume: the bytes that the origins will send, against the room that there is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from morpheus_boot.cache.options import FillOptions
from morpheus_boot.cache.origins.resolutions import Resolutions
from morpheus_boot.cache.planner import Action, Plan, Step, make_plan
from morpheus_boot.cache.room import IN_PLACE, Room, look_for_room, require_room
from morpheus_boot.errors import MorpheusError, VolumeFull
from morpheus_boot.volume.mount import Volume

# What begins with a file under the model's name, which a download would replace.
_OVER_A_FILE: Final = frozenset({Action.ADOPT, Action.RECHECK, Action.REFETCH})


@dataclass(frozen=True, slots=True)
class Demand:
    """Weighs plans for one volume."""

    volume: Volume
    options: FillOptions
    resolutions: Resolutions

    def price(self, plan: Plan) -> Room:
        """Asks the origins for the sizes of what is missing, and measures the volume.

        What an origin refused is in ``resolutions``. Raises OSError, Stopped.
        """
        wanted = [s for s in plan.steps if s.needs_bytes]
        self.resolutions.ask_all(s.model for s in wanted)
        while True:
            room = self._look_for_room(wanted)
            if room.fits:
                return room
            # The origins took their time. What other workers have brought in meanwhile was measured, and is
            # missing no more.
            still = [s for s in self.decide_again(wanted) if s.needs_bytes]
            if len(still) == len(wanted):
                return room
            wanted = still

    def decide_again(self, steps: Iterable[Step]) -> tuple[Step, ...]:
        """The steps that the same models need now. Raises OSError."""
        models = (step.model for step in steps)
        return make_plan(models, self.volume.layout, self.options.hub_roots).steps

    def require_room(self, plan: Plan) -> None:
        """Raises VolumeFull where what the plan must fetch doesn't fit; OSError; Stopped."""
        if any(s.needs_bytes for s in plan.steps):
            room = self.price(plan)
            require_room(room, self.volume, replace_in_place=self.options.replace_in_place)

    def with_numbers(self, error: MorpheusError, step: Step) -> MorpheusError:
        """The error of a step; where the volume turned out to be full, with who uses how much of it.

        Not all is weighed before: a file that was to be taken over may turn out to be damaged.
        """
        if not isinstance(error, VolumeFull):
            return error
        try:
            room = look_for_room(self.volume, with_jobs=True)
        except OSError:
            return error
        is_replaced = step.action in _OVER_A_FILE
        mend = IN_PLACE if is_replaced and not self.options.replace_in_place else error.mend
        return VolumeFull(error.subject, f"{error.cause}: {room.summary}", mend)

    def _look_for_room(self, wanted: Iterable[Step]) -> Room:
        sizes = [self.resolutions.size_bytes(s.model) for s in wanted]
        replaced = sum(
            s.record.size_bytes for s in wanted if s.action is Action.REFETCH and s.record
        )
        return look_for_room(
            self.volume,
            sum(size for size in sizes if size is not None),
            replaced,
            unknown=sizes.count(None),
            with_jobs=False,
        )
