"""What becomes of a prompt's inputs, class by class, before any ComfyUI sees it."""

import copy
import json
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from morpheus_boot.comfyui.guard.node_errors import refused
from morpheus_boot.comfyui.guard.paths import Places, Sender
from morpheus_boot.comfyui.guard.prompts import Decision, Destination, decide
from tests.guard.served import node


class Node:
    """A node class as ComfyUI knows it; ``asked`` counts how often it was asked what it takes."""

    declared: ClassVar[dict[str, Any]] = {}
    asked = 0

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        cls.asked += 1
        return cls.declared


class LoadImage(Node):
    declared: ClassVar = {"required": {"image": (["x.png", "../fonts/a.ttf"], {})}}


class LoadImageV3(Node):
    declared: ClassVar = {"optional": {"image": ("COMBO", {"options": ["x.png"]})}}


class LoadImageOutput(Node):
    declared: ClassVar = {"required": {"image": ("COMBO", {"remote": {"route": "/files"}})}}


class LoadPath(Node):
    declared: ClassVar = {"required": {"path": ("STRING", {}), "view": ("LOAD_3D", {})}}


class SaveImage(Node):
    OUTPUT_NODE = True


class Broken(Node):
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        raise RuntimeError("a stranger's bug")


LOADERS = [LoadImage.__name__, LoadImageV3.__name__, LoadImageOutput.__name__]
SAVERS = ("SaveImage", "SaveLoRANode", "SaveLoRA", "Other", "SaveImageDataSetToFolder")
CLASSES: dict[str, type[Node]] = {
    **{known.__name__: known for known in (LoadImage, LoadImageV3, LoadImageOutput, LoadPath)},
    "Broken": Broken,
    **dict.fromkeys(SAVERS, SaveImage),
}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    jobs = tmp_path / "job_data" / "jobs"
    (jobs / "j1" / "input").mkdir(parents=True)
    (jobs / "j1" / "link").symlink_to(tmp_path)
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "link").symlink_to(tmp_path / "job_data" / "model_cache" / "vae")
    (tmp_path / "input" / "inside").symlink_to(jobs / "j1" / "input")
    others = ("/workspace/jobs", "/runpod-volume/jobs")
    return Places(str(jobs), str(tmp_path / "input"), str(tmp_path / "temp"), others)


def asked(places: Places, kind: str, **inputs: object) -> Decision:
    prompt = {"1": node(kind, **inputs)}
    before = copy.deepcopy(prompt)
    decision = decide(prompt, CLASSES, places, Sender("pod-1"))
    assert prompt == before
    return decision


def given(decision: Decision) -> Any:
    assert not decision.refusals
    return decision.prompt["1"]["inputs"]


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("mount", ["/workspace", "/runpod-volume", "ours"])
@pytest.mark.parametrize("annotation", ["", " [output]", " [input]"])
def test_an_absolute_path_below_jobs_becomes_an_annotated_one(
    places: Places, kind: str, mount: str, annotation: str
) -> None:
    jobs = places.jobs if mount == "ours" else f"{mount}/jobs"
    path, becomes = f"{jobs}/j1/input/x.png{annotation}", "j1/input/x.png [output]"

    assert given(asked(places, kind, image=path)) == {"image": becomes}
    wrapped = asked(places, kind, image={"__value__": [path, "x.png"]})
    assert given(wrapped) == {"image": {"__value__": [becomes, "x.png"]}}


@pytest.mark.parametrize("kind", LOADERS)
def test_other_names_stay(places: Places, kind: str) -> None:
    plain = ["x.png", "sub/x.png", "x.png [input]", "clipspace/x.png [temp]", "../input/x.png"]
    for name in (*plain, "j1/input/x.png [output]", "not there.png", "", 7, None, ["other", 0]):
        assert given(asked(places, kind, image=name)) == {"image": name}


