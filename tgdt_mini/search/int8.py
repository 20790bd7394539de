"""Products of whole numbers: about four times as fast as those of float32, and exact.

`torch._int_mm` multiplies int8 with int8, or uint8 with int8, and adds up in int32. A processor
without instructions for it may add in int16 on the way, and cut off what is larger, and an older
torch (2.11) takes no uint8; so both are asked once, with the largest numbers there are.
"""

from functools import cache

import torch


def int8_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(m, n) int32 products of left (m, D), int8 or uint8, and right (D, n) int8. Exact."""
    if is_exact(left.dtype):
        return torch._int_mm(left, right)
    return (left.double() @ right.double()).to(torch.int32)  # 53 bits hold every such sum


@cache
def is_exact(kind: torch.dtype) -> bool:
    """Whether fast products of int8 or uint8 with int8 are right at the ends of the range."""
    ends = torch.iinfo(kind)
    left = torch.tensor([ends.min, ends.max], dtype=kind).repeat_interleave(16)[:, None]
    left = left.expand(32, 64).contiguous()
    right = torch.tensor([-128, 127], dtype=torch.int8).repeat_interleave(8).expand(64, 16)
    try:
        fast = torch._int_mm(left, right.contiguous())
    except RuntimeError:
        return False
    return torch.equal(fast.double(), left.double() @ right.double())
