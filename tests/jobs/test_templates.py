"""Templates are data: what a parameter holds can't be anything else than that value."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morpheus_boot.jobs.workflows import (
    BrokenTemplate,
    WorkflowName,
    WrongParameter,
    fill_template,
    load_template,
    parameters_of,
)
from morpheus_boot.volume.layout import Layout

WORKFLOWS = Path(__file__).parents[2] / "workflows"
NAME = WorkflowName("t")
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def template(**inputs: object) -> dict[str, Any]:
    return {"1": {"class_type": "X", "inputs": inputs}}


def test_the_parameters_of_the_shipped_workflows_are_the_clients() -> None:
    creation = json.loads((WORKFLOWS / "creation.json").read_text())
    rescale = json.loads((WORKFLOWS / "rescale.json").read_text())

    assert set(parameters_of(creation)) == {
        *("prompt", "negative_prompt", "seed", "steps", "cfg_scale", "sampler_name"),
        *("width", "height", "checkpoint_name"),
    }
    assert set(parameters_of(rescale)) == {"image", "width", "height"}


@given(value=_JSON)
def test_a_parameter_keeps_its_value_whatever_it_is(value: object) -> None:
    filled = fill_template(
        template(a="__param:p__", b=["x", "__param:p__"]), NAME, {"p": value}, ""
    )

    assert filled["1"]["inputs"] == {"a": value, "b": ["x", value]}


def test_what_a_parameter_says_is_not_replaced_again() -> None:
    given_ = {"p": "__param:q__", "q": 'a "quote" and __param:p__'}

    filled = fill_template(template(a="__param:p__", b="__param:q__"), NAME, given_, "")

    assert filled["1"]["inputs"] == {"a": given_["p"], "b": given_["q"]}


def test_output_path_is_ours_to_supply() -> None:
    asked = template(a="__param:output_path__")

    assert fill_template(asked, NAME, {}, "j/output/t")["1"]["inputs"]["a"] == "j/output/t"
    with pytest.raises(WrongParameter, match="output_path is not the client's to give"):
        fill_template(asked, NAME, {"output_path": "/etc"}, "j/output/t")


def test_every_missing_and_every_unknown_parameter_is_named() -> None:
    asked = template(a="__param:seed__", b="__param:steps__", c="__param:width__")

    with pytest.raises(WrongParameter) as caught:
        fill_template(asked, NAME, {"width": 1, "hight": 2, "sed": 3}, "")

    for said in ("seed is missing", "steps is missing", "hight is unknown", "sed is unknown"):
        assert said in str(caught.value)
    assert "width is" not in str(caught.value)


@pytest.mark.parametrize("name", ["../creation", "creation.json", "a/b", "", ".", "x" * 65, "ñ"])
def test_a_name_is_never_a_path(name: str) -> None:
    with pytest.raises(WrongParameter, match="workflow_name"):
        WorkflowName(name)


def test_an_unknown_workflow_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with pytest.raises(WrongParameter, match="there are: none"):
        load_template(layout, WorkflowName("creation"))
    layout.workflows.mkdir(parents=True)
    for name in ("b.json", "a.json", "notes.txt"):
        (layout.workflows / name).write_text("{}")

    with pytest.raises(WrongParameter, match="there are: a, b"):
        load_template(layout, WorkflowName("creation"))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"nodes": []}', '{"1": {"inputs": {}}}'])
def test_a_template_that_is_no_graph_is_named(tmp_path: Path, content: str) -> None:
    layout = Layout(tmp_path)
    layout.workflows.mkdir(parents=True)
    (layout.workflows / "mine.json").write_text(content)

    with pytest.raises(BrokenTemplate, match="workflow mine"):
        load_template(layout, WorkflowName("mine"))


def test_a_template_behind_a_link_is_not_read(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "volume")
    layout.workflows.mkdir(parents=True)
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps(template()))
    (layout.workflows / "mine.json").symlink_to(outside)

    with pytest.raises(Exception, match="mine"):
        load_template(layout, WorkflowName("mine"))
