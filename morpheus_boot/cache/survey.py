"""One survey of the volume for ``plan``, ``status`` and ``doctor``: it only looks, asks no origin, changes nothing."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from morpheus_boot.cache.hub_cache import hub_roots
from morpheus_boot.cache.lock.heartbeat import Beat
from morpheus_boot.cache.lock.lock import who_holds
from morpheus_boot.cache.parts import kept_bytes
from morpheus_boot.cache.planner import Action, Plan, Step, make_plan
from morpheus_boot.cache.room import Room, look_for_room
from morpheus_boot.manifest import ModelSpec
from morpheus_boot.volume.mount import Volume, size_text


class State(StrEnum):
    """How a model stands."""

    PRESENT = "present"
    FOUND = "found"  # there, and to be taken over: an old cache's, an operator's, or RunPod's own
    MISSING = "missing"
    WRONG = "wrong"  # there, but damaged or not what models.yaml says
    BLOCKED = "blocked"
    FETCHING = "fetching"


_STATES: Final = {
    Action.PRESENT: State.PRESENT,
    Action.RECHECK: State.PRESENT,
    Action.ADOPT: State.FOUND,
    Action.LINK: State.FOUND,
    Action.FETCH: State.MISSING,
    Action.REFETCH: State.WRONG,
    Action.BLOCKED: State.BLOCKED,
}


@dataclass(frozen=True, slots=True)
class SurveyedModel:
    """One model: its step in the plan, and what is going on with it.

    ``holder``: the worker that fetches it now. ``kept_bytes``: what an earlier fill has left of it. ``size_bytes``: of
    all of it; None where nobody has said.
    """

    step: Step
    holder: Beat | None
    kept_bytes: int
    size_bytes: int | None

    @property
    def state(self) -> State:
        """How it stands."""
        return State.FETCHING if self.holder else _STATES[self.step.action]

    @property
    def notes(self) -> Iterator[str]:
        """What a person may want to know of it."""
        if self.holder:
            yield f"{self.holder.worker} fetches it and has {size_text(self.holder.done_bytes)}"
        elif self.step.reason:
            yield self.step.reason
        if self.kept_bytes and not self.holder:
            yield f"{size_text(self.kept_bytes)} are kept from an earlier fill"
        if not self.step.model.required:
            yield "(not required)"

    def as_document(self) -> dict[str, Any]:
        """The model in the document of ``--json``."""
        return {
            "path": self.step.model.path,
            "state": self.state,
            "action": self.step.action,
            "reason": self.step.reason,
            "required": self.step.model.required,
            "size_bytes": self.size_bytes,
            "holder": asdict(self.holder) if self.holder else None,
            "kept_bytes": self.kept_bytes,
        }


@dataclass(frozen=True, slots=True)
class Survey:
    """The volume's models, in the order of models.yaml."""

    volume: Volume
    models: tuple[SurveyedModel, ...]

    @property
    def plan(self) -> Plan:
        """What a fill would carry out."""
        return Plan(tuple(model.step for model in self.models))

    @property
    def wanted(self) -> tuple[SurveyedModel, ...]:
        """The models that an origin must send."""
        return tuple(model for model in self.models if model.step.needs_bytes)

    def look_for_room(self) -> Room:
        """Room for what is wanted, as far as its sizes are known unasked. Raises OSError."""
        sizes = [model.size_bytes for model in self.wanted]
        missing_bytes, unknown = sum(filter(None, sizes)), sizes.count(None)
        return look_for_room(self.volume, missing_bytes, unknown=unknown, with_jobs=True)


def survey(models: Iterable[ModelSpec], volume: Volume) -> Survey:
    """Looks at each model. Raises OSError where the volume can't be read."""
    plan = make_plan(models, volume.layout, hub_roots(volume.root))
    return Survey(volume, tuple(_look_at(step, volume) for step in plan.steps))


def _look_at(step: Step, volume: Volume) -> SurveyedModel:
    layout, path = volume.layout, step.model.path
    holder = who_holds(layout, path) if step.action is not Action.PRESENT else None
    kept = kept_bytes(layout, path) if step.needs_bytes else 0
    size_bytes = step.record.size_bytes if step.record and not step.needs_bytes else None
    if holder is not None and holder.size_bytes is not None:
        size_bytes = holder.size_bytes
    return SurveyedModel(step, holder, kept, size_bytes or step.model.size_bytes)


def lines(models: Iterable[SurveyedModel], word: Callable[[SurveyedModel], str]) -> Iterator[str]:
    """The models as a table for a person, each line beginning with its ``word``."""
    listed = tuple(models)
    width = max((len(m.step.model.path) for m in listed), default=0)
    for model in listed:
        size = "?" if model.size_bytes is None else size_text(model.size_bytes)
        notes = "".join(f"  {note}" for note in model.notes)
        yield f"{word(model):<8} {model.step.model.path:<{width}} {size:>10}{notes}"