def test_a_name_that_the_class_offers_stays_whatever_it_is(places: Places) -> None:
    assert given(asked(places, "LoadImage", image="../fonts/a.ttf")) == {"image": "../fonts/a.ttf"}


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "//etc/passwd", "/workspace/model_cache/vae/x.png", "/workspace/jobs"),
        *("/workspace/jobs/../model_cache/x.png", "../../x.png", "../x.png [output]"),
        *("../x.png[output]x[output]", "a/../../x.png [temp]", "link/x.png", "link/../x.png"),
        *("inside/../../x.png", "j1/link/x.png [output]", "x\0.png", "\ud800.png"),
        "j1/link/job_data/model_cache/x.png [output]",
    ],
)
def test_a_file_outside_is_refused(places: Places, kind: str, name: str) -> None:
    for value in (name, {"__value__": ["x.png", name]}):
        [refusal] = asked(places, kind, image=value).refusals
        assert (refusal.node_id, refusal.input_name) == ("1", "image")


def test_any_other_string_is_translated_to_this_mount_and_never_annotated(places: Places) -> None:
    theirs, ours = "/workspace/jobs/j1/input/x.glb", f"{places.jobs}/j1/input/x.glb"
    nested = {"image": theirs, "more": [theirs, 3]}

    decision = asked(places, "LoadPath", path=theirs, view=nested, undeclared=theirs)

    translated = {"image": ours, "more": [ours, 3]}
    assert given(decision) == {"path": ours, "view": translated, "undeclared": ours}


def test_text_that_is_no_path_of_another_mount_stays(places: Places) -> None:
    texts = ("a house at /workspace/jobs/j1/x", "/workspace/jobs", "/workspace/jobs/../x")
    for text in (*texts, "/etc/passwd", "../x", "a [output]", f"{places.jobs}/j1/input/x"):
        assert given(asked(places, "LoadPath", path=text)) == {"path": text}


@pytest.mark.parametrize(
    ("kind", "inputs", "expected", "folder"),
    [
        ("SaveImage", ["x"], ["pod-1/output/x"], "pod-1/output"),
        ("SaveImage", ["j/output/a/x"], ["j/output/a/x"], "j/output/a"),
        ("SaveImage", [{"__value__": "x"}], ["pod-1/output/x"], "pod-1/output"),
        ("SaveImage", [5], ["pod-1/output/5"], "pod-1/output"),
        ("SaveLoRANode", ["loras/x"], ["pod-1/output/loras/x"], "pod-1/output/loras"),
        ("SaveLoRA", ["x"], ["pod-1/output/x"], "pod-1/output"),
        ("SaveImageDataSetToFolder", ["set", "x"], ["pod-1/output/set", "x"], "pod-1/output/set"),
        ("SaveImageDataSetToFolder", ["j/output", "x"], ["j/output", "x"], "j/output"),
        # Refused.
        ("SaveImage", ["../x"], None, ""),
        ("SaveImage", [{"/../../../x": 1}], None, ""),
        ("SaveLoRA", ["/etc/x"], None, ""),
        ("SaveImageDataSetToFolder", ["a", "../../x"], None, ""),
        # What is no prefix, or comes over a link, is left.
        ("Other", ["x"], ["x"], None),
        ("SaveImage", [["2", 0]], [["2", 0]], None),
        ("SaveImage", [], [], None),
    ],
)
def test_what_saves_gets_its_folder_or_is_refused(
    places: Places, kind: str, inputs: list[Any], expected: list[Any] | None, folder: str | None
) -> None:
    names = ["folder_name", "filename_prefix"] if "Folder" in kind else ["filename_prefix"]
    names = ["prefix"] if "LoRA" in kind or kind == "Other" else names

    decision = asked(places, kind, **dict(zip(names, inputs, strict=False)))

    if expected is None:
        assert [(r.node_id, r.input_name) for r in decision.refusals] == [("1", names[0])]
        assert not decision.destinations
    else:
        assert given(decision) == dict(zip(names, expected, strict=False))
        made = () if folder is None else (Destination("1", names[0], folder),)
        assert decision.destinations == made


