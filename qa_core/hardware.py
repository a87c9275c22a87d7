"""Which device a trial runs on, whether it computes in bfloat16, and its description for records."""

import platform
from functools import lru_cache
from pathlib import Path

import torch

from qa_core.config import DEVICES
from qa_core.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device named by a recipe; "auto" takes CUDA where there is one.

    Raises:
        ConfigError: the device is unknown or not present.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in DEVICES:
        raise ConfigError(f"device: found {name!r}; allowed: {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: found 'cuda', but torch sees no CUDA device here; allowed: auto, cpu")
    return torch.device(name)


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype for autocast, or None for plain float32.

    "auto" means bfloat16 where the hardware multiplies in it: CUDA from Ampere on, CPUs with avx512_bf16 or amx_bf16.
    """
    if precision == "bfloat16" or (precision == "auto" and _computes_in_bfloat16(device.type)):
        return torch.bfloat16
    return None


def precision_name(precision: str, device: torch.device) -> str:
    """Return the number format that a precision stands for on a device, as records name it."""
    return str(autocast_dtype(precision, device) or torch.float32)


def describe_device(device: torch.device) -> str:
    """Return a stable name of the device.

    What of it decides whether trials compare is in `sweeps/front/comparability.py`.
    """
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"cpu: {_cpu_model()}"


@lru_cache
def _computes_in_bfloat16(device_type: str) -> bool:
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpu_field("flags").split()))


@lru_cache
def _cpu_model() -> str:
    return _cpu_field("model name") or platform.processor() or platform.machine()


def _cpu_field(field: str) -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return ""
    for line in cpuinfo.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that a device, or the machine, has no memory left."""
    says_so = any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))
    return says_so or isinstance(error, MemoryError | torch.OutOfMemoryError)
