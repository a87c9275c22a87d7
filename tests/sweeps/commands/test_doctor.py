"""`doctor`: which addresses only this machine reaches."""

import pytest

from sweeps.commands.doctor import is_loopback


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.1.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),  # how a server that listens for both kinds shows IPv4
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:0.0.0.0", False),
        ("::ffff:10.0.0.7", False),
        ("192.168.1.5", False),
        ("fe80::1%eth0", False),
    ],
)
def test_an_address_of_the_loopback_is_known_in_each_of_its_forms(address: str, expected: bool) -> None:
    assert is_loopback(address) == expected
