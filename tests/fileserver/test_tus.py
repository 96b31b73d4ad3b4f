"""The protocol, as a client sees it: requests and their answers."""

import os
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

import pytest
import requests

from tests.fileserver.serving import MIB, MOST_RSS_BYTES, FileServer, names_in
from tests.fileserver.test_metrics import metrics
from tests.fileserver.tus import CONTENT, ask, create, files_of, metadata, offset_of, patch

DAY_S = 86_400
NOWHERE = "/uploads/" + "0" * 32


def test_an_upload_in_two_requests_is_then_what_upload_would_have_made(
    shared: FileServer, job: str
) -> None:
    content = os.urandom(3 * MIB)
    path = create(shared, len(content), "a b.png", worker_job_id=job, sub_dir="x/y")
    first = patch(shared, path, 0, content[:MIB])
    assert (first.status_code, first.headers["Upload-Offset"]) == (204, str(MIB))
    assert not shared.input_of(job).exists()

    second = patch(shared, path, MIB, content[MIB:])

    assert (second.status_code, second.headers["Upload-Offset"]) == (204, str(3 * MIB))
    assert (shared.input_of(job) / "x/y/a b.png").read_bytes() == content
    told = shared.get(path).json()
    usual = shared.upload(content, "a b.png", worker_job_id=job, sub_dir="x/y").json()
    assert told == {**usual, "received_bytes": 3 * MIB, "size_bytes": 3 * MIB}


def test_how_an_upload_stands_can_be_asked_at_any_time(shared: FileServer, job: str) -> None:
    path = create(shared, 10, worker_job_id=job)
    patch(shared, path, 0, b"0123")

    head, told = ask(shared, "HEAD", path), shared.get(path)

    assert head.status_code == 200
    assert head.headers["Upload-Offset"] == "4"
    assert head.headers["Upload-Length"] == "10"
    assert head.headers["Upload-Metadata"] == metadata(filename="a.bin", worker_job_id=job)
    assert head.headers["Cache-Control"] == "no-store"
    assert told.json() == {
        "message": "a.bin: 4 of 10 bytes are here",
        "worker_job_id": job,
        "received_bytes": 4,
        "size_bytes": 10,
        "pod_path": None,
        "comfy_path": None,
    }


def test_location_leads_to_the_upload_behind_any_proxy(shared: FileServer) -> None:
    told = {"Upload-Length": "1", "Upload-Metadata": metadata(filename="a")}
    location = ask(shared, "POST", "/uploads", told).headers["Location"]
    assert "://" not in location
    outside = urljoin("https://pod-8000.proxy.runpod.net/prefix/uploads", location)
    assert outside == f"https://pod-8000.proxy.runpod.net/prefix/{location}"
    assert offset_of(shared, f"/{location}") == 0


def test_it_expires_a_day_after_its_last_byte(shared: FileServer) -> None:
    path = create(shared, 2)
    for answer in (ask(shared, "HEAD", path), patch(shared, path, 0, b"x")):
        expires, now = (
            parsedate_to_datetime(answer.headers[name]) for name in ("Upload-Expires", "Date")
        )
        assert abs((expires - now).total_seconds() - DAY_S) <= 5


def test_an_empty_file_is_complete_at_its_creation(shared: FileServer, job: str) -> None:
    path = create(shared, 0, worker_job_id=job)
    assert (shared.input_of(job) / "a.bin").read_bytes() == b""
    assert shared.get(path).json()["pod_path"] == str(shared.input_of(job) / "a.bin")
    assert offset_of(shared, path) == 0


def test_without_a_job_the_upload_gets_one_of_its_own(shared: FileServer) -> None:
    told = {"Upload-Length": "1", "Upload-Metadata": metadata(filename="a", worker_job_id="")}
    answer = ask(shared, "POST", "/uploads", told)
    patch(shared, f"/{answer.headers['Location']}", 0, b"x")
    assert names_in(shared.input_of(answer.json()["worker_job_id"])) == ["a"]


def test_a_client_that_lost_the_last_answer_sees_that_it_is_complete(
    shared: FileServer, job: str
) -> None:
    path = create(shared, 3, worker_job_id=job)
    patch(shared, path, 0, b"abc")
    assert offset_of(shared, path) == 3
    again = patch(shared, path, 3, b"")
    assert (again.status_code, again.headers["Upload-Offset"]) == (204, "3")
    assert patch(shared, path, 0, b"abc").status_code == 409
    assert patch(shared, path, 3, b"d").status_code == 413


def test_an_upload_that_is_ended_is_gone_and_a_complete_one_leaves_its_file(
    shared: FileServer, job: str
) -> None:
    begun, complete = create(shared, 3, worker_job_id=job), create(shared, 1, worker_job_id=job)
    patch(shared, begun, 0, b"a")
    patch(shared, complete, 0, b"a")
    for path in (begun, complete):
        ended = ask(shared, "DELETE", path)
        assert (ended.status_code, ended.content) == (204, b"")
        assert ask(shared, "HEAD", path).status_code == 404
        assert shared.get(path).status_code == 404
        assert patch(shared, path, 1, b"b").status_code == 404
        assert ask(shared, "DELETE", path).status_code == 404
    assert names_in(shared.input_of(job)) == ["a.bin"]


