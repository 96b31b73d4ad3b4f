"""``gc`` lists what nobody needs, and removes it."""

import os
import time
from pathlib import Path

from morpheus_boot.cache.lock.workers import beat_for
from morpheus_boot.cache.manifests import leave_manifest, manifest_of
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import Form, JobRecord, now
from morpheus_boot.jobs.record import Status as JobStatus
from morpheus_boot.jobs.removal import remove_job
from morpheus_boot.jobs.store import JobStore
from morpheus_boot.volume.layout import Layout
from tests.boot.program import Site
from tests.cache.worker import model
from tests.commands.one_model import WEIGHTS, cached, document
from tests.testbed.content import nest, write_to
from tests.testbed.faults import Gate
from tests.testbed.origin import Origin


def put_orphan(site: Site) -> Path:
    """A model that nobody names."""
    return write_to(WEIGHTS, site.volume / "model_cache/loras/old.safetensors")


def test_lists_and_then_removes_what_no_manifest_names_once_it_can_read_all(site: Site) -> None:
    assert site.run("fill").code == 0
    orphan = put_orphan(site)

    listed = document(site.run("gc", "--json"))
    assert [g["path"] for g in listed["garbage"]] == [str(orphan)]
    unreadable = site.volume / ".morpheus/manifests/endpoint-9.json"
    unreadable.write_text('{"of": "a later version"}')
    assert site.run("gc", "--apply").code == 74
    assert orphan.exists()

    unreadable.unlink()
    assert site.run("gc", "--apply").code == 0
    assert not orphan.exists()
    assert cached(site).exists()


def test_keeps_what_another_endpoint_names_until_that_endpoint_is_forgotten(
    site: Site, origin: Origin
) -> None:
    site.environ = {"RUNPOD_ENDPOINT_ID": "endpoint-1"}
    assert site.run("fill").code == 0
    origin.serve("/b.safetensors", WEIGHTS)
    site.models = (
        "version: 1\nmodels:\n"
        f"  - {{path: loras/b.safetensors, url: '{origin.url}/b.safetensors'}}\n"
    )
    site.environ = {"RUNPOD_ENDPOINT_ID": "endpoint-2"}
    assert site.run("fill").code == 0

    listed = site.run("gc").out
    assert "nothing to remove" in listed
    assert "kept: 1 model, 2.0 MB, that endpoint endpoint-1 names" in listed
    unknown = site.run("gc", "--forget", "endpoint-9")
    assert unknown.code == 64
    assert "known are: endpoint-1, endpoint-2" in unknown.err
    assert site.run("gc", "--forget", "endpoint-1", "--apply").code == 0

    assert not cached(site).exists()
    assert (site.volume / "model_cache/loras/b.safetensors").exists()


def test_says_how_much_only_workers_keep_and_how_to_let_go_of_it(site: Site) -> None:
    layout = Layout(site.volume)
    old = write_to(WEIGHTS, layout.model("loras/old.safetensors"))
    named = model("loras/old.safetensors", "https://origin.invalid/old")
    for worker in ("pod-1", "pod-2"):
        beat_for(layout, worker).end()
        leave_manifest(layout, manifest_of(worker, worker, [named]))
    assert site.run("fill").code == 0

    kept = [line for line in site.run("gc").out.splitlines() if line.startswith("kept: ")]
    assert "".join(kept) == (
        "kept: 1 model, 2.0 MB, that only workers name, each for 7 days after its last beat; if it is not needed: "
        "gc --forget pod-1 --forget pod-2 --apply"
    )
    assert [
        (k["worker"], k["models"], k["size_bytes"])
        for k in document(site.run("gc", "--json"))["kept"]
        if k["worker"].startswith("pod-")
    ] == [(worker, ["loras/old.safetensors"], WEIGHTS.size_bytes) for worker in ("pod-1", "pod-2")]

    ended = site.run("gc", "--forget", "pod-1", "--forget", "pod-2", "--apply")
    assert not old.exists()
    assert "kept: " not in ended.out


def test_leaves_the_part_that_a_worker_is_filling(site: Site, origin: Origin) -> None:
    gate = Gate(1_000_000)
    origin.misbehave("/a.safetensors", gate, after=1)
    with site.start("up") as up:
        gate.wait_reached(20)
        (part,) = (site.volume / ".morpheus" / "parts").glob("*.part")
        site.models = "version: 1\nmodels: []\n"

        assert site.run("gc", "--apply").code == 0

        assert part.exists()
        gate.open()
        up.wait_until_ready()


def job_record(status: JobStatus, worker: str) -> JobRecord:
    return JobRecord(
        run="r",
        worker=worker,
        form=Form.GRAPH,
        workflow=None,
        graph={},
        created_at=now(),
        status=status,
    )


def make_old(*paths: Path, hours: float) -> None:
    for path in paths:
        os.utime(path, (time.time() - hours * 3600,) * 2)


def old_job(site: Site, job: str, status: JobStatus, worker: str) -> None:
    """A job that nobody touched for three hours."""
    folder = site.volume / "jobs" / job
    (folder / "output").mkdir(parents=True)
    (folder / "output/image.png").write_bytes(b"image")
    record = Layout(site.volume).job_record(job)
    record.parent.mkdir(exist_ok=True)
    record.write_text(job_record(status, worker).model_dump_json())
    make_old(folder / "output", record, folder, hours=3)


def test_removes_old_jobs_but_never_one_that_is_at_work(site: Site) -> None:
    layout = Layout(site.volume)
    beat_for(layout, "gone").end()
    living = beat_for(layout, "living")
    old_job(site, "done-1", JobStatus.DONE, "living")
    old_job(site, "running-1", JobStatus.RUNNING, "living")
    old_job(site, "queued-1", JobStatus.QUEUED, "living")
    old_job(site, "lost-1", JobStatus.RUNNING, "gone")
    nest(layout.jobs / "bare-1")
    os.utime(layout.jobs / "bare-1", (1, 1))
    (layout.jobs / "new-1").mkdir()
    options = ("gc", "--json", "--jobs-older-than", "2")

    listed = document(site.run(*options))["garbage"]
    assert [Path(g["path"]).name for g in listed] == ["bare-1", "done-1", "lost-1"]
    assert [g["removed"] for g in document(site.run(*options, "--apply"))["garbage"]] == [
        True,
        True,
        True,
    ]

    living.end()
    assert {p.name for p in layout.jobs.iterdir()} == {"running-1", "queued-1", "new-1"}


def test_ends_what_a_worker_left_open_that_is_gone_for_a_week(site: Site) -> None:
    layout = Layout(site.volume)
    store = JobStore(layout)
    for worker in ("gone", "living"):
        beat_for(layout, worker).end()
        for job in ("open", "cleaned"):
            store.create(JobId(f"{worker}-{job}"), job_record(JobStatus.RUNNING, worker))
        make_old(layout.job_record(f"{worker}-open"), layout.job_marks / worker, hours=200)
        remove_job(layout, JobId(f"{worker}-cleaned"))
    make_old(layout.workers / "gone.json", hours=200)

    assert site.run("gc", "--apply").code == 0

    assert [path.name for path in layout.job_marks.iterdir()] == ["living"]
    ended, open_ = (store.read(JobId(f"{worker}-open")) for worker in ("gone", "living"))
    assert ended is not None
    assert ended.status is JobStatus.FAILED
    assert "its worker gone was stopped" in str(ended.error)
    assert open_ is not None
    assert open_.status is JobStatus.RUNNING
    assert "nothing to remove" in site.run("gc").out
