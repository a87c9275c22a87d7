"""Masking: secrets go, everything else stays to the letter."""

import pytest

from sweeps.masking import MASK, has_secret, masked_text, masked_values

SECRETS = [
    "hf_abcdefghijklmnop",
    "ghp_ABCdef123456",
    "github_pat_11ABCDEFG_abcdef",
    "glpat-abcdefgh-1234",
    "AKIAIOSFODNN7EXAMPLE",
    "sk-proj-abc_DEF-123",
    "xoxb-123456789-abc",
    "dapi0123456789abcdef",
]
HARMLESS = [
    "Invalid token at line 3: tokens=30, max_answer_tokens=30, pad_token='[PAD]', tokenizer=some/folder",
    "data/sk-translated-squad.json has 3 questions; the secret of Velm is kept by Orla.",
    "see https://example.org/a@b and me@example.org; sqlite:////runs/mlflow.db",
    "methods=lora+quantize, train.learning_rate=0.003: 7 of 9",
    "ask-me-0123456789abcdefgh",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "around", ["{}", "401 for {}: no", "https://host/{}/x", "['{}']", 'token="{}"', "a\n{}\nb"]
)
def test_known_token_shapes_are_masked_wherever_they_stand(secret: str, around: str) -> None:
    text = around.format(secret)
    assert masked_text(text) == around.format(MASK)
    assert has_secret(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:pass@host/db is down", "postgresql://***@host/db is down"),
        ("http://only-me@host:5000", "http://***@host:5000"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("connect(user='a', password='b c', port=3)", "connect(user='a', password=***, port=3)"),
        ("MLFLOW_TRACKING_PASSWORD=abc next", "MLFLOW_TRACKING_PASSWORD=*** next"),
        ('{"api_key": "abc", "n": 1}', '{"api_key": ***, "n": 1}'),
        ("access_token=abc;x", "access_token=***;x"),
    ],
)
def test_passwords_in_addresses_and_named_secrets_are_masked(text: str, expected: str) -> None:
    assert masked_text(text) == expected


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays_to_the_letter(text: str) -> None:
    assert masked_text(text) == text
    assert not has_secret(text)


def test_nested_values_keep_their_form_and_lose_their_secrets() -> None:
    values = {"a": [f"x {SECRETS[0]}", 3, None, True], SECRETS[1]: {"b": 1.5, "c": (SECRETS[2],)}}
    assert masked_values(values) == {"a": [f"x {MASK}", 3, None, True], MASK: {"b": 1.5, "c": [MASK]}}
