"""``status``: the cache, the workers seen on the volume, and the services of this container."""

import os
from collections.abc import Iterator
from dataclasses import asdict

from morpheus_boot.cache.lock.workers import BEAT_S, SeenWorker, seen_workers
from morpheus_boot.cache.survey import lines, survey
from morpheus_boot.config.settings import Invocation
from morpheus_boot.deployment import read_deployment, volume_errors
from morpheus_boot.report.state import BootState, read_state, state_file
from morpheus_boot.report.stdout import print_json, print_line


def run(invocation: Invocation) -> None:
    """Looks, and prints; changes nothing. Raises MorpheusError where there is nothing to look at."""
    deployment = read_deployment(invocation)
    with volume_errors(deployment.volume):
        found = survey(deployment.manifest.models, deployment.volume)
        workers = seen_workers(deployment.layout)
    boot = read_state(state_file(invocation.settings.local_dir))
    if boot is not None and not _runs(boot.pid):
        boot = None
    if invocation.json:
        document = {
            "volume": str(deployment.volume.root),
            "models": [model.as_document() for model in found.models],
            "workers": [asdict(worker) for worker in workers],
            "boot": asdict(boot) if boot else None,
        }
        print_json(document)
        return
    print_line(f"volume {deployment.volume.root}")
    for line in lines(found.models, lambda model: model.state):
        print_line(f"  {line}")
    for worker in workers:
        print_line(_worker_line(worker))
    for line in _boot_lines(boot) if boot else ["no boot runs in this container"]:
        print_line(line.rstrip())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _worker_line(worker: SeenWorker) -> str:
    silent = "silent" if worker.age_s > 3 * BEAT_S else "alive"
    how = "ended" if worker.ended else silent
    return f"worker {worker.worker}: {how}, last beat {worker.age_s:.0f} s ago"


def _boot_lines(boot: BootState) -> Iterator[str]:
    yield f"boot of {boot.worker}: {boot.readiness.value} {boot.error}"
    for phase in boot.phases:
        took = "running" if phase.seconds is None else f"{phase.seconds:.1f} s"
        yield f"  {phase.name}: {took} {phase.detail}"
    for service in boot.services:
        where = "" if service.port is None else f" on {service.port}"
        yield f"  {service.name}{where}: {service.stage.value} {service.detail}"
