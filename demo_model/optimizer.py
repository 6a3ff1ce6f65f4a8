"""Muon for the stacked matrices, AdamW for the rest.

Muon: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024): momentum, then an approximate
orthogonalization of the update by five steps of a quintic Newton-Schulz iteration.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _orthogonal(update: Tensor) -> Tensor:  # [layers, out, in]
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = update.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Muon:
    """Momentum with orthogonalized updates on parameters [layers, out, in]."""

    def __init__(
        self, parameters: list[Tensor], *, momentum: float = 0.95, decay: float = 0.01, compiled: bool = True
    ) -> None:
        self._parameters = parameters
        self._buffers = [torch.zeros_like(p) for p in parameters]
        self._momentum = momentum
        self._decay = decay
        self._orthogonal: Callable[[Tensor], Tensor] = torch.compile(_orthogonal) if compiled else _orthogonal

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update with the learning rate ``rate``; gradients are left as they are."""
        for parameter, buffer in zip(self._parameters, self._buffers, strict=True):
            grad = parameter.grad
            if grad is None:
                continue
            buffer.lerp_(grad, 1 - self._momentum)
            update = self._orthogonal(grad.lerp(buffer, self._momentum))
            scale = max(1.0, parameter.shape[1] / parameter.shape[2]) ** 0.5
            parameter.mul_(1 - rate * self._decay).add_(update, alpha=-rate * scale)
