"""Whether what is missing fits on the volume: known before the first byte is fetched.

statvfs shows the whole cluster's terabytes on RunPod, so the size that was bought is given by the user.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from morpheus_boot.cache.options import FillContext
from morpheus_boot.cache.planner import Action, Step, make_plan
from morpheus_boot.errors import MorpheusError, VolumeFull
from morpheus_boot.volume.mount import Usage, Volume, measure, size_text

if TYPE_CHECKING:  # status and doctor measure room, and need no network library for it
    from morpheus_boot.cache.origins.resolutions import Resolutions

_IN_PLACE: Final = (
    "enlarge the volume, or use --replace-in-place, which removes the old models first"
)
# What begins with a file under the model's name, which a download would replace.
_OVER_A_FILE: Final = frozenset({Action.ADOPT, Action.RECHECK, Action.REFETCH})


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes: bought (None: not said), free on a local disk (None: a network's), used, missing, freed by a replacement.

    ``unknown``: the number of missing models whose size no origin has said.
    """

    bought_bytes: int | None
    disk_free_bytes: int | None
    used: Usage
    missing_bytes: int
    replaced_bytes: int
    unknown: int = 0

    @property
    def fits(self) -> bool:
        """Whether all that is missing fits beside what is there; nothing fits also where there is too much."""
        free = self.free_bytes
        return free is None or not self.missing_bytes or self.missing_bytes <= free

    @property
    def overdrawn(self) -> bool:
        """Whether there is more than what was bought, or there is no room at all."""
        return self.free_bytes is not None and self.free_bytes < 0

    @property
    def fits_in_place(self) -> bool:
        """Whether it fits once the models to be replaced are removed first."""
        free = self.free_bytes
        return free is None or self.missing_bytes <= free + self.replaced_bytes

    @property
    def free_bytes(self) -> int | None:
        """What is left, as far as it was counted; None where nobody knows."""
        limits = [self.disk_free_bytes]
        if self.bought_bytes is not None:
            # Parts are not counted: they are the missing bytes of this worker or another, arriving.
            used = self.used
            kept_bytes = used.cache_bytes + used.archives_bytes + (used.jobs_bytes or 0)
            limits.append(self.bought_bytes - kept_bytes)
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def summary(self) -> str:
        """Who uses how much of what there is, as a person reads it."""
        used = self.used
        jobs = "" if used.jobs_bytes is None else f", jobs {size_text(used.jobs_bytes)}"
        models, archives = size_text(used.cache_bytes), size_text(used.archives_bytes)
        bought = "" if self.bought_bytes is None else f"of {size_text(self.bought_bytes)} "
        disk = (
            ""
            if self.disk_free_bytes is None
            else f"; its disk has {size_text(self.disk_free_bytes)} free"
        )
        return f"{bought}the models use {models}, archives {archives}{jobs}{disk}"


def look_for_room(
    volume: Volume,
    missing_bytes: int = 0,
    replaced_bytes: int = 0,
    *,
    unknown: int = 0,
    with_jobs: bool,
) -> Room:
    """Measures the volume; jobs, which may be many files, only when asked for. Raises OSError."""
    used = measure(volume.layout, with_jobs=with_jobs)
    free_bytes = _disk_free_bytes(volume)
    return Room(volume.size_bytes, free_bytes, used, missing_bytes, replaced_bytes, unknown)


def price(steps: Iterable[Step], context: FillContext, resolutions: "Resolutions") -> Room:
    """Asks the origins for the sizes of what is missing, and measures the volume.

    What an origin refused is in ``resolutions``. Raises OSError, Stopped.
    """
    wanted = [s for s in steps if s.needs_bytes]
    resolutions.ask_all(s.model for s in wanted)
    while True:
        sizes = [resolutions.size_bytes(s.model) for s in wanted]
        replaced = [s.record.size_bytes for s in wanted if s.action is Action.REFETCH and s.record]
        room = look_for_room(
            context.volume,
            sum(filter(None, sizes)),
            sum(replaced),
            unknown=sizes.count(None),
            with_jobs=False,
        )
        if room.fits:
            return room
        # The origins took their time. What other workers have brought in meanwhile was measured, and is missing no
        # more.
        still = [s for s in decide_again(wanted, context) if s.needs_bytes]
        if len(still) == len(wanted):
            return room
        wanted = still


def decide_again(steps: Iterable[Step], context: FillContext) -> tuple[Step, ...]:
    """The steps that the same models need now. Raises OSError."""
    models = (step.model for step in steps)
    return make_plan(models, context.layout, context.options.hub_roots).steps


def require_room(room: Room, volume: Volume, *, replace_in_place: bool) -> None:
    """Raises VolumeFull, with all numbers, where the missing models don't fit."""
    if room.fits or (replace_in_place and room.fits_in_place):
        return
    counted = replace(room, used=measure(volume.layout, with_jobs=True))
    free = size_text(max(0, counted.free_bytes or 0))
    cause = f"{size_text(room.missing_bytes)} are needed, {free} are free: {counted.summary}"
    if room.fits_in_place:
        mend = _IN_PLACE
    else:
        mend = "enlarge the volume (then MORPHEUS_VOLUME_GB or volume.size_gb), or remove models or jobs"
    raise VolumeFull(f"volume {volume.root}", cause, mend)


def with_numbers(error: MorpheusError, step: Step, context: FillContext) -> MorpheusError:
    """The error of a step; where the volume turned out to be full, with who uses how much of it.

    Not all is weighed before: a file that was to be taken over may turn out to be damaged.
    """
    if not isinstance(error, VolumeFull):
        return error
    try:
        room = look_for_room(context.volume, with_jobs=True)
    except OSError:
        return error
    in_place = step.action in _OVER_A_FILE and not context.options.replace_in_place
    cause = f"{error.cause}: {room.summary}"
    return VolumeFull(error.subject, cause, _IN_PLACE if in_place else error.mend)


def _disk_free_bytes(volume: Volume) -> int | None:
    if volume.mount.is_network:
        return None
    try:
        disk = os.statvfs(volume.root if volume.root.exists() else volume.root.parent)
        # What a dead worker's part holds already is missing no more, though it still counts as missing.
        parts = sum(part.stat().st_blocks * 512 for part in volume.layout.parts.glob("*.part"))
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize + parts
