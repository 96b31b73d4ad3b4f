import hashlib
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fileserver.answers import Refused
from fileserver.bodies import UploadForm
from morpheus_boot.jobs.names import InvalidName
from tests.fileserver.serving import (
    MIB,
    MOST_RSS_BYTES,
    FileServer,
    form,
    names_in,
    read_to_end,
    upload_head,
)
from tests.wait import wait_until


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("filename=\"_.png\"; filename*=UTF-8''%C3%B1.png", "ñ.png"),
        ("filename*=iso-8859-1'en'%F1.png", "ñ.png"),
        ("filename*=UTF-8''..%2F..%2Fa.png", "a.png"),
        ("filename=a.png; filename*=nonsense''%62.png", "a.png"),
        ("filename=\"a; filename*=UTF-8''b.png\"", "a; filename_=UTF-8''b.png"),
        ('filename="=?utf-8?B?w7EucG5n?="', "ñ.png"),
        ('filename="=?utf-8?Q?=C3=B1.png?="', "ñ.png"),
        ('filename="=?nonsense?B?w7EucG5n?=.png"', "=_nonsense_B_w7EucG5n_=.png"),
        ('filename="=?utf-8?B?x?="', "=_utf-8_B_x_="),
    ],
)
def test_a_files_name_may_be_spelt_as_any_client_does(given: str, kept: str) -> None:
    upload = UploadForm("multipart/form-data; boundary=b", 10_000)
    head = f'--b\r\nContent-Disposition: form-data; name="file"; {given}\r\n\r\n'
    upload.feed(f"{head}x\r\n--b--\r\n".encode())

    assert upload.finish().text == kept


def test_an_upload_lies_whole_where_the_answer_says(shared: FileServer, job: str) -> None:
    content = os.urandom(3 * MIB + 17)
    answer = shared.upload(content, "in put.png", worker_job_id=job, sub_dir="a/b")
    assert answer.status_code == 200
    told = answer.json()
    assert set(told) == {"message", "pod_path", "comfy_path", "worker_job_id"}
    assert told["worker_job_id"] == job
    assert told["comfy_path"] == f"{job}/input/a/b/in put.png [output]"
    assert told["pod_path"] == str(shared.volume / "jobs" / job / "input/a/b/in put.png")
    assert Path(told["pod_path"]).read_bytes() == content
    assert shared.parts == []


def test_without_a_job_each_upload_gets_one_of_its_own(shared: FileServer) -> None:
    first, second = (shared.upload(b"x", worker_job_id="").json() for _ in range(2))
    assert first["worker_job_id"] != second["worker_job_id"]
    assert Path(first["pod_path"]).read_bytes() == b"x"


@pytest.mark.parametrize("size_bytes", [0, 1, 65_535, 65_536, 5 * MIB])
def test_any_size_comes_through(shared: FileServer, job: str, size_bytes: int) -> None:
    content = os.urandom(size_bytes)
    shared.upload(content, worker_job_id=job)
    assert (shared.input_of(job) / "a.bin").read_bytes() == content


def test_the_fields_may_come_in_any_order_and_pieces(shared: FileServer, job: str) -> None:
    content = b"\r\n--boundar\r\n--boundary-\r--\n" * 50
    fields = f'--boundary\r\nContent-Disposition: form-data; name="worker_job_id"\r\n\r\n{job}\r\n'
    body, headers = form(content)
    body = body.removesuffix(b"--\r\n") + b"\r\n" + fields.removeprefix("--boundary\r\n").encode()
    body += b"--boundary--\r\n"
    with shared.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(upload_head(len(body), headers + b"Connection: close\r\n"))
        for at in range(0, len(body), 7):
            client.sendall(body[at : at + 7])
        assert b"200 OK" in read_to_end(client)
    assert (shared.input_of(job) / "a.bin").read_bytes() == content


def test_a_chunked_body_comes_through(shared: FileServer, job: str) -> None:
    body, headers = form(os.urandom(MIB), worker_job_id=job)
    pieces = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
    answer = shared.post(
        "/upload", data=pieces, headers={"Content-Type": headers.decode().split(": ")[1].strip()}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../../etc/passwd", "passwd"),
        ("..\\..\\x.png", "x.png"),
        ("写真.png", "写真.png"),
        ("n\u0303.png", "ñ.png"),
        ("CON", "_CON"),
        ("..", "file"),
        ("x" * 400 + ".png", "x" * 251 + ".png"),
    ],
)
def test_the_file_is_kept_under_a_safe_name_that_the_answer_says(
    shared: FileServer, job: str, sent: str, kept: str
) -> None:
    body, headers = form(b"x", sent, worker_job_id=job)
    answer = shared.post(
        "/upload", data=body, headers={"Content-Type": headers.decode().split(": ")[1].strip()}
    )
    assert Path(answer.json()["pod_path"]).name == kept
    assert names_in(shared.input_of(job)) == [kept]


def test_a_second_upload_replaces_the_first(shared: FileServer, job: str) -> None:
    shared.upload(b"first and longer", worker_job_id=job)
    shared.upload(b"second", worker_job_id=job)
    assert (shared.input_of(job) / "a.bin").read_bytes() == b"second"