def test_a_folder_of_pictures_whose_name_is_linked_is_refused(places: Places) -> None:
    kind = "SaveImageDataSetToFolder"
    linked = asked(places, kind, folder_name="a", filename_prefix=["2", 0])
    missing = asked(places, kind, filename_prefix="x")

    assert [r.input_name for r in linked.refusals] == ["filename_prefix"]
    assert given(missing) == {"filename_prefix": "x"}


@pytest.mark.parametrize(
    "odd",
    [
        *(None, [], {}, {"class_type": "LoadImage"}),
        node("Unknown", image="/etc/passwd"),
        node("Broken", image="x"),
        {"class_type": ["LoadImage"], "inputs": {"image": "/etc/passwd"}},
        {"class_type": "LoadImage", "inputs": "/etc/passwd"},
    ],
)
def test_what_is_no_node_is_left_for_comfyui_to_refuse(places: Places, odd: object) -> None:
    assert decide({"1": odd}, CLASSES, places, Sender("pod-1")) == Decision({"1": odd})


def test_with_a_fresh_value_each_node_that_saves_gets_an_input_of_its_own(places: Places) -> None:
    saving = node("SaveImage", filename_prefix="x")
    prompt = {"a": node("LoadPath", path="x"), "b": saving, "c": saving}

    once, again = (decide(prompt, CLASSES, places, Sender("j"), fresh).prompt for fresh in "12")

    assert once["a"] == prompt["a"]
    inputs = [decided[name]["inputs"] for decided in (once, again) for name in "bc"]
    assert len({json.dumps(one) for one in inputs}) == 4
    assert all(one["filename_prefix"] == "j/output/x" for one in inputs)


def test_a_refusal_speaks_as_comfyui_does(places: Places) -> None:
    prompt = {
        "a": node("LoadImage", image="/etc/passwd"),
        "b": node("LoadPath", path=["a", 0]),
        "c": node("SaveImage", images=["b", 0]),
        "d": node("SaveImage", filename_prefix="../x"),
        "e": {"class_type": ["odd"], "inputs": {"images": ["a", 0]}},
        "f": 7,
    }
    decision = decide(prompt, CLASSES, places, Sender("pod-1"))

    body = json.loads(json.dumps(refused(prompt, decision.refusals, CLASSES)))

    assert body["error"]["type"] == "prompt_outputs_failed_validation"
    assert "image - '/etc/passwd' lies outside" in body["error"]["details"]
    told = body["node_errors"]
    assert {name: entry["dependent_outputs"] for name, entry in told.items()} == {
        "a": ["c"],
        "d": ["d"],
    }
    assert told["a"]["class_type"] == "LoadImage"
    [error] = told["a"]["errors"]
    assert error["type"] == "custom_validation_failed"
    assert error["extra_info"] == {"input_name": "image"}


@pytest.mark.parametrize("form", ["chain", "one value"])
def test_of_thousands_of_refusals_the_first_hundred_are_told(places: Places, form: str) -> None:
    outside = [f"/etc/{number}" for number in range(5000)]
    prompt = {
        str(n): node("LoadImage", image=path, mask=[str(n - 1), 0])
        for n, path in enumerate(outside)
    }
    if form == "one value":
        prompt = {"0": node("LoadImage", image={"__value__": outside})}
    prompt["save"] = node("SaveImage", images=[str(len(prompt) - 1), 0])
    LoadImage.asked = 0
    began = time.monotonic()

    decision = decide(prompt, CLASSES, places, Sender("pod-1"))
    body = refused(prompt, decision.refusals, CLASSES)

    assert len(decision.refusals) == 100
    assert body["node_errors"]["0"]["dependent_outputs"] == ["save"]
    assert len(json.dumps(body)) < 100_000
    # A directory is listed for each such question.
    assert LoadImage.asked == 1
    # It took minutes when each refusal went through all nodes once for each node.
    assert time.monotonic() - began < 10
