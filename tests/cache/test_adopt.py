"""Files that the cache did not bring in itself: the old scripts', an operator's, RunPod's own."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from morpheus_boot.cache import hash_pending, hub_roots
from morpheus_boot.cache.options import Credentials
from morpheus_boot.cache.records import read_record, write_record
from morpheus_boot.cache.repair import TO_REPAIR, Condition, Verdict, judge, repair
from morpheus_boot.errors import OriginUnavailable
from morpheus_boot.manifest import HuggingFaceSource, ModelSpec
from morpheus_boot.work.stopping import Stopped
from tests.cache.worker import MIB, Worker, hub_model, model
from tests.testbed.civitai import CivitaiStandIn
from tests.testbed.content import (
    Content,
    literal,
    read_all,
    safetensors,
    sha256,
    torch_pickle,
    torch_zip,
    write_to,
)
from tests.testbed.hub import HubStandIn
from tests.testbed.origin import Origin

WEIGHTS = safetensors(2 * MIB)
PATH = "checkpoints/a.safetensors"
BY_TYPE = [
    ("checkpoints/a.safetensors", safetensors(2 * MIB)),
    ("controlnet/a.pth", torch_zip(2 * MIB)),
    ("ipadapter/a.bin", torch_pickle(2 * MIB)),
    ("checkpoints/a.ckpt", torch_pickle(2 * MIB)),
]


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


def damaged(content: Content) -> bytes:
    """The content with one byte of it flipped."""
    found = bytearray(read_all(content))
    found[MIB] ^= 1
    return bytes(found)


def put(file: Path, content: bytes) -> Path:
    """A file that the cache did not bring in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (read_all(WEIGHTS) + b"12345678", None),
        (b'{"a": 1}', "it is JSON"),
        (read_all(WEIGHTS)[:-8], "adds up"),
    ],
)
def test_a_digest_that_agrees_is_the_last_word_but_of_a_file_that_ends_too_early(
    worker: Worker, origin: Origin, *, is_there: bool, content: bytes, complaint: str | None
) -> None:
    wanted = literal(content)
    url = origin.serve("/a", wanted)
    named = model(PATH, url, sha256=sha256(wanted), size_bytes=len(content))
    file = worker.layout.model(PATH)
    if is_there:
        put(file, content)

    if complaint is None:
        worker.fill(named)

        assert file.read_bytes() == content
        assert (origin.count("/a").requests == 0) == is_there
    else:
        with pytest.raises(OriginUnavailable, match=complaint):
            worker.fill(named)