@pytest.mark.parametrize("path", ["/uploads", NOWHERE])
def test_options_tell_what_the_server_can(shared: FileServer, path: str) -> None:
    answer = ask(shared, "OPTIONS", path, {"Tus-Resumable": "0.2.2"})
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert answer.headers["Tus-Extension"] == "creation,termination,expiration"
    assert answer.headers["Tus-Max-Size"] == "20000000000"


NEW = {"Upload-Length": "10", "Upload-Metadata": metadata(filename="a", worker_job_id="refused")}
NEXT = {"Upload-Offset": "0", "Content-Type": CONTENT}
LEADING_OUT = [
    *({"sub_dir": text} for text in ("../../other", "/etc", "a//b", "a/./b", "a\\..\\b", "a\0b")),
    *({"worker_job_id": text} for text in ("../other", "..", "checkpoints", "a/b")),
]
# Of an upload of 10 bytes, none of which has come: what is asked, and the answer's status.
REFUSED: list[tuple[str, str, Mapping[str, str | bytes], bytes, int]] = [
    ("POST", "/uploads", {**NEW, "Tus-Resumable": "0.2.2"}, b"", 412),
    ("POST", "/uploads", {**NEW, "Upload-Length": ""}, b"", 400),
    ("POST", "/uploads", {**NEW, "Upload-Length": "-1"}, b"", 400),
    ("POST", "/uploads", {**NEW, "Upload-Length": "1e3"}, b"", 400),
    ("POST", "/uploads", {**NEW, "Upload-Length": "9" * 40}, b"", 400),
    ("POST", "/uploads", {**NEW, "Upload-Length": "20000000001"}, b"", 413),
    ("POST", "/uploads", {**NEW, "Upload-Defer-Length": "1"}, b"", 400),
    ("POST", "/uploads", {**NEW, "Upload-Metadata": ""}, b"", 422),
    ("POST", "/uploads", {**NEW, "Upload-Metadata": "filename"}, b"", 422),
    ("POST", "/uploads", {**NEW, "Upload-Metadata": "filename a.png"}, b"", 400),
    ("POST", "/uploads", {**NEW, "Upload-Metadata": "filename YQ==,filename YQ=="}, b"", 400),
    ("POST", "/uploads", {**NEW, "Upload-Metadata": "filename YQ==,,"}, b"", 400),
    ("POST", "/uploads", {**NEW, "Upload-Metadata": b"f\xff YQ=="}, b"", 400),
    ("POST", "/uploads", {**NEW, "X-HTTP-Method-Override": "BREW"}, b"", 400),
    *(
        ("POST", "/uploads", {**NEW, "Upload-Metadata": metadata(filename="a", **given)}, b"", 422)
        for given in LEADING_OUT
    ),
    ("HEAD", "{upload}", {"Tus-Resumable": "2.0.0"}, b"", 412),
    ("HEAD", NOWHERE, {}, b"", 404),
    ("HEAD", "/uploads/..%2f..%2fsecret", {}, b"", 404),
    ("GET", "/uploads/A" + "0" * 31, {}, b"", 404),
    ("PATCH", NOWHERE, NEXT, b"0", 404),
    ("PATCH", "{upload}", {**NEXT, "Tus-Resumable": ""}, b"0", 412),
    ("PATCH", "{upload}", {**NEXT, "Content-Type": "application/octet-stream"}, b"0", 415),
    ("PATCH", "{upload}", {"Content-Type": CONTENT}, b"0", 400),
    ("PATCH", "{upload}", {**NEXT, "Upload-Offset": "zero"}, b"0", 400),
    ("PATCH", "{upload}", {**NEXT, "Upload-Offset": "1"}, b"0", 409),
    ("PATCH", "{upload}", NEXT, b"0123456789a", 413),
    ("DELETE", NOWHERE, {}, b"", 404),
    ("DELETE", "{upload}", {"Tus-Resumable": "1"}, b"", 412),
    ("PUT", "{upload}", {}, b"", 405),
    ("DELETE", "/uploads", {}, b"", 405),
]


@pytest.mark.parametrize("transcript", REFUSED)
def test_what_is_wrong_is_refused_and_changes_nothing(
    shared: FileServer, transcript: tuple[str, str, Mapping[str, str | bytes], bytes, int]
) -> None:
    method, path, headers, body, status = transcript
    upload, before = create(shared, 10), files_of(shared)

    answer = ask(shared, method, path.format(upload=upload), headers, body)

    assert answer.status_code == status
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert method == "HEAD" or answer.json()["detail"]
    if status == 412:
        assert answer.headers["Tus-Version"] == "1.0.0"
    assert offset_of(shared, upload) == 0
    assert files_of(shared) == before
    assert not shared.input_of("refused").exists()


