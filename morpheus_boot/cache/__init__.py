"""The model cache on the volume: ``make_plan`` decides, ``fill`` carries out."""

from collections.abc import Iterable, Iterator

from morpheus_boot.cache.hub_cache import hub_roots
from morpheus_boot.cache.lock.heartbeat import Heart
from morpheus_boot.cache.options import FillContext, FillOptions
from morpheus_boot.cache.planner import Action, CachedModel, Plan, Step, make_plan
from morpheus_boot.cache.reading import preload
from morpheus_boot.errors import MorpheusError, all_of

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

    Raises:
        ManifestError: another endpoint names one of the paths with another origin; nothing was fetched.
        VolumeFull: what is missing does not fit; nothing was fetched.
        MorpheusError: of every model that failed; the others are there all the same.
        Stopped: it was to end before its time; what was synced stays for the next worker.
    """
    if not plan.work:
        return tuple(step.as_cached() for step in plan.steps)
    from morpheus_boot.cache.filler import Filler  # noqa: PLC0415 - requests and huggingface_hub: 230 ms

    filler = Filler(context)
    filler.preflight(plan.steps)
    outcomes: dict[str, CachedModel | MorpheusError] = {}
    for step, outcome in filler.fill(plan.steps):
        outcomes[step.model.path] = outcome
    in_order = [outcomes[step.model.path] for step in plan.steps]
    failed = [outcome for outcome in in_order if isinstance(outcome, MorpheusError)]
    if failed:
        raise all_of(failed)
    return tuple(outcome for outcome in in_order if isinstance(outcome, CachedModel))


def fill_what_fits(plan: Plan, context: FillContext) -> Iterator[CachedModel | MorpheusError]:
    """As fill(), but each model, or its error, as it comes; where not all fit, the last ones are left out.

    Raises MorpheusError where nothing can be fetched at all; Stopped.
    """
    left_out = set[str]()
    if plan.work:
        from morpheus_boot.cache.filler import Filler  # noqa: PLC0415 - as in fill()

        filler = Filler(context)
        for step, full in filler.leave_out(plan.steps):
            left_out.add(step.model.path)
            yield full
        for _, outcome in filler.fill(s for s in plan.steps if s.model.path not in left_out):
            yield outcome
    else:
        yield from (step.as_cached() for step in plan.steps)


def hash_pending(models: Iterable[CachedModel], context: FillContext) -> None:
    """Records the digests that are missing, as repair.hash_pending() does."""
    from morpheus_boot.cache import repair  # noqa: PLC0415 - as in fill()

    repair.hash_pending(models, context)
