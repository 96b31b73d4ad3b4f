"""``plan``, ``status``, ``verify``, ``gc`` on a volume, as an operator runs them by hand."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from morpheus_boot.cache.lock.lock import ModelLock, heartbeat_of
from morpheus_boot.cache.lock.workers import beat_for
from morpheus_boot.cache.manifests import leave_manifest, manifest_of
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.cache.records import Record, write_record
from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import Form, JobRecord, now
from morpheus_boot.jobs.record import Status as JobStatus
from morpheus_boot.jobs.removal import remove_job
from morpheus_boot.jobs.store import JobStore
from morpheus_boot.volume.layout import Layout
from tests.boot.program import Site
from tests.cache.worker import model
from tests.testbed.content import read_all, safetensors, sha256, write_to
from tests.testbed.faults import Gate, Status
from tests.testbed.origin import Origin
from tests.wait import wait_until

WEIGHTS = safetensors(2_000_000)
MODEL = "checkpoints/a.safetensors"


@pytest.fixture
def site(tmp_path: Path, origin: Origin) -> Site:
    url = origin.serve("/a.safetensors", WEIGHTS)
    return Site(tmp_path, f"version: 1\nmodels:\n  - {{path: {MODEL}, url: '{url}'}}\n")


def document(out: str) -> dict[str, Any]:
    parsed = json.loads(out)
    assert isinstance(parsed, dict)
    return parsed


def damage(site: Site) -> None:
    """One flipped byte, with name, size and mtime as they were."""
    path = site.volume / "model_cache" / MODEL
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_plan_says_what_is_missing_and_changes_nothing(site: Site) -> None:
    ended = site.run("plan", "--json")

    assert ended.code == 0
    plan = document(ended.out)
    assert plan["models"][0]["action"] == "fetch"
    assert plan["missing_bytes"] == WEIGHTS.size_bytes
    assert not site.volume.exists()


def test_plan_names_what_is_refused_in_the_order_of_models_yaml(
    tmp_path: Path, origin: Origin
) -> None:
    entries = ""
    for name, status in (("a", 404), ("b", 403), ("c", 404)):
        url = origin.serve(f"/{name}.safetensors", WEIGHTS)
        origin.misbehave(f"/{name}.safetensors", Status(status))
        entries += f"  - {{path: loras/{name}.safetensors, url: '{url}'}}\n"
    (tmp_path / "volume" / "model_cache" / "loras" / "b.safetensors").mkdir(parents=True)

    ended = Site(tmp_path, f"version: 1\nmodels:\n{entries}").run("plan")

    errors = [line for line in ended.err.splitlines() if "loras/" in line]
    assert [line.partition("loras/")[2][0] for line in errors] == ["a", "b", "c"]
    assert ended.code == 69


def test_plan_of_a_full_cache_has_nothing_to_fetch(site: Site) -> None:
    assert site.run("fill").code == 0

    ended = site.run("plan")

    assert ended.code == 0
    assert "present" in ended.out
    assert "to fetch: 0 bytes;" in ended.out


def test_plan_ends_with_the_error_that_up_would_meet(site: Site, origin: Origin) -> None:
    origin.misbehave("/a.safetensors", Status(403))

    ended = site.run("plan")

    assert ended.code == 77
    assert MODEL in ended.err


def test_plan_knows_that_the_models_do_not_fit(site: Site) -> None:
    site.environ = {"MORPHEUS_VOLUME_GB": "0.001"}

    ended = site.run("plan", "--json")

    assert ended.code == 73
    assert document(ended.out)["fits"] is False
    assert "2.0 MB are needed, 1.0 MB are free: of 1.0 MB" in ended.err


def test_fill_fetches_nothing_where_the_models_do_not_fit(site: Site, origin: Origin) -> None:
    site.environ = {"MORPHEUS_VOLUME_GB": "0.001"}

    ended = site.run("fill")

    assert ended.code == 73
    assert origin.count().body_bytes <= 1


def test_a_fill_that_is_interrupted_says_what_is_kept(site: Site, origin: Origin) -> None:
    gate = Gate(1_000_000)
    origin.misbehave("/a.safetensors", gate, after=1)

    with site.start("fill") as fill:
        gate.wait_reached(20)
        (part,) = (site.volume / ".morpheus" / "parts").glob("*.part")
        # It reads 256 KiB at once.
        wait_until(lambda: part.stat().st_blocks * 512 >= 700_000)
        assert fill.stop(signal.SIGINT) == 130

    assert "stopped; 786.4 kB of what was on its way are kept" in fill.log


def test_a_failure_is_explained_once(site: Site, origin: Origin) -> None:
    origin.misbehave("/a.safetensors", Status(404))

    ended = site.run("fill")

    said = [line for line in ended.err.splitlines() if MODEL in line]
    assert [("answers 404" in line, "ERROR" in line) for line in said] == [
        (False, False),
        (True, True),
    ]


def test_a_replacement_that_does_not_fit_beside_the_old_model_names_replace_in_place(
    site: Site, origin: Origin
) -> None:
    site.environ = {"MORPHEUS_VOLUME_GB": "0.003"}
    assert site.run("fill").code == 0
    other = safetensors(1_900_000, seed=5)
    site.models = site.models.replace("/a.safetensors'", "/b.safetensors'")
    origin.serve("/b.safetensors", other)

    refused = site.run("fill")
    assert refused.code == 73
    assert "--replace-in-place" in refused.err
    assert (site.volume / "model_cache" / MODEL).read_bytes() == read_all(WEIGHTS)

    assert site.run("fill", "--replace-in-place").code == 0
    assert (site.volume / "model_cache" / MODEL).read_bytes() == read_all(other)


def test_two_endpoints_that_name_one_path_with_two_origins_are_both_named(
    site: Site, origin: Origin
) -> None:
    site.environ = {"RUNPOD_ENDPOINT_ID": "endpoint-1"}
    assert site.run("fill").code == 0
    origin.serve("/b.safetensors", WEIGHTS)
    site.models = site.models.replace("/a.safetensors'", "/b.safetensors'")
    site.environ = {"RUNPOD_ENDPOINT_ID": "endpoint-2"}

    ended = site.run("fill")

    assert ended.code == 65
    assert "endpoint-1" in ended.err
    assert "endpoint-2" in ended.err


@pytest.mark.parametrize("command", ["fill", "up"])
def test_an_endpoint_that_loses_the_check_does_not_stop_the_other_one(
    site: Site, origin: Origin, command: str
) -> None:
    first = site.models
    site.environ = {"RUNPOD_ENDPOINT_ID": "endpoint-1"}
    assert site.run("fill").code == 0
    origin.serve("/b.safetensors", WEIGHTS)
    site.models = first.replace("/a.safetensors'", "/b.safetensors'")
    site.environ = {"RUNPOD_ENDPOINT_ID": "endpoint-2"}
    assert site.run(command).code == 65

    site.models = f"{first}  - {{path: loras/b.safetensors, url: '{origin.url}/b.safetensors'}}\n"
    site.environ = {"RUNPOD_ENDPOINT_ID": "endpoint-1"}

    assert site.run("fill").code == 0


def test_status_shows_models_and_workers_and_that_no_boot_runs(site: Site) -> None:
    assert site.run("fill").code == 0

    status = document(site.run("status", "--json").out)

    assert status["models"][0]["state"] == "present"
    assert len(status["workers"]) == 1
    assert status["boot"] is None


def test_status_shows_who_fetches_and_a_running_boot(site: Site, origin: Origin) -> None:
    gate = Gate(1_000_000)
    origin.misbehave("/a.safetensors", gate, after=1)
    with site.start("up"):
        gate.wait_reached(20)

        status = document(site.run("status", "--json").out)

        assert status["models"][0]["state"] == "fetching"
        assert status["models"][0]["holder"]["worker"] == status["boot"]["worker"]
        assert status["boot"]["readiness"] == "starting"
        gate.open()


def test_status_says_once_how_large_a_model_is_that_is_fetched(site: Site) -> None:
    lock = Layout(site.volume).lock(MODEL)
    claim = ModelLock(MODEL, lock, "worker-1", LockTimes(beat_s=0.02)).try_claim()
    assert claim is not None
    with claim:
        claim.progress(1_000_000, 2_000_000)
        wait_until(lambda: b"2000000" in heartbeat_of(lock).read_bytes())

        (line,) = [one for one in site.run("status").out.splitlines() if MODEL in one]

    assert line.split() == f"fetching {MODEL} 2.0 MB by worker-1, 1.0 MB are there".split()


def test_status_says_how_a_model_stands(site: Site) -> None:
    file = site.volume / "model_cache" / MODEL
    states = {"nothing": status_of(site)}
    write_to(WEIGHTS, file)
    states["a file"] = status_of(site)
    assert site.run("fill").code == 0
    os.utime(file, (1, 1))
    states["moved with its volume"] = status_of(site)
    os.truncate(file, 10)
    states["cut"] = status_of(site)
    file.unlink()
    file.mkdir()
    states["a directory"] = status_of(site)

    assert states == {
        "nothing": "missing",
        "a file": "found",
        "moved with its volume": "present",
        "cut": "wrong",
        "a directory": "blocked",
    }


def status_of(site: Site) -> str:
    return str(document(site.run("status", "--json").out)["models"][0]["state"])


def test_status_and_plan_say_which_model_is_not_required(site: Site) -> None:
    assert "not required" not in site.run("status").out
    site.models = site.models.replace("}", ", required: false}")

    assert document(site.run("status", "--json").out)["models"][0]["required"] is False
    for command in ("status", "plan"):
        assert "(not required)" in site.run(command).out


def test_verify_says_that_an_empty_cache_has_nothing_to_verify(site: Site) -> None:
    ended = site.run("verify")

    assert (ended.code, ended.out.count("\n")) == (0, 1)
    assert "nothing to verify" in ended.out


def test_verify_finds_one_flipped_byte_and_repairs_it(site: Site) -> None:
    assert site.run("fill").code == 0
    assert site.run("verify").code == 0
    damage(site)

    found = site.run("verify", "--json")
    assert found.code == 74
    assert document(found.out)["models"][0]["condition"] == "damaged"
    assert MODEL in found.err

    repaired = site.run("verify", "--repair")
    assert repaired.code == 0
    assert "repaired" in repaired.out
    assert (site.volume / "model_cache" / MODEL).read_bytes() == read_all(WEIGHTS)
    assert site.run("verify").code == 0


def test_a_repair_that_fails_leaves_nothing_that_passes_for_whole(
    site: Site, origin: Origin
) -> None:
    assert site.run("fill").code == 0
    damage(site)
    origin.misbehave("/a.safetensors", Status(404))
    assert site.run("verify", "--repair").code == 69

    assert site.run("fill").code == 69
    assert site.run("verify").code == 74

    origin.behave()
    assert site.run("fill").code == 0
    assert (site.volume / "model_cache" / MODEL).read_bytes() == read_all(WEIGHTS)


@pytest.fixture
def two_damaged(tmp_path: Path, origin: Origin) -> Site:
    """Two damaged models, the first of which can't be fetched any more."""
    entries = "".join(
        f"  - {{path: loras/{name}.safetensors, url: '{origin.serve(f'/{name}', WEIGHTS)}'}}\n"
        for name in ("a", "b")
    )
    site = Site(tmp_path, f"version: 1\nmodels:\n{entries}")
    assert site.run("fill").code == 0
    for name in ("a", "b"):
        os.truncate(site.volume / f"model_cache/loras/{name}.safetensors", 1_000_000)
    origin.misbehave("/a", Status(404))
    return site


