"""A job's record is created by one, and ended once, whoever else tries at the same moment."""

import threading
from pathlib import Path

import pytest

from morpheus_boot.jobs.names import JobId
from morpheus_boot.jobs.record import Form, JobRecord, Status, now
from morpheus_boot.jobs.removal import remove_job
from morpheus_boot.jobs.store import JobGone, JobStore, JobTaken
from morpheus_boot.jobs.workflows import copy_workflows
from morpheus_boot.volume.layout import Layout

JOB = JobId("j")
_RACERS = 8


def record(run: str, status: Status = Status.QUEUED) -> JobRecord:
    return JobRecord(
        run=run,
        worker="w",
        form=Form.GRAPH,
        workflow=None,
        graph={},
        created_at=now(),
        status=status,
    )


def over(one: JobRecord) -> JobRecord:
    return one.model_copy(update={"status": Status.DONE})


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(Layout(tmp_path))


def race(store: JobStore, turn: int) -> list[JobRecord]:
    """As many as there are racers post the job; those whose post was taken."""
    taken: list[JobRecord] = []
    barrier = threading.Barrier(_RACERS)

    def post(number: int) -> None:
        barrier.wait()
        try:
            taken.append(store.create(JOB, record(f"{turn}-{number}")))
        except JobTaken:
            return

    racers = [threading.Thread(target=post, args=(n,)) for n in range(_RACERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    return taken


def test_of_many_posts_at_once_one_is_taken_also_where_the_job_was_over(store: JobStore) -> None:
    for turn in range(30):
        [winner] = race(store, turn)
        assert store.read(JOB) == winner
        assert store.open_jobs("w") == [(JOB, winner)]
        store.update(JOB, over(winner))
        store.forget(JOB, winner)


def test_what_is_over_stays_as_it_is(store: JobStore) -> None:
    first = store.create(JOB, record("1"))
    store.update(JOB, first.model_copy(update={"status": Status.FAILED, "error": "lost"}))

    with pytest.raises(JobGone):
        store.update(JOB, over(first))

    assert store.read(JOB) is not None
    assert getattr(store.read(JOB), "error", None) == "lost"


def test_another_run_of_the_job_is_not_touched(store: JobStore) -> None:
    first = store.create(JOB, record("1"))
    store.update(JOB, over(first))
    second = store.create(JOB, record("2"))

    with pytest.raises(JobGone):
        store.update(JOB, over(first))

    assert store.read(JOB) == second


def test_a_job_that_was_cleaned_up_is_not_made_anew_by_its_worker(
    store: JobStore, tmp_path: Path
) -> None:
    first = store.create(JOB, record("1"))
    assert remove_job(Layout(tmp_path), JOB)

    with pytest.raises(JobGone):
        store.update(JOB, over(first))

    assert not (tmp_path / "jobs" / "j").exists()


def test_a_record_that_is_torn_counts_as_none(store: JobStore, tmp_path: Path) -> None:
    store.create(JOB, record("1"))
    Layout(tmp_path).job_record("j").write_bytes(b'{"run": "1", "wor')

    assert store.read(JOB) is None
    assert store.create(JOB, record("2")).run == "2"


def test_a_request_to_cancel_is_for_one_run_alone(store: JobStore) -> None:
    first = store.create(JOB, record("1"))
    store.ask_to_cancel(JOB, first)
    store.update(JOB, over(first))
    store.create(JOB, record("2"))

    assert [(mark.job, mark.run) for mark in store.cancels("w")] == [(JOB, "1")]


def test_workflows_that_cant_be_written_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, layout = tmp_path / "workflows", Layout(tmp_path / "volume")
    source.mkdir()
    layout.root.mkdir()
    (source / "w.json").write_text("{}")
    layout.workflows.parent.write_text("a file in the way")

    copy_workflows(source, layout)

    assert "can't be written" in caplog.text
    assert "jobs can't name it" in caplog.text