def test_of_many_at_once_under_one_name_one_is_left_whole(shared: FileServer, job: str) -> None:
    contents = [bytes([n]) * (2 * MIB) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda content: (
                    requests.post(
                        f"{shared.url}/upload",
                        files={"file": ("a.bin", content)},
                        data={"worker_job_id": job},
                        timeout=60,
                    ).status_code
                ),
                contents,
            )
        )
    assert answers == [200] * 8
    assert (shared.input_of(job) / "a.bin").read_bytes() in contents
    assert names_in(shared.input_of(job)) == ["a.bin"]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"worker_job_id": ".."}, "worker_job_id"),
        ({"worker_job_id": "a/b"}, "worker_job_id"),
        ({"worker_job_id": "checkpoints"}, "worker_job_id"),
        ({"worker_job_id": "x" * 129}, "worker_job_id"),
        ({"sub_dir": "../x"}, "sub_dir"),
        ({"sub_dir": "/etc"}, "sub_dir"),
        ({"sub_dir": "a\\..\\b"}, "sub_dir"),
    ],
)
def test_a_wrong_field_is_422_and_leaves_nothing(
    shared: FileServer, fields: dict[str, str], names: str
) -> None:
    before = sorted((shared.volume / "jobs").iterdir()) if (shared.volume / "jobs").exists() else []
    answer = shared.upload(os.urandom(2 * MIB), **fields)
    assert answer.status_code == 422
    assert names in answer.json()["detail"]
    assert shared.parts == []
    assert before == sorted((shared.volume / "jobs").iterdir())