def test_verify_goes_on_after_a_model_that_it_cant_repair(two_damaged: Site) -> None:
    ended = two_damaged.run("verify", "--repair")

    assert ended.code == 69
    assert [line.split()[:2] for line in ended.out.splitlines()] == [
        ["damaged", "loras/a.safetensors"],
        ["repaired", "loras/b.safetensors"],
    ]
    assert "not repaired: " in ended.out
    assert ended.err.count("ERROR") == 1


def test_verify_prints_what_it_found_where_it_cant_repair(two_damaged: Site) -> None:
    ended = two_damaged.run("verify", "--repair", "--json")

    assert ended.code == 69
    assert [m["condition"] for m in document(ended.out)["models"]] == ["damaged", "repaired"]


def test_verify_reads_the_others_where_one_cant_be_read(two_damaged: Site) -> None:
    unreadable = two_damaged.volume / "model_cache/loras/a.safetensors"
    unreadable.unlink()
    unreadable.symlink_to(unreadable)

    ended = two_damaged.run("verify")

    assert ended.code == 74
    assert [line.split()[0] for line in ended.out.splitlines()] == ["unreadable", "damaged"]
    assert "ELOOP" in ended.err


def test_verify_reads_what_lies_in_runpods_own_cache(tmp_path: Path) -> None:
    site = Site(tmp_path)
    file = write_to(WEIGHTS, site.volume / "huggingface-cache/hub/blob")
    record = Record(
        path=MODEL,
        origin="hf",
        etag=None,
        sha256=sha256(WEIGHTS),
        size_bytes=WEIGHTS.size_bytes,
        mtime_ns=1,
        recorded_at="",
        by="w",
        hub_file=str(file.relative_to(site.volume)),
    )
    write_record(Layout(site.volume), record)

    ended = site.run("verify")

    assert ended.out == f"whole      {MODEL}  {sha256(WEIGHTS)}\n"


