"""For the benchmark: the file server as FastAPI's own documentation would have it, UploadFile and FileResponse."""

import os
import shutil
import uuid
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Form, UploadFile
from fastapi.responses import FileResponse

JOBS = Path(os.environ["MORPHEUS_VOLUME"]) / "jobs"

app = FastAPI()


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/upload")
def upload(file: UploadFile, worker_job_id: Annotated[str | None, Form()] = None) -> dict[str, str]:
    job = worker_job_id or str(uuid.uuid4())
    folder = JOBS / job / "input"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / (file.filename or "file")).open("wb") as target:
        shutil.copyfileobj(file.file, target)
    return {"worker_job_id": job}


@app.get("/download/{job}/{name}")
def download(job: str, name: str) -> FileResponse:
    return FileResponse(JOBS / job / "output" / name, filename=name)
