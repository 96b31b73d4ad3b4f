"""What a fill reports of a model, as the state document and the log know it."""

from morpheus_boot.cache.lock.heartbeat import Beat
from morpheus_boot.cache.planner import Action, CachedModel, Step
from morpheus_boot.cache.transfer.progress import Reading
from morpheus_boot.errors import MorpheusError
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.report.state import ModelStage, ModelState


def planned(step: Step) -> ModelState:
    """How a model stands before anything is done for it."""
    present = step.action is Action.PRESENT
    size_bytes = step.record.size_bytes if step.record else step.model.size_bytes
    return ModelState(
        step.model.path,
        ModelStage.PRESENT if present else ModelStage.MISSING,
        done_bytes=(size_bytes or 0) if present else 0,
        size_bytes=size_bytes,
        required=step.model.required,
        detail=step.reason,
    )


def fetching(model: ModelSpec, reading: Reading) -> ModelState:
    """The model while this worker brings it in."""
    return ModelState(
        model.path,
        ModelStage.FETCHING,
        reading.done_bytes,
        reading.size_bytes,
        required=model.required,
        detail=reading.trouble,
        rate_bytes_per_s=reading.rate_bytes_per_s,
        left_s=reading.left_s,
        retries=reading.retries,
    )


def waiting(model: ModelSpec, holder: Beat | None) -> ModelState:
    """The model while ``holder`` (None: nobody knows who) brings it in."""
    return ModelState(
        model.path,
        ModelStage.WAITING,
        holder.done_bytes if holder else 0,
        holder.size_bytes if holder else None,
        required=model.required,
        detail=f"{holder.worker} fetches it" if holder else "another worker fetches it",
    )


def outcome_of(model: ModelSpec, outcome: CachedModel | MorpheusError) -> ModelState:
    """The model once it is there, or has failed. Raises OSError."""
    if isinstance(outcome, MorpheusError):
        return ModelState(
            model.path,
            ModelStage.FAILED,
            required=model.required,
            detail=f"{outcome.cause}; {outcome.mend}",
        )
    size_bytes = outcome.file.stat().st_size
    return ModelState(
        model.path, ModelStage.PRESENT, size_bytes, size_bytes, required=model.required
    )
