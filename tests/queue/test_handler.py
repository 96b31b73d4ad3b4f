"""A job of RunPod's queue from the client's request to its answer, through the SDK's real loop."""

import ast
import base64
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from morpheus_boot.smoke.samples import png_size
from tests.jobs.graphs import rescale_graph
from tests.jobs.workers import Worker
from tests.queue.handlers import HANDLER, Handler
from tests.queue.inputs import creation, noise, picture_graph, slow_graph, stand_in_only
from tests.testbed.job_queue import JobQueue
from tests.wait import wait_until


def test_it_imports_the_standard_library_and_runpod_alone() -> None:
    imported = set()
    for node in ast.walk(ast.parse(HANDLER.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])

    assert imported - {"runpod"} <= sys.stdlib_module_names


def test_the_oldest_python_that_the_sdk_runs_on_can_read_it() -> None:
    ast.parse(HANDLER.read_text(), feature_version=(3, 10))


def test_the_python_that_runs_it_here_has_nothing_of_ours(sdk_python: Path) -> None:
    for module in ("morpheus_boot", "filelock", "huggingface_hub"):
        tried = subprocess.run(
            [sdk_python, "-c", f"import {module}"],
            cwd="/",
            env={},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "ModuleNotFoundError" in tried.stderr


@stand_in_only
def test_the_morpheus_clients_job_is_answered_with_the_paths_of_its_files(
    shared: Handler, shared_queue: JobQueue, worker: Worker, job: str
) -> None:
    asked = shared_queue.wait(shared_queue.put(creation(worker_job_id=job)))

    path = str(worker.volume.jobs / job / "output" / "creation_00001_.png")
    assert asked.error is None
    assert asked.output == {"worker_job_id": job, "image_pod_path": path, "files": [path]}
    assert png_size(Path(path).read_bytes()) == (64, 32)


def test_worker_comfyuis_job_is_answered_with_the_pictures_themselves(
    shared: Handler, shared_queue: JobQueue, worker: Worker, job: str
) -> None:
    asked = shared_queue.wait(shared_queue.put(rescale_graph(job, 20, 10)))

    assert asked.error is None
    [image] = asked.output["images"]
    assert (image["filename"], image["type"]) == ("ComfyUI_00001_.png", "base64")
    assert png_size(base64.b64decode(image["data"])) == (20, 10)


def test_a_job_without_an_id_goes_by_runpods(
    shared: Handler, shared_queue: JobQueue, worker: Worker
) -> None:
    asked = shared_queue.wait(shared_queue.put(picture_graph()))

    assert asked.error is None
    assert worker.job(asked.id)["status"] == "done"


def test_runpods_id_that_is_no_job_id_is_not_taken(
    shared: Handler, shared_queue: JobQueue, worker: Worker
) -> None:
    asked = shared_queue.wait(shared_queue.put(picture_graph(), "_runpods"))

    assert asked.error is None
    assert worker.files.get("/jobs/_runpods").status_code == 422


def test_a_rejected_graph_fails_with_comfyuis_own_words(
    shared: Handler, shared_queue: JobQueue
) -> None:
    asked = shared_queue.wait(shared_queue.put(creation(checkpoint_name="none.safetensors")))

    assert asked.status == "FAILED"
    assert "node_errors" in asked.error
    assert "value_not_in_list" in asked.error
    assert "none.safetensors" in asked.error


def test_a_request_that_is_wrong_fails_and_names_the_field(
    shared: Handler, shared_queue: JobQueue
) -> None:
    wrong = creation()
    del wrong["seed"]
    asked = [
        shared_queue.put(wrong),
        shared_queue.put({"workflow_name": "nothing"}),
        shared_queue.put({"workflow": {}, "comfy_org_api_key": "k"}),
        shared_queue.put("words"),
    ]

    for one, named in zip(asked, ("seed", "nothing", "comfy_org_api_key", "input"), strict=True):
        assert shared_queue.wait(one).status == "FAILED"
        assert named in one.error
        assert "Traceback" not in one.error


def test_progress_arrives_while_the_job_runs(shared: Handler, shared_queue: JobQueue) -> None:
    asked = shared_queue.wait(shared_queue.put(slow_graph(0.06)))

    steps = [
        (said["progress"]["nodes_done"], said["progress"]["step"])
        for said in asked.progress
        if said["progress"]
    ]
    assert asked.error is None
    assert len(set(steps)) >= 2
    assert all(said["status"] in {"queued", "running"} for said in asked.progress)


def test_results_above_the_queues_limit_come_as_paths_with_a_warning(
    shared: Handler, shared_queue: JobQueue, worker: Worker, job: str
) -> None:
    # 2300 x 2300 pixels are 16 MB, and 21 MB as base64.
    picture = worker.upload(job, noise(23), "small.png")
    large = worker.upload(job, noise(2300), "large.png")
    graph = {
        str(number): {"class_type": "LoadImage", "inputs": {"image": name}}
        for number, name in enumerate((picture, large))
    }
    graph |= {
        f"save{number}": {
            "class_type": "SaveImage",
            "inputs": {"images": [str(number), 0], "filename_prefix": "x"},
        }
        for number in range(2)
    }

    asked = shared_queue.wait(shared_queue.put({"workflow": graph, "worker_job_id": job}))

    assert asked.error is None
    assert "20 MB" in asked.output["warning"]
    assert f"/download/{job}/" in asked.output["warning"]
    assert [image["type"] for image in asked.output["images"]] == ["path", "path"]
    for image in asked.output["images"]:
        found = worker.files.get(f"/download/{job}/{image['filename']}")
        assert found.content == Path(image["data"]).read_bytes()


def test_a_graph_that_saves_nothing_says_so(shared: Handler, shared_queue: JobQueue) -> None:
    request = picture_graph()
    request["workflow"]["save0"] = {"class_type": "PreviewImage", "inputs": {"images": ["make", 0]}}

    asked = shared_queue.wait(shared_queue.put(request))

    assert asked.output == {"status": "success_no_images", "images": []}


def test_the_heartbeat_names_the_job_that_runs(shared: Handler, shared_queue: JobQueue) -> None:
    asked = shared_queue.put(slow_graph(0.02))

    wait_until(lambda: any(ping.get("job_id") == asked.id for ping in shared_queue.pings))
    shared_queue.wait(asked)


class _Broken(BaseHTTPRequestHandler):
    """A server whose every answer is an error without JSON."""

    def do_GET(self) -> None:
        self.send_response(500)
        self.end_headers()
        self.wfile.write(b"Internal Server Error")

    def do_POST(self) -> None:
        self.do_GET()


def test_an_error_that_is_no_json_is_not_taken_for_an_absent_file_server(
    queue: JobQueue, sdk_python: Path, tmp_path: Path
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Broken)
    Thread(target=server.serve_forever, daemon=True).start()
    environ = {**queue.environ("pod-b"), "FILESERVER_PORT": str(server.server_port)}
    with Handler(sdk_python, tmp_path / "handler.log", environ):
        asked = queue.wait(queue.put(picture_graph()))
    server.shutdown()
    server.server_close()

    assert asked.status == "FAILED"
    assert asked.error == "Internal Server Error"


def test_a_film_in_a_folder_of_the_output_is_answered_as_download_takes_it(
    shared: Handler, shared_queue: JobQueue, worker: Worker, job: str
) -> None:
    request = picture_graph()
    request["workflow"]["save0"]["inputs"]["filename_prefix"] = "video/ComfyUI"

    asked = shared_queue.wait(shared_queue.put({**request, "worker_job_id": job}))

    [image] = asked.output["images"]
    assert image["filename"] == "video/ComfyUI_00001_.png"
    found = worker.files.get(f"/download/{job}/{image['filename']}")
    assert found.content == base64.b64decode(image["data"])
