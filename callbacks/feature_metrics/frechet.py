r"""Fréchet distance between Gaussians, from means and covariances taken in batch by batch."""

from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor


class Moments:
    """Mean and covariance of feature vectors, in float64, of which none is kept.

    Batches are merged as by Chan, Golub and LeVeque (1979), so that a mean far from zero costs no
    digits of the covariance.
    """

    kind: ClassVar[str] = "stat-fid"

    def __init__(self) -> None:
        self._n = 0
        self.mean: Float64[Tensor, " f"] = torch.zeros(0, dtype=torch.float64)
        self._scatter: Float64[Tensor, "f f"] = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Take in the features ``[m, f]`` of a batch."""
        rows = features.cpu().double()
        m, mean = len(rows), rows.mean(dim=0)
        centred = rows - mean
        if not self._n:
            scatter = centred.T @ centred
        else:
            step = mean - self.mean
            weight = self._n * m / (self._n + m)
            scatter = torch.addmm(self._scatter, centred.T, centred).addr_(step, step, alpha=weight)
            mean = self.mean + step * (m / (self._n + m))
        self._n += m
        self.mean, self._scatter = mean, scatter

    def __len__(self) -> int:
        return self._n

    def state(self) -> dict[str, Any]:
        """Return what a file holds: ``mu`` and ``sigma`` as torch-fidelity has them, and our own.

        Its own are arrays, of 32 and of 64 bits.
        """
        return {
            "mu": self.mean.float().numpy(),
            "sigma": self.covariance.numpy(),
            "mean": self.mean,
            "n": self._n,
        }

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> "Moments":
        """Return the moments that a file holds."""
        moments = cls()
        moments.mean, moments._n = state["mean"], int(state["n"])
        # copied: what a file holds may not be written to
        moments._scatter = torch.from_numpy(np.array(state["sigma"])) * (moments._n - 1)
        return moments

    @property
    def covariance(self) -> Float64[Tensor, "f f"]:
        """The unbiased covariance."""
        return self._scatter / (self._n - 1)


def frechet_distance(a: Moments, b: Moments, device: torch.device) -> float:
    r"""Return ``||m - m'||^2 + tr(C + C' - 2 (C C')^(1/2))``: Heusel et al. 2017, equation 6.

    With C = R R^T the trace of the root is that of (R^T C' R)^(1/2), whose eigenvalues are those of
    C C'. That matrix is symmetric: its eigenvalues take a small part of the time of a matrix root.
    """
    first, second = a.covariance.to(device), b.covariance.to(device)
    root = _root(first)
    eigenvalues = torch.linalg.eigvalsh(root.T @ second @ root)
    trace = first.trace() + second.trace() - 2 * eigenvalues.clamp(min=0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + trace.cpu())


def _root(covariance: Float64[Tensor, "f f"]) -> Float64[Tensor, "f f"]:
    """Return R with R R^T = C: Cholesky's factor, or one by eigenvalues where C is singular."""
    root, info = torch.linalg.cholesky_ex(covariance)
    if not info:
        return root  # type: ignore[no-any-return]
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    return vectors * eigenvalues.clamp(min=0).sqrt()  # type: ignore[no-any-return]