def test_verify_says_what_to_do_with_what_models_yaml_does_not_name(two_damaged: Site) -> None:
    two_damaged.models = "version: 1\nmodels: []\n"

    ended = two_damaged.run("verify", "--repair")

    assert ended.code == 74
    assert ended.err.count("name it in models.yaml, or remove it") == 2


def test_gc_removes_nothing_beside_a_manifest_that_it_cant_read(site: Site) -> None:
    assert site.run("fill").code == 0
    orphan = site.volume / "model_cache" / "loras" / "old.safetensors"
    orphan.parent.mkdir()
    orphan.write_bytes(b"old")
    (site.volume / ".morpheus/manifests/endpoint-9.json").write_text('{"of": "a later version"}')

    assert site.run("gc", "--apply").code == 74

    assert orphan.exists()


def test_gc_lists_and_then_removes_what_no_manifest_names(site: Site) -> None:
    assert site.run("fill").code == 0
    orphan = site.volume / "model_cache" / "loras" / "old.safetensors"
    orphan.parent.mkdir()
    orphan.write_bytes(b"old")

    listed = document(site.run("gc", "--json").out)
    assert [g["path"] for g in listed["garbage"]] == [str(orphan)]
    assert orphan.exists()

    assert site.run("gc", "--apply").code == 0
    assert not orphan.exists()
    assert (site.volume / "model_cache" / MODEL).exists()


