"""For the benchmark: the same with Flask, as the service had it before, run by gunicorn."""

import os
import uuid
from pathlib import Path

from flask import Flask, Response, request, send_file

JOBS = Path(os.environ["MORPHEUS_VOLUME"]) / "jobs"

app = Flask(__name__)


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/upload")
def upload() -> dict[str, str]:
    job = request.form.get("worker_job_id") or str(uuid.uuid4())
    folder = JOBS / job / "input"
    folder.mkdir(parents=True, exist_ok=True)
    file = request.files["file"]
    file.save(folder / (file.filename or "file"))
    return {"worker_job_id": job}


@app.get("/download/<job>/<name>")
def download(job: str, name: str) -> Response:
    return send_file(JOBS / job / "output" / name, as_attachment=True)
