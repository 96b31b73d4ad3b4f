"""Two hundred jobs of each form through the SDK's loop: every answer right, every file there once."""

import base64
from pathlib import Path

from morpheus_boot.smoke.samples import png_size
from tests.jobs.graphs import (
    PICTURE,
    rescale,
    rescale_graph,
    saved,
    worker_comfyui_test_input,
)
from tests.jobs.workers import Worker
from tests.queue.handlers import Handler
from tests.queue.inputs import stand_in_only
from tests.testbed.job_queue import JobQueue

COUNT = 200
AT_ONCE = 40
SCRIPT = Path(__file__).parent / "many_at_once.py"


def test_two_hundred_jobs_of_each_form(
    queue: JobQueue, worker: Worker, sdk_python: Path, tmp_path: Path
) -> None:
    image = worker.upload("many-input", PICTURE)
    named, graphs = [], []
    for number in range(COUNT):
        job, width = f"many-{number}", 8 + number
        named.append(queue.put(rescale(job, image, width, 8)))
        graphs.append(queue.put(rescale_graph(None, width, 16)))
    environ = {
        **queue.environ("pod-many"),
        "FILESERVER_PORT": str(worker.files.port),
        "RUNPOD_LOG_LEVEL": "ERROR",
    }

    with Handler(sdk_python, tmp_path / "log", environ, str(AT_ONCE), script=SCRIPT) as handler:
        for asked in (*named, *graphs):
            queue.wait(asked, 60)
            assert (asked.status, len(asked.results)) == ("COMPLETED", 1), asked
        assert handler.log.count("ERROR") == 0

    for number, asked in enumerate(named):
        [path] = asked.output["files"]
        assert asked.output["image_pod_path"] == path
        assert png_size(Path(path).read_bytes()) == (8 + number, 8)
        folder = worker.volume.jobs / f"many-{number}" / "output"
        assert [str(file) for file in folder.iterdir()] == [path]
    for number, asked in enumerate(graphs):
        [answered] = asked.output["images"]
        content = base64.b64decode(answered["data"])
        assert png_size(content) == (8 + number, 16)
        folder = worker.volume.jobs / asked.id / "output"
        assert [file.read_bytes() for file in folder.iterdir()] == [content]


@stand_in_only
def test_what_clients_publish_runs_unchanged(
    shared: Handler, shared_queue: JobQueue, worker: Worker
) -> None:
    published = shared_queue.put(worker_comfyui_test_input()["input"])
    twice = shared_queue.put({"workflow": saved("", "ComfyUI", "ComfyUI")["workflow"]})

    [image] = shared_queue.wait(published).output["images"]
    assert png_size(base64.b64decode(image["data"])) == (512, 512)
    names = {image["filename"] for image in shared_queue.wait(twice).output["images"]}
    assert names == {"ComfyUI_00001_.png", "ComfyUI_00002_.png"}
