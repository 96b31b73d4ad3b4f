"""An example client: "texto a imagen" and a rescaled picture, on a Pod or on a queue endpoint. Needs requests alone.

    python morpheus_client.py texto "un faro al amanecer" resultados/
    python morpheus_client.py reescalar foto.png resultados/

MORPHEUS_URL is the file server: the Pod's, or for a queue endpoint that of the gateway Pod on the same volume
(pod_start.sh files), such as https://<POD_ID>-8000.proxy.runpod.net. MORPHEUS_TOKEN is its token. A queue endpoint
is used where RUNPOD_ENDPOINT_URL (https://api.runpod.ai/v2/<ENDPOINT_ID>) and RUNPOD_API_KEY are set.
"""

import os
import random
import sys
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests

Request = Mapping[str, Any]
Run = Callable[[Request], object]

POLL_S = 1.0
DEADLINE_S = 900.0
TIMEOUT_S = 60.0
# RunPod's proxy cuts a request at about 100 MB: larger files go in pieces.
LARGEST_REQUEST_BYTES = 90_000_000
PIECE_BYTES = 64_000_000
# A piece that failed so often in a row is not tried again.
TRIES = 10
TUS = {"Tus-Resumable": "1.0.0"}
# The offset was another one, the cut connection still holds the upload, or the proxy gave up.
PASSING = (409, 423, 500, 502, 503, 504, 524)

TEXT_TO_IMAGE = {
    "workflow_name": "creation",
    "negative_prompt": "blurry, low quality",
    "steps": 25,
    "cfg_scale": 6.0,
    "sampler_name": "euler",
    "width": 1024,
    "height": 1024,
    "checkpoint_name": "talmendoxl_v11_beta.safetensors",
}


class JobFailed(Exception):
    """The job has ended without a result; the text says why."""


class Refused(JobFailed):
    """The server has refused a request, with ``status``."""

    def __init__(self, method: str, path: str, answer: requests.Response) -> None:
        super().__init__(f"{method} {path}: {answer.status_code} {answer.text}")
        self.status = answer.status_code


