"""From a client's request to a job on the volume: its graph made, its pictures stored, its record created."""

import secrets
from typing import Final

from morpheus_boot.errors import MorpheusError
from morpheus_boot.jobs.images import name_images
from morpheus_boot.jobs.names import JobId, SubDir
from morpheus_boot.jobs.record import Form, JobRecord, Status, now
from morpheus_boot.jobs.request import GraphJob, InputImage, TemplateJob
from morpheus_boot.jobs.store import JobStore
from morpheus_boot.jobs.templates import Graph, fill_template, load_template
from morpheus_boot.jobs.uploads import Target, UploadPart
from morpheus_boot.volume.layout import Layout

_RUN_BYTES: Final = 6


def post_job(layout: Layout, worker: str, request: TemplateJob | GraphJob) -> JobRecord:
    """Creates the job on the volume as ``worker``'s.

    Raises:
        JobTaken: one of its id is queued or running.
        WrongParameter, BrokenTemplate: its workflow can't be filled.
        NameTaken, VolumeFull, StorageFailed: the volume refuses.
    """
    template = request.workflow if isinstance(request, TemplateJob) else None
    record = JobRecord(
        run=secrets.token_hex(_RUN_BYTES),
        worker=worker,
        form=Form.GRAPH if template is None else Form.TEMPLATE,
        workflow=None if template is None else template.text,
        graph=_graph(layout, request),
        created_at=now(),
    )
    store = JobStore(layout)
    record = store.create(request.job, record)
    try:
        for image in request.images if isinstance(request, GraphJob) else ():
            _store(layout, request.job, image)
    except MorpheusError as error:
        over = {"status": Status.FAILED, "error": str(error), "ended_at": now()}
        store.update(request.job, record.model_copy(update=over))
        store.forget(request.job, record)
        raise
    return record


def _graph(layout: Layout, request: TemplateJob | GraphJob) -> Graph:
    if isinstance(request, GraphJob):
        names = {i.given_name: f"{request.job}/input/{i.name} [output]" for i in request.images}
        return name_images(request.graph, names)
    template = load_template(layout, request.workflow)
    prefix = f"{request.job}/output/{request.workflow}"
    return fill_template(template, request.workflow, request.parameters, prefix)


def _store(layout: Layout, job: JobId, image: InputImage) -> None:
    part = UploadPart(layout)
    try:
        part.write([memoryview(image.content)])
        part.publish(Target(job, SubDir(), image.name))
    finally:
        part.give_up()