def test_a_wrong_job_id_is_told_before_the_file_has_come(shared: FileServer) -> None:
    body, headers = form(bytes(20 * MIB), worker_job_id="..")
    with shared.connect() as client:
        client.sendall(upload_head(len(body), headers) + body[:1000])
        assert client.recv(12) == b"HTTP/1.1 422"


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "multipart/form-data; boundary=b", 400),
        (b"--b--\r\n", "multipart/form-data; boundary=b", 422),
        (b"x", "application/octet-stream", 400),
        (b"{}", "application/json", 400),
        (b"a=b", "application/x-www-form-urlencoded", 400),
        (b"x", "multipart/form-data", 400),
        (b"x", "multipart/form-data; boundary=", 400),
        (b"x", "multipart/form-data; boundary=" + "b" * 300, 400),
        (b"--c\r\n", "multipart/form-data; boundary=b", 400),
        (b"--b\r\nbad header\r\n\r\nx\r\n--b--", "multipart/form-data; boundary=b", 400),
        (b"--b\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b", 400),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            422,
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            422,
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\n'
            + bytes(100_000)
            + b"\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
            413,
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n' * 40 + b"--b--\r\n",
            "multipart/form-data; boundary=b",
            413,
        ),
    ],
)
def test_a_body_that_is_no_upload_is_refused(
    shared: FileServer, body: bytes, content_type: str, status: int
) -> None:
    answer = shared.post("/upload", data=body, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert answer.json()["detail"]
    assert shared.parts == []


def test_two_files_in_one_upload_are_refused_and_neither_is_left(
    shared: FileServer, job: str
) -> None:
    answer = shared.post(
        "/upload",
        files=[("file", ("a", b"x" * MIB)), ("file", ("b", b"y" * MIB))],
        data={"worker_job_id": job},
    )
    assert answer.status_code == 422
    assert not shared.input_of(job).exists()
    assert shared.parts == []


@pytest.mark.parametrize(
    ("name", "sub_dir"), [("folder", ""), ("x", "file"), ("x", "file/deeper"), ("x", "link")]
)
def test_a_name_that_is_something_else_is_409(
    shared: FileServer, job: str, tmp_path: Path, name: str, sub_dir: str
) -> None:
    target = shared.input_of(job)
    (target / "folder").mkdir(parents=True)
    (target / "file").write_bytes(b"kept")
    (target / "link").symlink_to(tmp_path)
    answer = shared.upload(b"new", name, worker_job_id=job, sub_dir=sub_dir)
    assert answer.status_code == 409
    assert (target / "file").read_bytes() == b"kept"
    assert list(tmp_path.iterdir()) == []
    assert shared.parts == []


@pytest.mark.parametrize("link", ["job", "input", "name"])
def test_an_upload_follows_no_link(shared: FileServer, job: str, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.bin").write_bytes(b"not yours")
    if link == "job":
        (shared.volume / "jobs").mkdir(exist_ok=True)
        (shared.volume / "jobs" / job).symlink_to(outside)
    elif link == "input":
        (shared.volume / "jobs" / job).mkdir(parents=True)
        shared.input_of(job).symlink_to(outside)
    else:
        shared.input_of(job).mkdir(parents=True)
        (shared.input_of(job) / "a.bin").symlink_to(outside / "a.bin")
    answer = shared.upload(b"new", worker_job_id=job)
    assert answer.status_code == (200 if link == "name" else 409)
    assert [path.name for path in outside.iterdir()] == ["a.bin"]
    assert (outside / "a.bin").read_bytes() == b"not yours"
    if link == "name":
        assert (shared.input_of(job) / "a.bin").read_bytes() == b"new"
        assert not (shared.input_of(job) / "a.bin").is_symlink()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """A server with low limits."""
    limits = {
        "MORPHEUS_MAX_UPLOAD_MB": "1",
        "MORPHEUS_MAX_JOB_FILES": "3",
        "MORPHEUS_MAX_FORM_KB": "1",
    }
    with FileServer(tmp_path_factory.mktemp("small"), env=limits) as server:
        yield server


def test_an_upload_over_the_limit_is_413_at_once(small: FileServer) -> None:
    body, headers = form(bytes(2_000_000))
    with small.connect() as client:
        client.sendall(upload_head(len(body), headers + b"Expect: 100-continue\r\n"))
        assert client.recv(12) == b"HTTP/1.1 413"


def test_an_upload_that_hides_its_length_is_413_when_it_is_over(small: FileServer) -> None:
    body, headers = form(bytes(5_000_000))
    pieces = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
    answer = small.post(
        "/upload", data=pieces, headers={"Content-Type": headers.decode().split(": ")[1].strip()}
    )
    assert answer.status_code == 413
    assert small.parts == []


def test_a_form_over_its_limit_is_413(small: FileServer, job: str) -> None:
    assert small.upload(b"x", worker_job_id=job, note="n" * 2000).status_code == 413


def test_a_job_takes_so_many_files_and_no_more(small: FileServer, job: str) -> None:
    for name in ("a", "b", "a", "c", "b"):
        assert small.upload(b"x", name, worker_job_id=job).status_code == 200
    full = small.upload(b"x", "d", worker_job_id=job)
    assert full.status_code == 409
    assert "3 files" in full.json()["detail"]
    assert names_in(small.input_of(job)) == ["a", "b", "c"]
    (small.input_of(job) / "a").unlink()
    assert small.upload(b"x", "d", worker_job_id=job).status_code == 200
    small.post(f"/cleanup/{job}")
    assert small.upload(b"x", "d", worker_job_id=job).status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000,
        b"GET /" + b"h" * 70_000,
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 12_000,
        b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"y" * 70_000,
    ],
)
def test_a_head_without_end_is_400(shared: FileServer, head: bytes) -> None:
    answer = shared.raw(head)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b'{"detail": "request: its head is too long"}')


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    content=st.binary(max_size=200)
    | st.lists(
        st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--b", b"b", b"\r\n--b-", b"x"])
    ).map(b"".join),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_the_form_gives_back_what_was_put_in_however_it_is_cut(
    content: bytes, cuts: list[int]
) -> None:
    if b"\r\n--bo" in b"\r\n" + content:
        return
    body, _ = form(content, "ñ.png", "bo", worker_job_id="j", sub_dir="s")
    parsed = UploadForm("multipart/form-data; boundary=bo", 10_000)
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    chunks = []
    for begin, end in itertools.pairwise(edges):
        parsed.feed(body[begin:end])
        chunks += parsed.take_chunks()
    assert parsed.finish().text == "ñ.png"
    assert b"".join(chunks) == content
    assert str(parsed.job) == "j"
    assert str(parsed.sub_dir) == "s"


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from(
            [
                b"--bo",
                b"--",
                b"\r\n",
                b"\r",
                b"\n",
                b"\0",
                b'Content-Disposition: form-data; name="file"; filename="a"',
                b'Content-Disposition: form-data; name="worker_job_id"',
                b"Content-Disposition",
                b": ",
                b";",
                b'"',
                b"\xff",
                b"job",
            ]
        )
        | st.binary(max_size=20),
        max_size=30,
    )
)
def test_no_body_whatever_does_more_than_fail(pieces: list[bytes]) -> None:
    try:
        parsed = UploadForm("multipart/form-data; boundary=bo", 1000)
        for piece in pieces:
            parsed.feed(piece)
        parsed.finish()
    except (Refused, InvalidName):
        pass


def test_what_was_uploaded_is_what_comes_of_many_at_once(
    start: Callable[..., FileServer],
) -> None:
    """The scaled form of ``soak_fileserver.py``'s 10,000."""
    server = start()

    def one(number: int) -> str:
        content = hashlib.sha256(b"%d" % number).digest() * (number % 700)
        with requests.Session() as session:
            answer = session.post(
                f"{server.url}/upload",
                files={"file": (f"{number}.bin", content)},
                data={"worker_job_id": f"j{number % 10}", "sub_dir": str(number % 3)},
                timeout=60,
            )
        assert answer.status_code == 200
        assert Path(answer.json()["pod_path"]).read_bytes() == content
        return str(answer.json()["pod_path"])

    with ThreadPoolExecutor(32) as pool:
        paths = set(pool.map(one, range(400)))
    assert len(paths) == 400
    assert {str(p) for p in (server.volume / "jobs").rglob("*.bin")} == paths
    assert server.parts == []
    wait_until(lambda: server.descriptors < 40)
    assert server.peak_rss_bytes < MOST_RSS_BYTES