class FileServer:
    """A file server: files go in and out, and on a Pod it also runs jobs."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()
        if token:
            self._session.headers["X-Morpheus-Token"] = token

    def upload(self, job: str, file: Path) -> str:
        """Uploads a file to a job; what a workflow takes for it."""
        if file.stat().st_size > LARGEST_REQUEST_BYTES:
            return self._upload_in_pieces(job, file)
        with file.open("rb") as content:
            answer = self._ask(
                "POST",
                "/upload",
                data={"worker_job_id": job},
                files={"file": (file.name, content)},
            )
        return str(answer.json()["comfy_path"])

    def _upload_in_pieces(self, job: str, file: Path) -> str:
        """By tus (https://tus.io): after a cut it goes on where the server's bytes end."""
        size = file.stat().st_size
        told = {"filename": file.name, "worker_job_id": job}
        metadata = ",".join(f"{k} {b64encode(v.encode()).decode()}" for k, v in told.items())
        headers = {**TUS, "Upload-Length": str(size), "Upload-Metadata": metadata}
        upload = "/" + self._ask("POST", "/uploads", headers=headers).headers["Location"]
        failed = at = 0
        with file.open("rb") as content:
            while at < size:
                try:
                    if failed:
                        head = self._ask("HEAD", upload, headers=TUS)
                        at = int(head.headers["Upload-Offset"])
                    content.seek(at)
                    at = self._send_piece(upload, at, content.read(PIECE_BYTES))
                    failed = 0
                except (requests.RequestException, Refused) as error:
                    failed += 1
                    lasting = isinstance(error, Refused) and error.status not in PASSING
                    if lasting or failed == TRIES:
                        raise
                    time.sleep(POLL_S * failed)
        return str(self._ask("GET", upload).json()["comfy_path"])

    def _send_piece(self, upload: str, at: int, piece: bytes) -> int:
        """The new offset; an empty piece at the end is a question whether all is there."""
        kind = {"Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream"}
        answer = self._ask("PATCH", upload, headers={**TUS, **kind}, data=piece)
        return int(answer.headers["Upload-Offset"])

    def run(self, request: Request) -> None:
        """Runs a job on this Pod to its end. Raises JobFailed."""
        job = self._ask("POST", "/jobs", json=request).json()["worker_job_id"]
        until = time.monotonic() + DEADLINE_S
        while (now := self._ask("GET", f"/jobs/{job}").json())["status"] != "done":
            if now["status"] in ("failed", "cancelled"):
                raise JobFailed(f"{now['status']}: {now['error']} {now['node_errors'] or ''}")
            if time.monotonic() > until:
                self._ask("POST", f"/jobs/{job}/cancel")
                raise JobFailed(f"it has not ended within {DEADLINE_S:.0f} s")
            time.sleep(POLL_S)

    def download(self, job: str, folder: Path) -> list[Path]:
        """Downloads all that a job has made into ``folder``."""
        files = []
        for made in self._ask("GET", f"/jobs/{job}").json()["files"]:
            file = folder / job / made["name"]
            file.parent.mkdir(parents=True, exist_ok=True)
            with (
                self._ask("GET", f"/download/{job}/{made['name']}", stream=True) as answer,
                file.open("wb") as target,
            ):
                for piece in answer.iter_content(1_000_000):
                    target.write(piece)
            files.append(file)
        return files

    def cleanup(self, job: str) -> None:
        """Removes a job with all its files from the volume."""
        self._ask("POST", f"/cleanup/{job}")

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        answer = self._session.request(method, self._url + path, timeout=TIMEOUT_S, **more)
        if not answer.ok:
            raise Refused(method, path, answer)
        return answer


class QueueEndpoint:
    """A queue endpoint: RunPod hands its jobs to the workers."""

    def __init__(self, url: str, api_key: str) -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {api_key}"

    def run(self, request: Request) -> None:
        """Runs a job on one of the workers to its end. Raises JobFailed."""
        job = self._ask("POST", "/run", json={"input": request})["id"]
        until = time.monotonic() + DEADLINE_S
        while (now := self._ask("GET", f"/status/{job}"))["status"] != "COMPLETED":
            if now["status"] in ("FAILED", "CANCELLED", "TIMED_OUT"):
                raise JobFailed(f"{now['status']}: {now.get('error')}")
            if time.monotonic() > until:
                self._ask("POST", f"/cancel/{job}")
                raise JobFailed(f"it has not ended within {DEADLINE_S:.0f} s")
            time.sleep(POLL_S)

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self._session.request(method, self._url + path, timeout=TIMEOUT_S, **more)
        if not answer.ok:
            raise JobFailed(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()


def text_to_image(run: Run, files: FileServer, prompt: str, folder: Path) -> list[Path]:
    """Texto a imagen: a picture of ``prompt``, downloaded into ``folder``."""
    job = f"texto-{uuid.uuid4()}"
    try:
        run(
            {
                **TEXT_TO_IMAGE,
                "worker_job_id": job,
                "prompt": prompt,
                "seed": random.getrandbits(32),
            }
        )
        return files.download(job, folder)
    finally:
        files.cleanup(job)


def rescale(run: Run, files: FileServer, picture: Path, folder: Path) -> list[Path]:
    """``picture`` at 512 x 512, downloaded into ``folder``."""
    job = f"reescalar-{uuid.uuid4()}"
    try:
        image = files.upload(job, picture)
        size = {"width": 512, "height": 512}
        run({"workflow_name": "rescale", "worker_job_id": job, "image": image, **size})
        return files.download(job, folder)
    finally:
        files.cleanup(job)


def main() -> None:
    """Does what the command line says and prints the paths of the results."""
    what, given, folder = sys.argv[1:]
    files = FileServer(os.environ["MORPHEUS_URL"], os.environ.get("MORPHEUS_TOKEN"))
    run: Run = files.run
    if endpoint := os.environ.get("RUNPOD_ENDPOINT_URL"):
        run = QueueEndpoint(endpoint, os.environ["RUNPOD_API_KEY"]).run
    if what == "texto":
        made = text_to_image(run, files, given, Path(folder))
    else:
        made = rescale(run, files, Path(given), Path(folder))
    print(*made, sep="\n")


if __name__ == "__main__":
    main()
