"""Clients that know a worker's paths, or none at all, send their prompts straight to ComfyUI's port."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from morpheus_boot.smoke.samples import png_size
from tests.guard.served import (
    PICTURE,
    TOKEN,
    WORKER,
    Served,
    copied,
    named,
    node,
    node_errors,
    plain,
    prepare,
    real_only,
    serving,
    variables,
)


@pytest.mark.parametrize("mount", ["ours", "/workspace", "/workspace/job_data", "/runpod-volume"])
def test_an_absolute_path_of_any_mount_is_loaded(closed: Served, mount: str) -> None:
    jobs = closed.jobs if mount == "ours" else Path(mount, "jobs")
    prefix = f"{mount.replace('/', '')}/output/copy"

    saved = closed.saved(copied(f"{jobs}/j1/input/x.png", prefix))

    assert saved == [f"{prefix}_00001_.png"]
    assert png_size((closed.jobs / saved[0]).read_bytes()) == png_size(PICTURE)


@pytest.mark.parametrize(
    ("prefix", "lands"),
    [
        ("checkpoints/alone", f"{WORKER}/output/checkpoints/alone"),
        ("{jobs}/absolute/output/ours", "absolute/output/ours"),
        ("/runpod-volume/jobs/absolute/output/theirs", "absolute/output/theirs"),
    ],
)
def test_a_prefix_lands_in_the_job_that_it_names_or_in_the_workers_own_folder(
    closed: Served, prefix: str, lands: str
) -> None:
    saved = closed.saved(plain(named(closed, prefix), color=len(lands)))

    assert saved == [f"{lands}_00001_.png"]
    assert (closed.jobs / saved[0]).is_file()
    assert not (closed.jobs / "checkpoints").exists()


def test_the_folder_is_there_before_the_prompt_runs_in_temp_as_well(closed: Served) -> None:
    graph = plain("early/output/sub/x")
    graph["make"]["inputs"]["width"] = "wide"

    assert "make" in node_errors(closed.prompt(graph))
    assert (closed.jobs / "early" / "output" / "sub").is_dir()
    assert (closed.local / "temp" / "early" / "output" / "sub").is_dir()


def test_a_folder_that_comfyui_names_by_date_is_left_to_it(closed: Served) -> None:
    [saved] = closed.saved(plain("dated/output/%year%/x"))

    folders = [folder.name for folder in (closed.jobs / "dated" / "output").iterdir()]
    assert folders == [Path(saved).parent.name]
    assert "%" not in folders[0]


@pytest.mark.parametrize("path", ["/prompt", "/api/prompt"])
@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("application/json", "utf-8"),
        ("application/json; charset=utf-16", "utf-16"),
        ("text/plain", "utf-8"),
        ("", "utf-8"),
    ],
)
def test_the_prompt_is_read_whatever_its_envelope(
    closed: Served, path: str, content_type: str, encoding: str
) -> None:
    body = json.dumps({"prompt": plain("../outside/x")}, ensure_ascii=False).encode(encoding)

    answer = closed.request("POST", path, data=body, headers={"Content-Type": content_type})

    assert node_errors(answer) == {"save": ["custom_validation_failed"]}


def test_the_prompt_that_is_put_right_goes_on_in_its_own_encoding(closed: Served) -> None:
    body = json.dumps({"prompt": plain("é/%year%", color=7)}, ensure_ascii=False).encode("utf-16")
    headers = {"Content-Type": "application/json; charset=utf-16"}

    answer = closed.request("POST", "/prompt", data=body, headers=headers)

    assert answer.status_code == 200, answer.text
    entry = closed.finished(answer.json()["prompt_id"])
    assert entry["outputs"]["save"]["images"][0]["subfolder"] == f"{WORKER}/output/é"


def test_a_prompt_of_a_job_saves_below_it_each_time_and_once_for_each_node(
    closed: Served,
) -> None:
    graph = {**plain("elsewhere/output/x", color=8), "more": node("SaveImage", images=["make", 0])}
    graph["more"]["inputs"]["filename_prefix"] = "x"

    for first in (1, 3):
        answer = closed.prompt(graph, headers={"X-Morpheus-Job": "of-a-job"})
        entry = closed.finished(answer.json()["prompt_id"])
        names = [image["filename"] for o in entry["outputs"].values() for image in o["images"]]
        assert sorted(names) == [f"x_{first:05}_.png", f"x_{first + 1:05}_.png"]
    assert len(list((closed.jobs / "of-a-job" / "output").iterdir())) == 4


def test_a_prompt_of_what_can_be_no_job_is_refused(closed: Served) -> None:
    answer = closed.prompt(plain("x"), headers={"X-Morpheus-Job": "../x"})

    assert answer.status_code == 400


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b'{"prompt": 7}', b'{"prompt": []}', b"{}"]
)
def test_what_is_no_prompt_is_refused_by_comfyui_itself(closed: Served, body: bytes) -> None:
    answer = closed.request("POST", "/prompt", data=body)

    assert answer.status_code in {400, 500}
    assert closed.get("/system_stats").ok


def test_an_unknown_node_is_refused_in_comfyuis_words(closed: Served) -> None:
    answer = closed.prompt({"1": node("NoSuchNode", image="/etc/passwd")})

    assert answer.status_code == 400
    assert "NoSuchNode" in answer.text


@pytest.mark.parametrize("where", ["a name", "a node's id", "a file that may be chosen"])
def test_a_refusal_can_be_written_down_whatever_names_it_quotes(closed: Served, where: str) -> None:
    graph = copied("no such file.png", "j1/output/x")
    if where == "a name":
        graph["load"]["inputs"]["image"] = "no such \udcff.png"
    elif where == "a node's id":
        graph = {"\udcff": node("LoadImage", image="/etc/passwd"), **graph}
    else:
        models = closed.local / "models" / "checkpoints"
        (models / os.fsdecode(b"\xff.safetensors")).touch()
        graph["load"] = node("CheckpointLoaderSimple", ckpt_name="none.safetensors")

    answer = closed.prompt(graph)

    assert answer.status_code == 400
    assert json.dumps(answer.json(), ensure_ascii=False).encode()


@pytest.mark.parametrize("depth", [200, 900, 100_000])
def test_a_value_that_is_nested_too_deeply_is_refused_in_json(closed: Served, depth: int) -> None:
    graph = plain("j1/output/deep")
    graph["make"]["inputs"]["more"] = {"deep": 7}
    nested = "[" * depth + "]" * depth
    body = json.dumps({"prompt": graph}).replace("7", nested, 1)

    answer = closed.request("POST", "/prompt", data=body)

    assert answer.status_code in ({400} if depth > 1000 else {200, 400})
    assert answer.json()


def test_a_folder_that_can_not_be_made_is_refused_at_its_node(closed: Served) -> None:
    (closed.jobs / "a-file").mkdir()
    (closed.jobs / "a-file" / "output").touch()

    answer = closed.prompt(plain("a-file/output/sub/x"))

    assert node_errors(answer) == {"save": ["custom_validation_failed"]}
    assert "folder can't be made" in answer.text


def test_the_rest_of_the_request_is_kept(closed: Served) -> None:
    number = closed.prompt(plain("kept", color=3), params={}).json()["number"]
    prompt_id = "0f8fad5b-d9cb-469f-a165-70867728950e"

    answer = closed.request(
        "POST", "/prompt", json={"prompt": plain("kept", color=4), "prompt_id": prompt_id}
    )

    assert answer.json()["prompt_id"] == prompt_id
    assert answer.json()["number"] == number + 1


@real_only
def test_a_lora_prefix_goes_to_the_worker(closed: Served) -> None:
    known = closed.get("/object_info").json()
    [name] = {"SaveLoRANode", "SaveLoRA"} & known.keys()

    answer = closed.prompt({"1": node(name, lora=["2", 0], prefix="/etc/lora")})

    assert node_errors(answer) == {"1": ["custom_validation_failed"]}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Served]]:
    """Two workers on one volume, open to everyone."""
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    prepare(first)
    prepare(second)
    (second / "volume").rename(second / "unused")
    (second / "volume").symlink_to(first / "volume")
    told = {**variables(second, token=None), "MORPHEUS_NODE_WORKER": "pod-2"}
    with serving(first, variables(first, token=None)) as one, serving(second, told) as two:
        yield [one, two]


def test_two_workers_with_one_prefix_never_write_one_name(several: list[Served]) -> None:
    for number, worker in enumerate(several):
        worker.run(plain("same", color=number * 0xFFFFFF))

    jobs = several[0].jobs
    found = {path.parts[-3]: path.read_bytes() for path in jobs.glob("*/output/same_*.png")}
    assert found.keys() == {"pod-1", "pod-2"}
    assert found["pod-1"] != found["pod-2"]


def test_without_a_token_everyone_may_come_in(several: list[Served]) -> None:
    answer = requests.get(f"{several[0].url}/", params={"token": TOKEN}, timeout=10)

    assert answer.ok
    assert not answer.history
    assert requests.get(f"{several[0].url}/system_stats", timeout=10).ok
