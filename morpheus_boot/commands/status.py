"""``status``: the cache, the workers seen on the volume, and the services of this container."""

import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from morpheus_boot.cache.lock.heartbeat import Beat
from morpheus_boot.cache.lock.lock import who_holds
from morpheus_boot.cache.lock.workers import BEAT_S, SeenWorker, seen_workers
from morpheus_boot.cache.planner import Action, Step
from morpheus_boot.deployment import Deployment, plan_models, read_deployment
from morpheus_boot.errors import storage_error
from morpheus_boot.invocation import Invocation
from morpheus_boot.report.state import BootState, read_state, state_file
from morpheus_boot.report.stdout import print_json, print_line
from morpheus_boot.volume.mount import size_text


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
class ModelStatus:
    """One model: how it stands, and who fetches it. ``size_bytes``: of all of it; None where nobody has said."""

    path: str
    state: State
    required: bool
    size_bytes: int | None
    detail: str
    holder: Beat | None


@dataclass(frozen=True, slots=True)
class Status:
    """What ``status`` shows; ``boot`` is None where no boot runs in this container."""

    volume: str
    models: tuple[ModelStatus, ...]
    workers: tuple[SeenWorker, ...]
    boot: BootState | None


def run(invocation: Invocation) -> None:
    """Looks, and prints; changes nothing. Raises MorpheusError where there is nothing to look at."""
    deployment = read_deployment(invocation)
    try:
        status = _look(invocation, deployment)
    except OSError as error:
        raise storage_error("volume", deployment.volume.root, error) from error
    _print_json(status) if invocation.json else _print_text(status)


def _look(invocation: Invocation, deployment: Deployment) -> Status:
    volume = deployment.volume
    models = []
    for step in plan_models(deployment).steps:
        holder = None
        if step.action is not Action.PRESENT:
            holder = who_holds(volume.layout, step.model.path)
        models.append(
            ModelStatus(
                step.model.path,
                State.FETCHING if holder else _STATES[step.action],
                step.model.required,
                _size_bytes(step, holder),
                step.reason,
                holder,
            )
        )
    boot = read_state(state_file(invocation.settings.local_dir))
    return Status(
        str(volume.root),
        tuple(models),
        seen_workers(volume.layout),
        boot if boot and _runs(boot.pid) else None,
    )


def _size_bytes(step: Step, holder: Beat | None) -> int | None:
    if holder is not None and holder.size_bytes is not None:
        return holder.size_bytes
    return step.record.size_bytes if step.record else step.model.size_bytes


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _print_json(status: Status) -> None:
    print_json(asdict(status))


def _print_text(status: Status) -> None:
    print_line(f"volume {status.volume}")
    width = max((len(m.path) for m in status.models), default=0)
    for model in status.models:
        detail = model.detail
        if model.holder:
            detail = f"by {model.holder.worker}, {size_text(model.holder.done_bytes)} are there"
        size = "?" if model.size_bytes is None else size_text(model.size_bytes)
        notes = "  ".join(filter(None, (detail, "" if model.required else "(not required)")))
        print_line(f"  {model.state:<8} {model.path:<{width}} {size:>10}  {notes}".rstrip())
    for worker in status.workers:
        silent = "silent" if worker.age_s > 3 * BEAT_S else "alive"
        how = "ended" if worker.ended else silent
        print_line(f"worker {worker.worker}: {how}, last beat {worker.age_s:.0f} s ago")
    if status.boot is None:
        print_line("no boot runs in this container")
        return
    print_line(
        f"boot of {status.boot.worker}: {status.boot.readiness.value} {status.boot.error}".rstrip()
    )
    for phase in status.boot.phases:
        took = "running" if phase.seconds is None else f"{phase.seconds:.1f} s"
        print_line(f"  {phase.name}: {took} {phase.detail}".rstrip())
    for service in status.boot.services:
        where = "" if service.port is None else f" on {service.port}"
        print_line(f"  {service.name}{where}: {service.stage.value} {service.detail}".rstrip())
