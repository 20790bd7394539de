"""A common space in closed form: regularised canonical correlation analysis (CCA), as the place to
start training from.

Pairs of an image's features x and a caption's y are given. CCA asks for the two linear maps whose
outputs correlate most, direction by direction. It is one singular value decomposition (Hotelling,
1936; for images and sentences Klein et al., CVPR 2015):

    Sxx^-1/2 Sxy Syy^-1/2 = U diag(rho) V^T,    Wx = Sxx^-1/2 U diag(rho)^p,    Wy = Syy^-1/2 V
    diag(rho)^p

With a few thousand photographs the covariances are poorly known, so each gets a ridge, a share of
its mean variance on the diagonal. The power p lets directions count by how well they agree.
Training goes on from there, with dropout; it reaches in tens of steps what it otherwise needs
hundreds for. Needs a model that reads features by linear layers.
"""

import torch
from torch import nn

from tgdt_mini.data import TokenSet
from tgdt_mini.model import TGDT

IMAGE_RIDGE, CAPTION_RIDGE, POWER = 1.0, 0.1, 0.5  # chosen on Flickr8k's dev split
# of the random weights of directions beyond what the features have: free to learn, without a say at
# first
SPARE = 0.01
BATCH = 500


def canonical_maps(
    images: torch.Tensor,
    captions: torch.Tensor,
    owner: torch.Tensor,
    width: int,
    ridges=(IMAGE_RIDGE, CAPTION_RIDGE),
    power: float = POWER,
):
    """((weight (width, F), bias (width,)) for images, the same (width, E) for captions,
    correlations (width,)).

    images (I, F); captions (C, E), caption c belongs to image owner[c]. Computed in float64.
    ridges: what is added to the variances of each, as a share of their mean. Without any, and with
    power 0, the outputs of the given pairs are uncorrelated, of variance 1, and correlate by
    `correlations` with their partners.
    Raises ValueError for a width that the features do not have, and for ridges below 0.
    """
    least = min(images.shape[1], captions.shape[1])
    if not 0 < width <= least:
        raise ValueError(
            f"width is {width}; images and captions have {least} numbers in common at most, use that"
        )
    if min(ridges) < 0:
        raise ValueError(f"ridges are {ridges}; they are shares of a variance, 0 or more")
    seen = images.double()[owner]  # (C, F)
    x, y = seen - seen.mean(0), captions.double() - captions.double().mean(0)
    roots = [
        _inverse_root(each.T @ each / len(each), ridge)
        for each, ridge in ((x, ridges[0]), (y, ridges[1]))
    ]
    u, correlations, v = torch.linalg.svd(
        roots[0] @ (x.T @ y / len(x)) @ roots[1], full_matrices=False
    )
    scale = correlations[:width] ** power
    maps = [
        (root @ side[:, :width] * scale).T for root, side in zip(roots, (u, v.T))
    ]  # (width, F), (width, E)
    means = seen.mean(0), captions.double().mean(0)
    pairs = [(weight.float(), -(weight @ mean).float()) for weight, mean in zip(maps, means)]
    return *pairs, correlations[:width].float()


@torch.no_grad()
def start_from_correlation(model: TGDT, train: TokenSet) -> torch.Tensor:
    """Set a model's linear layers so that global scores are those of CCA on a training set; returns
    the correlations.

    The readers of regions and words begin with the maps of whole images and captions, since a mean
    of tokens is mapped to the mean of what they are mapped to. Place begins without a say, and so
    do directions of the common space beyond as many as the features have. ValueError for a model
    with anything but linear layers between features and it.
    """
    c, branches = model.config, (model.image_branch, model.text_branch)
    linear = (
        not c.image_hidden,
        c.text_features,
        c.image_slot == "whole",
        c.image_width == c.text_width == c.width,
        not any(
            len(stack.layers)
            for b in branches
            for stack in (b.own, b.local_layers, b.global_layers)
        ),
    )
    if not all(linear):
        raise ValueError(
            "start is 'correlation', which needs linear layers from features to the common space: image_hidden=0, no "
            "transformer layers, equal widths, image_slot 'whole'; or use start='random'"
        )
    readers = model.read_region, model.read_word
    images = _read_by(
        readers[0], model, lambda rows: model.encode_images(train.images(rows)), train.image_count
    )
    captions = _read_by(
        readers[1], model, lambda rows: model.encode_captions(train.text[rows]), len(train.text)
    )
    known = min(c.width, c.image_features, c.text_features)
    *maps, correlations = canonical_maps(images, captions, train.caption_image, known)
    for reader, (weight, bias) in zip(readers, maps):
        reader.weight[known:] *= SPARE
        reader.bias[known:] *= SPARE
        reader.weight[:known], reader.bias[:known] = weight, bias
    if model.place is not None:
        nn.init.zeros_(model.place.weight)
        nn.init.zeros_(model.place.bias)
    for branch in branches:
        nn.init.eye_(branch.project.weight)
        nn.init.zeros_(branch.project.bias)
    return correlations


def _read_by(layer, model, encode, count):
    """(count, F) what a layer reads in slot 0, dropout off."""
    found, device = [], next(model.parameters()).device
    hook = layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0][:, 0].float()))
    was_training = model.training
    model.eval()
    try:
        for rows in torch.arange(count, device=device).split(BATCH):
            encode(rows)
    finally:
        hook.remove()
        model.train(was_training)
    return torch.cat(found)


def _inverse_root(covariance, ridge):
    """The symmetric inverse square root of a covariance with a ridge; what never changes has no say
    in either.
    """
    variance = covariance.diagonal()
    mean = variance[variance > variance.max() * 1e-12].mean()
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0) + ridge * mean
    known = values > values.max() * 1e-12
    return vectors * torch.where(known, values, torch.inf).rsqrt() @ vectors.T
