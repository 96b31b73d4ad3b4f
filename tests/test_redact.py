"""Secrets don't print, and one place takes them out of text."""

import pytest

from morpheus_boot.redact import Redactor, Secret, without_secrets


@pytest.mark.parametrize(
    "text",
    [
        "the token s3cret-value itself",
        "https://x.org/f?type=Model&token=s3cret-value&fp=fp16",
        "https://user:s3cret-value@x.org/f",
        "Authorization: Bearer s3cret-value",
        "https://bucket/f?X-Amz-Signature=s3cret-value&x=1",
        "https://x.org/f?sig=s3cret-value",
    ],
)
def test_a_secret_is_taken_out_of_any_text(text: str) -> None:
    assert "s3cret-value" not in Redactor([Secret("s3cret-value")])(text)
    if "itself" not in text:
        assert "s3cret-value" not in Redactor()(text)


def test_a_secret_learnt_later_is_taken_out_too() -> None:
    redact = Redactor()
    redact.add([Secret("from-models-yaml")])

    assert redact("x from-models-yaml y") == "x [secret] y"


def test_a_secret_that_begins_another_leaves_nothing_of_the_longer_one() -> None:
    redact = Redactor([Secret("abcd"), Secret("abcdefgh")])

    assert redact("abcdefgh") == "[secret]"


def test_a_secret_does_not_print_itself() -> None:
    assert "s3cret" not in f"{Secret('s3cret')} {Secret('s3cret')!r}"


def test_a_url_keeps_what_names_the_model_and_loses_what_opens_it() -> None:
    url = "https://me:pw@civitai.com/api/download/models/1?type=Model&token=abc&format=SafeTensor#x"

    assert (
        without_secrets(url)
        == "https://civitai.com/api/download/models/1?type=Model&format=SafeTensor"
    )
