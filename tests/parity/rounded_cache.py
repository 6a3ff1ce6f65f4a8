"""A cache for transformers models whose keys and values are rounded to float8 as they come, by torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def rounded(x: Any) -> Any:
    """A tensor's nearest numbers of e4m3, in its own dtype; beyond 448 it ends."""
    import torch

    return x.float().clamp(-448, 448).to(torch.float8_e4m3fn).to(x.dtype)


def rounding_cache() -> Any:
    """An empty cache. It knows no layers, so even those that slide keep everything, and mask."""
    import transformers

    class Rounding(transformers.DynamicCache):  # type: ignore[misc]
        def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> Any:
            return super().update(rounded(key_states), rounded(value_states), *args, **kwargs)

    return Rounding()


def rounded_logits(model: Any, ids: list[int]) -> npt.NDArray[np.float32]:
    """Logits [tokens, vocab] of a text whose keys and values are rounded."""
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([ids]), past_key_values=rounding_cache(), use_cache=True).logits[0]
    result: npt.NDArray[np.float32] = logits.float().numpy()
    return result
