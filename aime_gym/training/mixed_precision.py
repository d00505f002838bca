"""Mixed precision: products of matrices in bfloat16 where that is faster, everything else in float32."""

from __future__ import annotations

import torch


def mixed_precision(device: torch.device, *, enabled: bool = True) -> torch.autocast:
    """Make a context in which matrices are multiplied in bfloat16, if the device is fast at it.

    Losses, recurrent states and the last layers of networks stay in float32 ([`aime_gym.models.networks`][]).

    :param enabled: whether to ask for it at all.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and multiplies_bfloat16(device))


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for products of bfloat16."""
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
