"""``/jobs``: to post a job, to see how it stands, to cancel it."""

from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel

from fileserver.answers import JobPath
from fileserver.bodies import read_body
from fileserver.jobs import Jobs
from morpheus_boot.config.variables import Limits
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import JobView, Status
from morpheus_boot.jobs.request import GraphBody, TemplateBody


class JobAnswer(BaseModel):
    """A job's id, and where it stands."""

    worker_job_id: str
    status: Status


def add_job_routes(app: FastAPI, jobs: Jobs, limits: Limits) -> None:
    """Adds the routes."""

    @app.post(
        "/jobs",
        status_code=202,
        openapi_extra=_job_body(),
    )
    async def post(request: Request) -> JobAnswer:
        job, record = await jobs.post(await read_body(request, limits))
        return JobAnswer(worker_job_id=job.text, status=record.status)

    @app.get("/jobs/{job}")
    async def get(job: JobPath) -> JobView:
        return await jobs.view(JobId(job))

    @app.post("/jobs/{job}/cancel")
    async def cancel(job: JobPath) -> JobAnswer:
        record = await jobs.cancel(JobId(job))
        return JobAnswer(worker_job_id=job, status=record.status)


def _job_body() -> dict[str, Any]:
    schemas = [
        body.model_json_schema(ref_template="#/components/schemas/{model}")
        for body in (TemplateBody, GraphBody)
    ]
    for schema in schemas:
        definitions = schema.pop("$defs", {})
        if definitions:
            # FastAPI knows only the models of its own parameters.
            schema["properties"]["images"]["anyOf"][0]["items"] = definitions["ImageBody"]
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"oneOf": schemas}}},
        }
    }
