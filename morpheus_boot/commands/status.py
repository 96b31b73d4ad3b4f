"""``status``: the cache, the workers seen on the volume, and the services of this container."""

import os
from dataclasses import asdict, dataclass

from morpheus_boot.cache.lock import who_holds
from morpheus_boot.cache.planner import Action
from morpheus_boot.deployment import Deployment, plan_models, read_deployment
from morpheus_boot.errors import storage_error
from morpheus_boot.heartbeat import Beat
from morpheus_boot.invocation import Invocation
from morpheus_boot.state import BootState, read_state, state_file
from morpheus_boot.stdout import print_json, print_line
from morpheus_boot.volume import size_text
from morpheus_boot.workers import BEAT_S, SeenWorker, seen_workers


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model: ``state`` is present, missing, fetching or damaged; ``holder`` is who fetches it."""

    path: str
    state: str
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
                "fetching" if holder else step.action.value,
                step.model.required,
                step.record.size_bytes if step.record else None,
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
            size = size_text(model.holder.size_bytes)
            detail = f"by {model.holder.worker}, {size_text(model.holder.done_bytes)} of {size}"
        size = size_text(model.size_bytes)
        notes = "  ".join(filter(None, (detail, "" if model.required else "(not required)")))
        print_line(f"  {model.state:<8} {model.path:<{width}} {size:>16}  {notes}".rstrip())
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
