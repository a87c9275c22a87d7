"""Masking: secrets go, everything else stays to the letter."""

import time

import pytest

from sweeps.run_folder.masking import (
    MASK,
    has_secret,
    masked,
    masked_about,
    masked_address,
    masked_text,
    masked_values,
    printable,
)

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
    "../../etc/passwd: exists already; choose another folder",
    "runs/my-password: cannot be written",
    "Invalid token at line 3: tokens=30, max_answer_tokens=30, pad_token='[PAD]', tokenizer=some/folder",
    "data/sk-translated-squad.json has 3 questions; the secret of Velm is kept by Orla.",
    "see https://example.org/a@b and me@example.org; sqlite:////runs/mlflow.db",
    "methods=lora+quantize, train.learning_rate=0.003: 7 of 9",
    "ask-me-0123456789abcdefgh",
    "postgresql://me@host:5432/db, postgresql+psycopg2://me@host/db, mysql://me@host/db",
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
        ("mysql://me:pa/ss@host/db is down", "mysql://***@host/db is down"),
        ("s3://KEY:a/b@c/d@bucket/path", "s3://***@bucket/path"),
        ("http://host:5000/?token=abc&x=1 and more", "http://host:5000/?token=***&x=1 and more"),
        ("https://host/a?x=1&X-Amz-Signature=f00#top", "https://host/a?x=1&X-Amz-Signature=***#top"),
        ("the passwd: x1", "the passwd: ***"),
    ],
)
def test_passwords_in_addresses_and_named_secrets_are_masked(text: str, expected: str) -> None:
    assert masked_text(text) == expected


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays_to_the_letter(text: str) -> None:
    assert masked_text(text) == text
    assert not has_secret(text)


ADDRESSES = [
    ("postgresql://me:walrus@host:5432/db", "postgresql://***@host:5432/db"),
    ("postgresql://me:wal rus@host/db", "postgresql://***@host/db"),
    ("postgresql+psycopg2://me:wal@r/us:'x'@host/db", "postgresql+psycopg2://***@host/db"),
    ("postgresql://me:@/db?host=/run/x", "postgresql://***@/db?host=/run/x"),
    ("postgresql://host/db?user=me&pwd=wal rus#'x&x=1", "postgresql://host/db?user=me&pwd=***&x=1"),
    ("postgresql://me@host/db?sslmode=require", "postgresql://me@host/db?sslmode=require"),
    ("http://token@host:5000", "http://***@host:5000"),
    ("sqlite:////runs/ü @:e/mlflow.db", "sqlite:////runs/ü @:e/mlflow.db"),
]


@pytest.mark.parametrize(
    ("address", "expected"), ADDRESSES, ids=[f"address{n}" for n in range(len(ADDRESSES))]
)
def test_an_address_loses_all_of_its_password(address: str, expected: str) -> None:
    assert masked_address(address) == expected
    assert masked_text(masked_address(address)) == expected  # it is masked once more where it is stored
    for words in (["--tracking-uri", address], [f"--tracking-uri={address}"]):
        assert masked(words)[-1].removeprefix("--tracking-uri=") == expected


@pytest.mark.parametrize(
    ("address", "text", "expected"),
    [
        (
            "postgresql://me:wal@rus@host/db",
            'no host "rus@host"',
            'no host "rus@host"',
        ),  # too short to be told apart
        ("postgresql://me:walrus@otter@host/db", 'no host "otter@host"', 'no host "***@host"'),
        ("postgresql://me:1/walrus@host/db", "invalid port: '1/walrus'", "invalid port: '***'"),
        ("postgresql://me:wal%2Frus%20x@host/db", "for 'wal/rus x' and wal%2Frus%20x", "for '***' and ***"),
        ("http://h/?token=walrus", "401 for walrus", "401 for ***"),
        ("postgresql://walrus@host/db", 'role "walrus" is unknown', 'role "walrus" is unknown'),
        ("http://walrus@host/", "401 for walrus", "401 for ***"),
        ("sqlite:////a/mlflow.db", "see https://me:otter@host", "see https://***@host"),
    ],
    ids=["short", "part", "port", "unquoted", "query", "user", "token", "others"],
)
def test_what_is_said_of_an_address_shows_no_part_of_its_password(
    address: str, text: str, expected: str
) -> None:
    assert masked_about(address, text) == expected


@pytest.mark.parametrize("sign", ["x", "-", ".", "ü", "a=", "a b "], ids=[f"sign{n}" for n in range(6)])
def test_long_text_takes_no_longer_for_each_sign(sign: str) -> None:
    text = sign * 50_000
    began = time.process_time()
    assert masked_text(text) == masked_about("http://h", text) == masked_address(text) == text
    assert masked([text]) == [text]
    assert time.process_time() - began < 5.0  # minutes, where each sign is the start of a search


def test_nested_values_keep_their_form_and_lose_their_secrets() -> None:
    values = {"a": [f"x {SECRETS[0]}", 3, None, True], SECRETS[1]: {"b": 1.5, "c": (SECRETS[2],)}}
    assert masked_values(values) == {"a": [f"x {MASK}", 3, None, True], MASK: {"b": 1.5, "c": [MASK]}}


def test_an_address_on_the_command_line_loses_what_is_in_its_query() -> None:
    assert masked(["--tracking-uri", "http://host/?token=abc"]) == [
        "--tracking-uri",
        f"http://host/?token={MASK}",
    ]
    assert has_secret("http://host/?token=abc")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("one\ntwo\r\t\x07\x7f\x9b", r"one\ntwo\r\t\x07\x7f\x9b"),
        ("abc\u202edef\u2028", r"abc\u202edef\u2028"),
        ("half \ud800", r"half \ud800"),
        ("Malm\u00f6 \u092e\u094d\u200d \U0001f468\u200d\U0001f469 a\u00a0b \\ '", None),
    ],
)
def test_what_a_terminal_takes_for_a_command_is_escaped_and_all_else_stays(
    text: str, expected: str | None
) -> None:
    assert printable(text) == (text if expected is None else expected)