def test_a_whole_file_without_a_record_costs_one_request_and_no_bytes(
    worker: Worker, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a", WEIGHTS))
    write_to(WEIGHTS, worker.layout.model(PATH))

    (cached,) = worker.fill(wanted)

    assert cached.hash_later
    assert origin.count().requests == 1
    assert origin.count().body_bytes <= 1
    assert worker.plan(wanted).work == ()


def test_hashing_ends_in_the_middle_of_a_file_when_it_is_told_to_stop(
    worker: Worker, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a", WEIGHTS))
    write_to(WEIGHTS, worker.layout.model(PATH))
    cached = worker.fill(wanted)
    worker.stopping.set()

    with pytest.raises(Stopped):
        hash_pending(cached, worker.context)

    record = read_record(worker.layout, PATH)
    assert record is not None
    assert record.sha256 is None


def test_an_adopted_file_is_held_to_the_digest_that_its_origin_names(
    worker: Worker, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    civitai = CivitaiStandIn(origin)
    civitai.add(131960, "a.safetensors", WEIGHTS)
    credentials = Credentials(civitai_endpoint=civitai.url)
    worker.options = replace(worker.options, credentials=credentials)
    wanted = ModelSpec(PATH, civitai=131960)
    put(worker.layout.model(PATH), damaged(WEIGHTS))

    hash_pending(worker.fill(wanted), worker.context)

    assert worker.layout.model(PATH).read_bytes() == read_all(WEIGHTS)
    record = read_record(worker.layout, PATH)
    assert record is not None
    assert record.sha256 == sha256(WEIGHTS)
    assert "restart any ComfyUI that has loaded it" in caplog.text


PICKLE = torch_pickle(2 * MIB)
OTHER = safetensors(2 * MIB, seed=7)


@pytest.mark.parametrize(
    ("path", "content", "found", "digest"),
    [
        *((path, content, read_all(content)[: MIB + 17], None) for path, content in BY_TYPE),
        (PATH, WEIGHTS, b"<html>Please log in</html>", None),
        ("checkpoints/a.ckpt", PICKLE, bytes(PICKLE.size_bytes), None),
        ("upscale_models/a.pth", PICKLE, bytes(PICKLE.size_bytes), None),
        (PATH, WEIGHTS, read_all(OTHER), sha256(WEIGHTS)),
    ],
)
def test_a_file_that_is_not_the_model_is_fetched_again(
    worker: Worker, origin: Origin, *, path: str, content: Content, found: bytes, digest: str | None
) -> None:
    wanted = model(path, origin.serve("/a", content), sha256=digest)
    put(worker.layout.model(path), found)

    worker.fill(wanted)

    assert worker.layout.model(path).read_bytes() == read_all(content)


@pytest.mark.parametrize("spoil", [lambda file: os.truncate(file, MIB), os.unlink])
def test_a_recorded_file_that_was_cut_or_removed_behind_our_back_is_fetched_again(
    worker: Worker, origin: Origin, spoil: Callable[[Path], None]
) -> None:
    wanted = model(PATH, origin.serve("/a", WEIGHTS))
    worker.fill(wanted)
    spoil(worker.layout.model(PATH))

    worker.fill(wanted)

    assert worker.layout.model(PATH).read_bytes() == read_all(WEIGHTS)


@pytest.mark.parametrize(("path", "content"), BY_TYPE[:2])
def test_a_type_that_proves_itself_whole_is_adopted_without_its_origin(
    worker: Worker, origin: Origin, path: str, content: Content
) -> None:
    wanted = model(path, origin.serve("/a", content))
    write_to(content, worker.layout.model(path))
    origin.close()

    (cached,) = worker.fill(wanted)

    assert cached.file.read_bytes() == read_all(content)


@pytest.mark.parametrize(("path", "content"), BY_TYPE[2:])
def test_a_bare_pickle_is_not_adopted_without_its_origin(
    worker: Worker, origin: Origin, path: str, content: Content
) -> None:
    wanted = model(path, origin.serve("/a", content))
    write_to(content, worker.layout.model(path))
    origin.close()

    with pytest.raises(OriginUnavailable, match="whether it is whole"):
        worker.fill(wanted)


@pytest.mark.parametrize(
    "old", ["morpheus_model_cache", "job_data/model_cache", "job_data/morpheus_model_cache"]
)
def test_an_old_cache_is_taken_over_by_renaming(worker: Worker, origin: Origin, old: str) -> None:
    wanted = model(PATH, origin.serve("/a", WEIGHTS))
    inode = write_to(WEIGHTS, worker.root / old / PATH).stat().st_ino

    worker.fill(wanted)

    assert worker.layout.model(PATH).stat().st_ino == inode
    assert not (worker.root / old / PATH).exists()
    assert origin.count().body_bytes <= 1


def test_a_truncated_model_in_an_old_cache_is_fetched_and_the_old_file_stays(
    worker: Worker, origin: Origin
) -> None:
    wanted = model(PATH, origin.serve("/a", WEIGHTS))
    old = put(worker.root / "morpheus_model_cache" / PATH, read_all(WEIGHTS)[:MIB])

    worker.fill(wanted)

    assert worker.layout.model(PATH).read_bytes() == read_all(WEIGHTS)
    assert old.stat().st_size == MIB


@pytest.mark.parametrize("record", [b"", b'{"path": "checkpo', b"[]", b'{"path": 1}'])
def test_a_half_written_record_is_as_none(worker: Worker, origin: Origin, record: bytes) -> None:
    wanted = model(PATH, origin.serve("/a", WEIGHTS))
    worker.fill(wanted)
    worker.layout.record(PATH).write_bytes(record)
    before = origin.count().body_bytes

    worker.fill(wanted)

    assert origin.count().body_bytes - before <= 1
    assert read_record(worker.layout, PATH) is not None


def test_another_mtime_is_present_with_a_warning_and_hashed_later(
    worker: Worker, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = model(PATH, origin.serve("/a", WEIGHTS))
    worker.fill(wanted)
    os.utime(worker.layout.model(PATH), (1, 1))
    before = origin.count()

    (cached,) = worker.fill(wanted)

    assert cached.hash_later
    assert origin.count() == before
    assert "hashed again" in caplog.text


def test_another_origin_in_models_yaml_replaces_the_model(worker: Worker, origin: Origin) -> None:
    worker.fill(model(PATH, origin.serve("/a", WEIGHTS)))
    other = safetensors(MIB, seed=3)

    worker.fill(model(PATH, origin.serve("/b", other)))

    assert worker.layout.model(PATH).read_bytes() == read_all(other)


SOURCE = HuggingFaceSource("Owner/Repo", "unet/m.safetensors")
HUB_PATH = "diffusion_models/m.safetensors"


@pytest.fixture
def hub_worker(tmp_path: Path, hub: HubStandIn) -> Worker:
    hub.add(SOURCE.repo, SOURCE.file, WEIGHTS)
    roots = (tmp_path / "huggingface-cache" / "hub",)
    return Worker(tmp_path).with_hub(hub.url, hub_roots=roots)


def snapshot(
    root: Path, content: Content, commit: str, folder: str = "models--Owner--Repo"
) -> Path:
    """A file in RunPod's own cache, as RunPod lays it out."""
    repo = root / "huggingface-cache" / "hub" / folder
    blob = write_to(content, repo / "blobs" / sha256(content))
    link = repo / "snapshots" / commit / SOURCE.file
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    return link


@pytest.mark.parametrize("folder", ["models--Owner--Repo", "models--owner--repo"])
def test_a_model_in_runpods_own_cache_is_linked_instead_of_fetched(
    hub_worker: Worker, hub: HubStandIn, folder: str
) -> None:
    link = snapshot(hub_worker.root, WEIGHTS, hub.commit(SOURCE.repo), folder)
    wanted = hub_model(HUB_PATH, SOURCE)

    (cached,) = hub_worker.fill(wanted)

    assert cached.file == link
    assert not hub_worker.layout.model(HUB_PATH).exists()
    assert hub.origin.count().body_bytes < WEIGHTS.size_bytes


def test_a_model_linked_once_is_warm(hub_worker: Worker, hub: HubStandIn) -> None:
    snapshot(hub_worker.root, WEIGHTS, hub.commit(SOURCE.repo))
    wanted = hub_model(HUB_PATH, SOURCE)
    hub_worker.fill(wanted)
    before = hub.origin.count()

    hub_worker.fill(wanted)

    assert hub.origin.count() == before


def test_another_file_in_runpods_own_cache_is_not_linked(
    hub_worker: Worker, hub: HubStandIn
) -> None:
    snapshot(hub_worker.root, safetensors(MIB, seed=9), "a" * 40)

    hub_worker.fill(hub_model(HUB_PATH, SOURCE))

    assert hub_worker.layout.model(HUB_PATH).read_bytes() == read_all(WEIGHTS)


def test_another_commit_is_not_linked_where_no_digest_shows_the_same_file(
    hub_worker: Worker, hub: HubStandIn
) -> None:
    """A small file's blob is named by git's own digest, which is not the file's SHA-256."""
    link = snapshot(hub_worker.root, WEIGHTS, "a" * 40)
    blob = link.resolve()
    blob = blob.rename(blob.with_name("b" * 40))
    link.unlink()
    link.symlink_to(blob)

    (cached,) = hub_worker.fill(hub_model(HUB_PATH, SOURCE))

    assert cached.file == hub_worker.layout.model(HUB_PATH)


def test_runpods_own_cache_is_looked_for_on_the_volume_and_at_serverless_mount() -> None:
    assert hub_roots(Path("/workspace")) == (
        Path("/workspace/huggingface-cache/hub"),
        Path("/runpod-volume/huggingface-cache/hub"),
    )
    assert len(hub_roots(Path("/runpod-volume"))) == 1


def test_a_dangling_snapshot_is_not_linked(hub_worker: Worker, hub: HubStandIn) -> None:
    link = snapshot(hub_worker.root, WEIGHTS, hub.commit(SOURCE.repo))
    link.resolve().unlink()

    hub_worker.fill(hub_model(HUB_PATH, SOURCE))

    assert hub_worker.layout.model(HUB_PATH).read_bytes() == read_all(WEIGHTS)


def test_a_model_that_runpod_removed_from_its_cache_is_fetched(
    hub_worker: Worker, hub: HubStandIn
) -> None:
    link = snapshot(hub_worker.root, WEIGHTS, hub.commit(SOURCE.repo))
    wanted = hub_model(HUB_PATH, SOURCE)
    hub_worker.fill(wanted)
    link.resolve().unlink()

    hub_worker.fill(wanted)

    assert hub_worker.layout.model(HUB_PATH).read_bytes() == read_all(WEIGHTS)


def verify(worker: Worker, wanted: ModelSpec) -> Verdict:
    """Reads the model again, and repairs it on what it found."""
    record = read_record(worker.layout, wanted.path)
    assert record is not None
    verdict = judge(worker.layout, record, worker.stopping)
    return repair(wanted, verdict, worker.context) if verdict.condition in TO_REPAIR else verdict


def test_a_linked_model_is_read_again_like_any_other(hub_worker: Worker, hub: HubStandIn) -> None:
    link = snapshot(hub_worker.root, WEIGHTS, hub.commit(SOURCE.repo))
    wanted = hub_model(HUB_PATH, SOURCE)
    hub_worker.fill(wanted)
    assert verify(hub_worker, wanted).condition is Condition.WHOLE
    link.resolve().write_bytes(damaged(WEIGHTS))

    assert verify(hub_worker, wanted).condition is Condition.REPAIRED

    assert hub_worker.layout.model(HUB_PATH).read_bytes() == read_all(WEIGHTS)
    assert link.read_bytes() == damaged(WEIGHTS)


def test_a_linked_model_that_was_found_damaged_is_linked_no_more(
    hub_worker: Worker, hub: HubStandIn
) -> None:
    snapshot(hub_worker.root, WEIGHTS, hub.commit(SOURCE.repo))
    wanted = hub_model(HUB_PATH, SOURCE)
    hub_worker.fill(wanted)
    record = read_record(hub_worker.layout, HUB_PATH)
    assert record is not None
    write_record(hub_worker.layout, replace(record, damaged=True))

    (cached,) = hub_worker.fill(wanted)

    assert cached.file == hub_worker.layout.model(HUB_PATH)
