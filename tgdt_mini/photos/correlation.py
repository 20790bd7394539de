"""A common space in closed form, to start training from: canonical correlation analysis (CCA).

Pairs of an image's features x and a caption's y are given. CCA asks for the two linear maps whose
outputs correlate most, direction by direction. It is one singular value decomposition (Hotelling,
1936; for images and sentences Klein et al., CVPR 2015):

    Sxx^-1/2 Sxy Syy^-1/2 = U diag(rho) V^T
    Wx = Sxx^-1/2 U diag(rho)^p,    Wy = Syy^-1/2 V diag(rho)^p

With a few thousand photographs the covariances S are poorly known. So each gets a ridge: a share of
its mean variance is added to its diagonal. The power p weights directions by how well they agree.
Training goes on from there, with dropout. In tens of steps it reaches what it otherwise needs
hundreds for. The model must read features by linear layers.

I images, C captions, F and E numbers of their features.
"""

import torch
from torch import nn

from tgdt_mini.data import TokenSet
from tgdt_mini.model import TGDT

IMAGE_RIDGE, CAPTION_RIDGE, POWER = 1.0, 0.1, 0.5  # chosen on Flickr8k's dev split
# directions of the common space that the features do not have begin with small random weights:
# they hardly count at first, and training can use them
SPARE = 0.01
BATCH = 500


def canonical_maps(
    images: torch.Tensor,
    captions: torch.Tensor,
    caption_image: torch.Tensor,
    width: int,
    ridges=(IMAGE_RIDGE, CAPTION_RIDGE),
    power: float = POWER,
):
    """((weight (width, F), bias (width,)), the same (width, E) of captions, correlations (width,)).

    images (I, F); captions (C, E), caption c belongs to image caption_image[c]. Computed in
    float64. ridges: added to the variances of each, as a share of their mean. Without any, and with
    power 0, the outputs of the given pairs are uncorrelated, of variance 1, and correlate by
    `correlations` with their partners.
    Raises ValueError for a width that the features do not have, and for ridges below 0.
    """
    least = min(images.shape[1], captions.shape[1])
    if not 0 < width <= least:
        raise ValueError(f"width is {width}; images and captions share {least} numbers at most")
    if min(ridges) < 0:
        raise ValueError(f"ridges are {ridges}; they are shares of a variance, 0 or more")
    x, y = images.double()[caption_image], captions.double()  # (C, F), (C, E)
    means = x.mean(0), y.mean(0)
    x, y = x - means[0], y - means[1]
    image_root, caption_root = (
        _inverse_root(side.T @ side / len(side), ridge) for side, ridge in zip((x, y), ridges)
    )
    u, rho, vt = torch.linalg.svd(
        image_root @ (x.T @ y / len(x)) @ caption_root, full_matrices=False
    )
    scale = rho[:width] ** power
    weights = (image_root @ u[:, :width] * scale).T, (caption_root @ vt.T[:, :width] * scale).T
    maps = [(weight.float(), -(weight @ mean).float()) for weight, mean in zip(weights, means)]
    return *maps, rho[:width].float()


@torch.no_grad()
def start_from_correlation(model: TGDT, train: TokenSet) -> torch.Tensor:
    """The correlations, once the model's linear layers score a training set as CCA does.

    The readers of regions and words begin with the maps of whole images and captions: a mean of
    tokens is mapped to the mean of what they are mapped to. Boxes begin without influence, and so
    do directions that the features do not have. ValueError unless all layers between features and
    common space are linear.
    """
    c, branches = model.config, (model.image_branch, model.text_branch)
    stacks = [stack for b in branches for stack in (b.own, b.local_layers, b.global_layers)]
    linear = not c.image_hidden and not any(len(stack.layers) for stack in stacks)
    same_width = c.image_width == c.text_width == c.width
    if c.reader != "photos" or not (linear and same_width and c.image_slot == "whole"):
        raise ValueError(
            "start is 'correlation', which needs linear layers from features to the common space: "
            "image_hidden=0, no transformer layers, equal widths, image_slot 'whole'; or use "
            "start='random'"
        )
    readers = model.image_reader.features, model.text_reader.features
    images = _inputs_of(
        readers[0], model, lambda rows: model.encode_images(train.images(rows)), train.image_count
    )
    captions = _inputs_of(
        readers[1], model, lambda rows: model.encode_captions(train.text[rows]), len(train.text)
    )
    known = min(c.width, c.image_features, model.text_reader.settings.text_features)
    *maps, correlations = canonical_maps(images, captions, train.caption_image, known)
    for reader, (weight, bias) in zip(readers, maps):
        reader.weight[known:] *= SPARE
        reader.bias[known:] *= SPARE
        reader.weight[:known], reader.bias[:known] = weight, bias
    if model.image_reader.box_embedding is not None:
        nn.init.zeros_(model.image_reader.box_embedding.weight)
        nn.init.zeros_(model.image_reader.box_embedding.bias)
    for branch in branches:
        nn.init.eye_(branch.project.weight)
        nn.init.zeros_(branch.project.bias)
    return correlations


def _inputs_of(layer, model, encode, count):
    """(count, F) what a layer reads in slot 0, dropout off."""
    read, device = [], next(model.parameters()).device
    hook = layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][:, 0].float()))
    was_training = model.training
    model.eval()
    try:
        for rows in torch.arange(count, device=device).split(BATCH):
            encode(rows)
    finally:
        hook.remove()
        model.train(was_training)
    return torch.cat(read)


def _inverse_root(covariance, ridge):
    """The symmetric inverse square root of a covariance with a ridge; zero where nothing varies."""
    variance = covariance.diagonal()
    mean = variance[variance > variance.max() * 1e-12].mean()
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0) + ridge * mean
    known = values > values.max() * 1e-12
    return vectors * torch.where(known, values, torch.inf).rsqrt() @ vectors.T
