"""Peak memory that a task adds to a fresh process."""

import resource
import subprocess
import sys
from collections.abc import Callable, Sequence


def added(task: str, arm: str, args: Sequence[str]) -> float:
    """Return what one arm of a task adds to the peak memory of a fresh process, in MiB.

    Args:
        task: Name of the task.
        arm: Name of the arm.
        args: Command line that gives the sizes.
    """
    command = [sys.executable, "-m", "benchmarks.flow", *args, "--child", f"{task}/{arm}"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_mib() -> float:
    """Return the peak resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def measure(function: Callable[[], object]) -> float:
    """Return what a function adds to the peak memory of this process, in MiB."""
    ballast = _fill_to_peak()
    before = peak_mib()
    function()
    grown = peak_mib() - before
    del ballast
    return grown


def _fill_to_peak() -> list[bytes]:
    """Return ballast that lifts this process to its own peak, which imports have left behind.

    Without it the first hundreds of MiB of a task would not move the peak.
    """
    ballast: list[bytes] = []
    peak = peak_mib()
    while peak_mib() < peak + 1:
        ballast.append(b"." * 2**18)
    return ballast