def test_gc_keeps_what_another_endpoint_names_until_that_endpoint_is_forgotten(
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
    assert site.run("gc", "--forget", "endpoint-1", "--apply").code == 0

    assert not (site.volume / "model_cache" / MODEL).exists()
    assert (site.volume / "model_cache/loras/b.safetensors").exists()


def test_gc_says_how_much_only_workers_keep_and_how_to_let_go_of_it(site: Site) -> None:
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
        for k in document(site.run("gc", "--json").out)["kept"]
        if k["worker"].startswith("pod-")
    ] == [(worker, ["loras/old.safetensors"], WEIGHTS.size_bytes) for worker in ("pod-1", "pod-2")]

    ended = site.run("gc", "--forget", "pod-1", "--forget", "pod-2", "--apply")
    assert not old.exists()
    assert "kept: " not in ended.out


@pytest.mark.parametrize("command", ["gc", "status", "plan", "verify"])
def test_a_volume_that_is_not_there_is_not_made(site: Site, command: str) -> None:
    site.run(command)

    assert not site.volume.exists()


def test_gc_names_the_manifests_when_an_endpoint_to_forget_is_unknown(site: Site) -> None:
    site.environ = {"RUNPOD_ENDPOINT_ID": "endpoint-1"}
    assert site.run("fill").code == 0

    ended = site.run("gc", "--forget", "endpoint-9")

    assert ended.code == 64
    assert "known are: endpoint-1" in ended.err


def test_plan_ends_with_74_where_a_directory_is_in_the_way(site: Site) -> None:
    (site.volume / "model_cache" / MODEL).mkdir(parents=True)

    ended = site.run("plan", "--json")

    assert ended.code == 74
    assert "directory" in document(ended.out)["errors"][0]


def test_a_file_that_was_moved_with_its_volume_is_hashed_once(site: Site) -> None:
    assert site.run("fill").code == 0
    os.utime(site.volume / "model_cache" / MODEL, (1, 1))

    assert "hashed again" in site.run("fill").err
    assert "hashed again" not in site.run("fill").err


def test_gc_leaves_the_part_that_a_worker_is_filling(site: Site, origin: Origin) -> None:
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


def test_gc_removes_old_jobs_but_never_one_that_is_at_work(site: Site) -> None:
    layout = Layout(site.volume)
    beat_for(layout, "gone").end()
    living = beat_for(layout, "living")
    old_job(site, "done-1", JobStatus.DONE, "living")
    old_job(site, "running-1", JobStatus.RUNNING, "living")
    old_job(site, "queued-1", JobStatus.QUEUED, "living")
    old_job(site, "lost-1", JobStatus.RUNNING, "gone")
    (layout.jobs / "bare-1").mkdir()
    os.utime(layout.jobs / "bare-1", (1, 1))
    (layout.jobs / "new-1").mkdir()
    options = ("gc", "--json", "--jobs-older-than", "2")

    listed = document(site.run(*options).out)["garbage"]
    assert [Path(g["path"]).name for g in listed] == ["bare-1", "done-1", "lost-1"]
    assert [g["removed"] for g in document(site.run(*options, "--apply").out)["garbage"]] == [
        True,
        True,
        True,
    ]

    living.end()
    assert {p.name for p in layout.jobs.iterdir()} == {"running-1", "queued-1", "new-1"}


def test_gc_ends_what_a_worker_left_open_that_is_gone_for_a_week(site: Site) -> None:
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