@pytest.mark.parametrize(
    ("filename", "kept"),
    [("../../etc/passwd", "passwd"), ("C:\\x\\nul.txt", "_nul.txt"), ("\r\nX: y", "__X_ y")],
)
def test_a_filename_is_made_safe_as_that_of_an_upload(
    shared: FileServer, job: str, filename: str, kept: str
) -> None:
    path = create(shared, 1, filename, worker_job_id=job)
    patch(shared, path, 0, b"x")
    assert names_in(shared.input_of(job)) == [kept]


def test_a_client_without_patch_and_delete_says_them_in_a_header(
    shared: FileServer, job: str
) -> None:
    path, untouched = create(shared, 2, worker_job_id=job), create(shared, 2)
    told = {**NEXT, "X-HTTP-Method-Override": "PATCH"}
    assert ask(shared, "POST", path, told, b"ab").status_code == 204
    assert (shared.input_of(job) / "a.bin").read_bytes() == b"ab"
    found = ask(shared, "POST", path, {"X-HTTP-Method-Override": "HEAD"})
    assert (found.status_code, found.headers["Upload-Offset"]) == (200, "2")
    assert ask(shared, "POST", NOWHERE, {"X-HTTP-Method-Override": "HEAD"}).status_code == 404
    ended = ask(shared, "POST", untouched, {"X-HTTP-Method-Override": "DELETE"})
    assert ended.status_code == 204
    assert ask(shared, "HEAD", untouched).status_code == 404


def test_its_memory_does_not_grow_with_the_file(shared: FileServer, job: str) -> None:
    size_bytes = 200 * MIB
    path = create(shared, size_bytes, worker_job_id=job)
    assert patch(shared, path, 0, bytes(size_bytes)).status_code == 204
    assert (shared.input_of(job) / "a.bin").stat().st_size == size_bytes
    assert shared.peak_rss_bytes < MOST_RSS_BYTES


def test_a_body_of_untold_length_is_taken_up_to_what_is_left(shared: FileServer, job: str) -> None:
    path = create(shared, 4, worker_job_id=job)
    url = shared.url + path
    told = {**NEXT, "Tus-Resumable": "1.0.0"}
    more = requests.patch(url, headers=told, data=iter([b"ab", b"cde"]), timeout=30)
    assert more.status_code == 413
    at = offset_of(shared, path)
    rest = requests.patch(
        url,
        headers={**told, "Upload-Offset": str(at)},
        data=iter([b"abcd"[at:]]),
        timeout=30,
    )
    assert rest.status_code == 204
    assert (shared.input_of(job) / "a.bin").read_bytes() == b"abcd"


def test_a_file_of_the_same_name_is_replaced_and_a_folders_name_is_refused(
    shared: FileServer, job: str
) -> None:
    shared.upload(b"old", worker_job_id=job)
    shared.upload(b"x", "inside", worker_job_id=job, sub_dir="folder")
    patch(shared, create(shared, 3, worker_job_id=job), 0, b"new")
    assert (shared.input_of(job) / "a.bin").read_bytes() == b"new"
    path = create(shared, 3, "folder", worker_job_id=job)
    assert patch(shared, path, 0, b"new").status_code == 409
    # All but the last byte stays, so that the end can be tried again.
    assert offset_of(shared, path) == 2
    assert shared.post(f"/cleanup/{job}").status_code == 200
    assert patch(shared, path, 2, b"w").status_code == 204
    assert (shared.input_of(job) / "folder").read_bytes() == b"new"


def test_it_counts_to_the_jobs_files_and_to_the_uploaded_bytes(
    start: Callable[..., FileServer],
) -> None:
    server = start(env={"MORPHEUS_MAX_JOB_FILES": "2", "MORPHEUS_MAX_UPLOAD_MB": "1"})
    server.upload(b"1", "1", worker_job_id="j")
    patch(server, create(server, 2, "2", worker_job_id="j"), 0, b"22")
    full = patch(server, create(server, 3, "3", worker_job_id="j"), 0, b"333")
    assert full.status_code == 409
    assert server.upload(b"3", "3", worker_job_id="j").status_code == 409
    assert names_in(server.input_of("j")) == ["1", "2"]
    counted = metrics(server)
    assert counted["morpheus_uploaded_bytes_total"] == 3
    counter = 'morpheus_requests_total{method="PATCH",route="/uploads/{upload}",status="%d"}'
    assert (counted[counter % 204], counted[counter % 409]) == (1, 1)
    told = {**NEW, "Upload-Length": "1000001"}
    assert ask(server, "POST", "/uploads", told).status_code == 413


def test_nothing_is_done_without_the_token_nor_without_a_volume(
    start: Callable[..., FileServer],
) -> None:
    server = start(volume="", env={"MORPHEUS_TOKEN": "t0ken"})
    told = {**NEW, **NEXT}
    for method in ("HEAD", "GET", "PATCH", "DELETE", "OPTIONS"):
        answer = ask(server, method, NOWHERE, told)
        assert answer.status_code == 401
    assert ask(server, "POST", "/uploads", told).status_code == 401
    given = {**told, "X-Morpheus-Token": "t0ken"}
    assert ask(server, "POST", "/uploads", given).status_code == 503
    assert ask(server, "HEAD", NOWHERE, given).status_code == 503
    assert ask(server, "OPTIONS", "/uploads", given).status_code == 503
