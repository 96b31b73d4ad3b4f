"""A fleet that is updated worker by worker: a newer version's fields are passed over, on what this version knows."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from morpheus_boot.cache.lock.heartbeat import Beat, read_beat
from morpheus_boot.cache.lock.lock import ModelLock, heartbeat_of
from morpheus_boot.cache.manifests import Roots
from morpheus_boot.cache.options import LockTimes
from morpheus_boot.cache.parts import Version
from morpheus_boot.cache.planner import Action
from morpheus_boot.errors import StorageFailed
from morpheus_boot.volume.documents import from_document
from morpheus_boot.volume.journal import read_journal
from tests.cache.worker import MIB, Worker, model
from tests.testbed.content import safetensors
from tests.testbed.origin import Origin

PATH = "checkpoints/a.safetensors"
NEW = {"a_later_field": {"of": "a newer version"}}


def rewrite(path: Path, change: Mapping[str, object]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))


def test_a_model_that_a_newer_version_recorded_is_present(tmp_path: Path, origin: Origin) -> None:
    wanted = model(PATH, origin.serve("/a", safetensors(MIB)))
    worker = Worker(tmp_path)
    worker.fill(wanted)

    rewrite(worker.layout.record(PATH), NEW)

    assert [step.action for step in worker.plan(wanted).steps] == [Action.PRESENT]


def test_the_heartbeat_of_a_newer_version_is_heard(tmp_path: Path) -> None:
    lock = Worker(tmp_path).layout.lock(PATH)
    claim = ModelLock(PATH, lock, "w", replace(LockTimes(), beat_s=1000.0)).try_claim()
    assert claim is not None
    with claim:
        rewrite(heartbeat_of(lock), NEW)

        assert read_beat(heartbeat_of(lock)) == Beat("w", 1)


def test_the_manifest_of_a_newer_version_keeps_its_models(tmp_path: Path) -> None:
    layout = Worker(tmp_path).layout
    layout.manifests.mkdir(parents=True)
    named = {"path": PATH, "origin": "o", **NEW}
    document = {"endpoint": "e", "worker": None, "models": [named], **NEW}
    (layout.manifests / "e.json").write_text(json.dumps(document))

    assert Roots(layout, 0.0).paths() == {PATH}


@pytest.mark.parametrize("document", [[], "text", None, {}, {"endpoint": "e"}, {"models": [1]}])
def test_what_is_no_manifest_is_an_error_all_the_same(tmp_path: Path, document: object) -> None:
    layout = Worker(tmp_path).layout
    layout.manifests.mkdir(parents=True)
    (layout.manifests / "e.json").write_text(json.dumps(document))

    with pytest.raises(StorageFailed, match="no manifest"):
        Roots(layout, 0.0).paths()


def test_the_journal_of_a_newer_version_is_continued(tmp_path: Path) -> None:
    version = {"origin": "o", "size_bytes": 10, "sha256": None, "etag": '"e"', **NEW}
    (tmp_path / "a.journal").write_text(f"{json.dumps(version)}\n[0,5]\n")

    found = read_journal(tmp_path / "a.part", Version)

    assert found is not None
    assert found.head.etag == '"e"'
    assert found.done_bytes == 5


def test_a_document_without_a_field_that_must_be_there_is_none() -> None:
    with pytest.raises(ValueError, match="counter: Field required"):
        from_document(Beat, b'{"worker": "w"}')
    with pytest.raises(ValueError, match="object"):
        from_document(Beat, b'["w", 1]')


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mtime_ns", None),
        ("mtime_ns", "1"),
        ("size_bytes", True),
        ("sha256", 1),
        ("hub_file", []),
        ("damaged", 0),
        ("origin", None),
    ],
)
def test_a_record_with_a_field_of_another_type_is_as_none(
    tmp_path: Path, origin: Origin, field: str, value: object
) -> None:
    wanted = model(PATH, origin.serve("/a", safetensors(MIB)))
    worker = Worker(tmp_path)
    worker.fill(wanted)

    rewrite(worker.layout.record(PATH), {field: value})

    assert [step.action for step in worker.plan(wanted).steps] == [Action.ADOPT]
