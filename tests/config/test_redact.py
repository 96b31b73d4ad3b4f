"""Secrets don't print, and one place takes them out of text."""

import pytest

from morpheus_boot.config.redact import (
    Redactor,
    Secret,
    names_a_secret,
    secrets_in,
    without_secrets,
)


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


def test_a_secret_learnt_later_is_taken_out_whole_though_another_begins_it() -> None:
    redact = Redactor([Secret("abcd")])
    redact.add([Secret("abcdefgh")])

    assert redact("x abcdefgh y abcd") == "x [secret] y [secret]"


def test_a_secret_does_not_print_itself() -> None:
    assert "s3cret" not in f"{Secret('s3cret')} {Secret('s3cret')!r}"


def test_a_url_keeps_what_names_the_model_and_loses_what_opens_it() -> None:
    url = "https://me:pw@civitai.com/api/download/models/1?type=Model&token=abc&format=SafeTensor#x"

    assert (
        without_secrets(url)
        == "https://civitai.com/api/download/models/1?type=Model&format=SafeTensor"
    )


SECRETS = """
HF_TOKEN API_TOKENS TOKEN_2 HFTOKEN accessToken DB_PASSWORD PGPASSWORD SMTP_PASSWD MY_SECRET openai_api_key APIKEY
AWS_ACCESS_KEY_ID AWSAccessKeyId SSH_PRIVATE_KEY GOOGLE_APPLICATION_CREDENTIALS X-Amz-Signature
"""
OTHERS = "TOKENIZERS_PARALLELISM KEYBOARD PUBLIC_KEY SECRETARY PATH fp"


def test_a_name_with_a_secrets_word_in_it_names_a_secret_and_one_that_begins_like_it_none() -> None:
    assert [name for name in SECRETS.split() if not names_a_secret(name)] == []
    assert [name for name in OTHERS.split() if names_a_secret(name)] == []


@pytest.mark.parametrize("value", ["false", "True", "no", "4096", "0.75", ""])
def test_a_switch_or_a_number_is_no_secret_whatever_its_variable_is_called(value: str) -> None:
    # As a secret it would blot out its like in every line of the log.
    assert secrets_in({"USE_TOKEN": value, "MAX_TOKENS": value}) == ()


def test_what_variables_named_like_secrets_hold_is_secret() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "AKIA1", "SMTP_PASSWD": "hunter2", "HOME": "/root"}

    assert secrets_in(environ) == (Secret("AKIA1"), Secret("hunter2"))


@pytest.mark.parametrize("field", ["tokenizer=fast", "keyword=cat", "authority=x", "token="])
def test_a_url_keeps_a_field_that_carries_no_credential(field: str) -> None:
    url = f"https://x.org/f?{field}&fp=fp16"

    assert without_secrets(url) == url
    assert Redactor()(url) == url


@pytest.mark.parametrize(
    "name",
    [
        *("token", "authToken", "key", "api_key", "apikey", "sig", "Policy", "auth", "Key-Pair-Id"),
        *("X-Amz-Credential", "X-Goog-Signature", "AWSAccessKeyId", "subscription-key"),
    ],
)
def test_a_url_loses_every_field_that_carries_a_credential(name: str) -> None:
    url = f"https://x.org/f?a=1&{name}=s3cret-value"

    assert without_secrets(url) == "https://x.org/f?a=1"
    assert "s3cret-value" not in Redactor()(f"<{url}>")
