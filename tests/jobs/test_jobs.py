"""A job from its post to its files, in both forms."""

from pathlib import Path

from morpheus_boot.smoke.picture import png_size
from tests.jobs.graphs import PICTURE, rescale, rescale_graph
from tests.jobs.workers import Worker


def test_a_workflow_by_name_is_answered_with_the_paths_of_its_files(
    worker: Worker, job: str
) -> None:
    image = worker.upload(job, PICTURE)

    ended = worker.done(rescale(job, image, 24, 12))

    path = str(worker.volume.jobs / job / "output" / "rescale_00001_.png")
    assert ended["output"] == {"worker_job_id": job, "image_pod_path": path, "files": [path]}
    assert png_size(Path(path).read_bytes()) == (24, 12)


def test_a_graph_is_answered_with_the_pictures_it_saved(worker: Worker, job: str) -> None:
    ended = worker.done(rescale_graph(job, 20, 10))

    path = str(worker.volume.jobs / job / "output" / "ComfyUI_00001_.png")
    assert ended["output"] == {
        "images": [{"filename": "ComfyUI_00001_.png", "type": "path", "data": path}]
    }
    assert png_size(Path(path).read_bytes()) == (20, 10)
