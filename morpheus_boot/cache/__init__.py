"""The model cache on the volume: ``make_plan`` decides, ``fill`` carries out."""

from collections.abc import Iterable, Iterator

from morpheus_boot.cache.hub_cache import hub_roots
from morpheus_boot.cache.lock.heartbeat import Heart
from morpheus_boot.cache.options import FillContext, FillOptions
from morpheus_boot.cache.planner import Action, CachedModel, Plan, Step, make_plan
from morpheus_boot.cache.reading import preload
from morpheus_boot.errors import MorpheusError

__all__ = [
    "Action",
    "CachedModel",
    "FillContext",
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


def fill(plan: Plan, context: FillContext) -> tuple[CachedModel, ...]:
    """Brings every model of the plan into the cache; returns them in its order.

    On a warm volume nothing is asked, locked or written, and no network library is imported.
    Raises as Filler.fill() does.
    """
    if not plan.work:
        return tuple(step.as_cached() for step in plan.steps)
    from morpheus_boot.cache.filler import Filler  # noqa: PLC0415 - requests and huggingface_hub: 230 ms

    return Filler(context).fill(plan)


def fill_what_fits(plan: Plan, context: FillContext) -> Iterator[CachedModel | MorpheusError]:
    """Brings in what it can of the plan: each model, or its error, as it comes. Raises as Filler.fill_what_fits()."""
    if not plan.work:
        yield from (step.as_cached() for step in plan.steps)
        return
    from morpheus_boot.cache.filler import Filler  # noqa: PLC0415 - as in fill()

    yield from Filler(context).fill_what_fits(plan)


def hash_pending(models: Iterable[CachedModel], context: FillContext) -> None:
    """Records the digests that are missing, as repair.hash_pending() does."""
    pending = [model for model in models if model.hash_later]
    if pending:
        from morpheus_boot.cache import repair  # noqa: PLC0415 - as in fill()

        repair.hash_pending(pending, context)
