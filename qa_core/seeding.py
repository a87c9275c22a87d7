"""One seed for everything random in a trial, and generators derived from it by name."""

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on every name, the same on every machine and Python."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator for one named purpose, independent of all others."""
    return np.random.default_rng(derive_seed(seed, *names))


def seed_torch(seed: int) -> None:
    """Seed torch's CPU and CUDA generators, which initialisation and dropout draw from."""
    import torch

    torch.manual_seed(seed)
