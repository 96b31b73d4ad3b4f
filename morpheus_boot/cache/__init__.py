"""The model cache on the volume: ``plan`` decides, ``fill`` carries out."""

import threading
from collections.abc import Callable, Iterable, Iterator

from morpheus_boot.cache.hub_cache import hub_roots
from morpheus_boot.cache.lock.heartbeat import Heart
from morpheus_boot.cache.options import FillOptions
from morpheus_boot.cache.planner import Action, CachedModel, Plan, Step, make_plan
from morpheus_boot.cache.preload import preload
from morpheus_boot.errors import MorpheusError
from morpheus_boot.report.state import ModelState
from morpheus_boot.volume.mount import Volume

__all__ = [
    "Action",
    "CachedModel",
    "FillOptions",
    "Heart",
    "Plan",
    "Step",
    "fill",
    "fill_what_fits",
    "hash_pending",
    "hub_roots",
    "make_plan",
    "preload",
]


def fill(
    plan: Plan,
    volume: Volume,
    options: FillOptions,
    *,
    stopping: threading.Event,
    report: Callable[[ModelState], None],
) -> tuple[CachedModel, ...]:
    """Brings every model of the plan into the cache; returns them in its order.

    On a warm volume nothing is asked, locked or written, and no network library is imported.
    Raises as Filler.fill() does.
    """
    if not plan.work:
        return tuple(step.as_cached() for step in plan.steps)
    from morpheus_boot.cache.filler import Filler  # noqa: PLC0415 - requests and huggingface_hub: 230 ms

    return Filler(volume, options, stopping=stopping, report=report).fill(plan)


def fill_what_fits(
    plan: Plan,
    volume: Volume,
    options: FillOptions,
    *,
    stopping: threading.Event,
    report: Callable[[ModelState], None],
) -> Iterator[CachedModel | MorpheusError]:
    """Brings in what it can of the plan: each model, or its error, as it comes. Raises as Filler.fill_what_fits()."""
    if not plan.work:
        yield from (step.as_cached() for step in plan.steps)
        return
    from morpheus_boot.cache.filler import Filler  # noqa: PLC0415 - as in fill()

    yield from Filler(volume, options, stopping=stopping, report=report).fill_what_fits(plan)


def hash_pending(
    models: Iterable[CachedModel],
    volume: Volume,
    options: FillOptions,
    *,
    stopping: threading.Event,
    report: Callable[[ModelState], None],
) -> None:
    """Records the digests that are missing, as Repairs.hash_pending() does."""
    from morpheus_boot.cache.hashing import Repairs  # noqa: PLC0415 - requests and huggingface_hub: 230 ms

    Repairs(volume, options, stopping=stopping, report=report).hash_pending(models)
