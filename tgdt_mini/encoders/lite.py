"""EfficientNet-lite0 (Tan and Le, ICML 2019), which comes in a wheel: maps of one or all stages.

The network halves its maps five times. A stage is what lies between two halvings: early ones see
colours and textures, in many small cells; late ones see things, in few large cells. From each stage
its widest layer is taken, the one that a block's depthwise convolution reads.

B images, F numbers of a cell, h cells a side.
"""

import copy

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from tgdt_mini.encoders import LITE
from tgdt_mini.encoders.wheels import CURE, lite_weights

WIDTHS = (
    1280,
    1152,
    672,
    240,
    144,
    96,
)  # numbers of the last layer, then of the stages, last first
USUAL_SIDE, LEAST_SIDE = 224, 32  # pixels; the least make one cell
MEAN, STD = 127 / 255, 128 / 255
# the norm behind each layer: of a block, and of the network's two ends
NORMS = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
NORMS |= {"_conv_stem": "_bn0", "_conv_head": "_bn1"}


class Stages:
    """The last layer's map, and those of the last so many stages.

    model: the network as it was published, which identifies it. ValueError for a number of stages
    that it does not have.
    """

    def __init__(self, stages: int, device):
        if not 0 <= stages < len(WIDTHS):
            raise ValueError(f"stages is {stages}; {LITE} has {len(WIDTHS) - 1}: use 0 to 5")
        self.model, self.width, self.maps = lite().to(device), sum(WIDTHS[: 1 + stages]), {}
        self.network = without_norms(self.model)
        blocks = self.network._blocks
        halving = [b for b in blocks if _stride(b) == 2 and hasattr(b, "_expand_conv")]
        wanted = [*halving, blocks[-1]][len(WIDTHS) - 1 - stages :]  # the last so many
        for stage, block in enumerate(wanted):
            block._depthwise_conv.register_forward_pre_hook(
                lambda _, inputs, stage=stage: self.maps.update({stage: inputs[0]})
            )

    def __call__(self, pixels: torch.Tensor):
        """((B, h * h, width) cells, (B, width) means) of pixels (B, 3, side, side).

        A finer map is averaged to the cells of the last layer, and all are put side by side.
        """
        last = self.network.extract_features(pixels)  # (B, 1280, h, h)
        # the last stage first; large maps are not kept until the next call
        maps = [last, *(self.maps.pop(stage) for stage in sorted(self.maps, reverse=True))]
        cells = torch.cat([adaptive_avg_pool2d(m, last.shape[2:]) for m in maps], dim=1)
        means = torch.cat([m.mean(dim=(2, 3)) for m in maps], dim=1)
        return cells.flatten(2).transpose(1, 2), means


def lite() -> nn.Module:
    """The network with its ImageNet weights, in eval mode, frozen.

    ValueError if it is not installed.
    """
    path = lite_weights()
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise ValueError(f"{LITE} is not installed: {CURE}") from None
    model = EfficientNet.from_name(LITE)
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    # channels last is faster on any device
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def without_norms(model: nn.Module) -> nn.Module:
    """A copy that sees the same in less time: each norm is part of its convolution.

    In eval mode a batch norm multiplies and adds fixed numbers, as a convolution can. A picture of
    288 x 288 takes 32 instead of 38 ms (one CPU core, mean of three rounds).
    """
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    model = copy.deepcopy(model)
    for part in (model, *model._blocks):
        for layer, norm in NORMS.items():
            if hasattr(part, layer) and hasattr(part, norm):
                setattr(part, layer, fuse_conv_bn_eval(getattr(part, layer), getattr(part, norm)))
                setattr(part, norm, nn.Identity())
    return model.to(memory_format=torch.channels_last)


def _stride(block):
    stride = block._block_args.stride
    return stride[0] if isinstance(stride, list | tuple) else stride
