"""Muon for the matrices inside transformer layers, AdamW for everything else, in one optimizer.

``torch.optim.Muon`` takes matrices alone and orthogonalises in bfloat16, which a CPU without
instructions for it does some twenty times slower than in float32 (on the tiny Pretzel: 1.9 s a step
in place of 0.1 s).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.adamw import adamw
from typing_extensions import override

from pretzel.errors import UserError
from pretzel.typing import Float, Tensor

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration: steepest at zero, they leave singular values in about 0.7-1.2."""
EPS = 1e-7


def orthogonalise(matrices: Float[Tensor, "n r c"], num_steps: int) -> Float[Tensor, "n r c"]:
    """Return U V^T, about, of matrices U S V^T by Newton-Schulz iteration.

    Five steps bring singular values from 0.01 of the norm upwards to about 1.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPS)
    # x <- a x + b (x x^T) x + c (x x^T)^2 x, on singular values: s <- a s + b s^3 + c s^5
    for _ in range(num_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class MuonAdamW(Optimizer):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) beside AdamW (1711.05101).

    The gradient of a matrix, with Nesterov momentum, is replaced by the nearest orthogonal matrix,
    so that all its directions learn at one pace; it is scaled by sqrt(max(1, rows / columns)).
    Embeddings, inputs, heads, gains and biases are AdamW's.

    Args:
        params: Named parameters, or groups of them.
        lr: Learning rate of AdamW.
        matrix_lr: Learning rate of Muon.
        betas: Decay of AdamW's averages.
        eps: AdamW's addition to the root mean square.
        weight_decay: Decoupled weight decay of both.
        momentum: Decay of Muon's average.
        num_steps: Newton-Schulz iterations.
        matrices: A two-dimensional parameter is Muon's if its name contains one of these.

    Raises:
        UserError: If a number is out of range, parameters have no names, or ``matrices`` matches no
            parameter.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        matrix_lr: float = 0.02,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        num_steps: int = 5,
        matrices: tuple[str, ...] = (".layers.",),
    ) -> None:
        for name, value in (
            ("lr", lr), ("matrix_lr", matrix_lr), ("eps", eps), ("weight_decay", weight_decay),
        ):  # fmt: skip
            if value < 0:
                raise UserError(f"{name} must be 0 or positive, got {value}")
        for name, value in (("betas", betas[0]), ("betas", betas[1]), ("momentum", momentum)):
            if not 0 <= value < 1:
                raise UserError(f"{name} must be in [0, 1), got {value}")
        if num_steps < 1:
            raise UserError(f"num_steps must be at least 1, got {num_steps}")
        groups = [half for group in _as_groups(params) for half in _halves(group, matrices)]
        if not any(group["is_matrix"] for group in groups):
            raise UserError(
                f"matrices must name parts of two-dimensional parameters, got {list(matrices)}, "
                "which match none"
            )
        for group in groups:
            if group["is_matrix"]:
                group.setdefault("lr", matrix_lr)
        super().__init__(
            groups,
            {
                "lr": lr,
                "betas": tuple(betas),
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "num_steps": num_steps,
            },
        )

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return the loss, where a closure is given that computes it anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params and group["is_matrix"]:
                self._muon(group, params)
            elif params:
                self._adamw(group, params)
        return loss

    def _muon(self, group: dict[str, Any], params: list[Tensor]) -> None:
        # Matrices of one shape are orthogonalised as one batch
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for param in params:
            by_shape[param.shape].append(param)
        for shape, same in by_shape.items():
            grads = [param.grad for param in same if param.grad is not None]
            for param in same:
                if not self.state[param]:
                    self.state[param] = {"momentum_buffer": torch.zeros_like(param)}
            buffers = [self.state[param]["momentum_buffer"] for param in same]
            torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
            nesterov = torch._foreach_lerp(grads, buffers, group["momentum"])
            updates = orthogonalise(torch.stack(nesterov), group["num_steps"]).unbind()
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            # Decoupled weight decay, then the step
            torch._foreach_mul_(same, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(same, updates, alpha=-group["lr"] * scale)

    def _adamw(self, group: dict[str, Any], params: list[Tensor]) -> None:
        # The functional form, since torch.optim.AdamW would own parameters of its own
        for param in params:
            if not self.state[param]:
                self.state[param] = {
                    "step": torch.zeros((), dtype=torch.float32, device=param.device),
                    "exp_avg": torch.zeros_like(param),
                    "exp_avg_sq": torch.zeros_like(param),
                }
        states = [self.state[param] for param in params]
        adamw(
            params,
            [param.grad for param in params if param.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _as_groups(params: Iterable[Any]) -> list[dict[str, Any]]:
    listed = list(params)
    return listed if listed and isinstance(listed[0], dict) else [{"params": listed}]


def _halves(group: dict[str, Any], matrices: tuple[str, ...]) -> list[dict[str, Any]]:
    """Divide a group into the parameters of Muon and those of AdamW."""
    halves: dict[bool, list[tuple[str, Tensor]]] = {True: [], False: []}
    for item in group["params"]:
        if not isinstance(item, tuple):
            raise UserError("params must be named parameters, got a tensor without a name")
        name, param = item
        halves[param.ndim == 2 and any(part in name for part in matrices)].append((name, param))
    return [{**group, "params": half, "is_matrix": key} for key, half in halves.items() if half]
