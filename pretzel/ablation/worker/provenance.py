"""Versions of the libraries behind a figure, and the memory that the process took."""

import platform
import re
import resource
import sys
from importlib import metadata
from pathlib import Path

import torch

from pretzel.ablation.identity.source_code import distributions


def versions() -> dict[str, str]:
    """Return the versions of Python, of this project and of what it requires."""
    distribution = distributions()["pretzel"][0]
    numbers = {"python": platform.python_version(), "pretzel": metadata.version(distribution)}
    for requirement in metadata.requires(distribution) or []:
        name = re.match(r"[\w.-]+", requirement)
        if name is None or "extra ==" in requirement:
            continue
        numbers[name[0]] = metadata.version(name[0])
    if torch.version.cuda is not None:
        numbers["cuda"] = torch.version.cuda
    return numbers


def peak_memory(device: torch.device) -> int:
    """Return the most memory of this process so far in bytes: on the model's GPU, else in all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:  # getrusage also counts what the parent had when it started this process
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
