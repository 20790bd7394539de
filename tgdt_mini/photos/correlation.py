"""A common space in closed form, to start training from: canonical correlation analysis (CCA).

Pairs of an image's features x and a caption's y are given. CCA asks for the two linear maps whose
outputs correlate most, direction by direction. It is one singular value decomposition (Hotelling,
1936; for images and sentences Klein et al., CVPR 2015). With a matrix R for each S that whitens it,
R^T S R = 1 (the inverse of a Cholesky factor; every such R gives the same maps):

    Rx^T Sxy Ry = U diag(rho) V^T
    Wx = Rx U diag(rho)^p,    Wy = Ry V diag(rho)^p

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
    Raises ValueError for a width that the features do not have, for ridges below 0, and where all
    images or all captions are alike.
    """
    least = min(images.shape[1], captions.shape[1])
    if not 0 < width <= least:
        raise ValueError(f"width is {width}; images and captions share {least} numbers at most")
    if min(ridges) < 0:
        raise ValueError(f"ridges are {ridges}; they are shares of a variance, 0 or more")
    x, y = images.double(), captions.double()  # (I, F), (C, E)
    count = len(y)
    # an image counts once for each of its captions, of which the sum will do
    share = torch.bincount(caption_image, minlength=len(x)).double()[:, None] / count  # (I, 1)
    means = (x * share).sum(0), y.mean(0)
    x, y = x - means[0], y - means[1]
    of_image = torch.zeros(len(x), y.shape[1], dtype=y.dtype, device=y.device)
    of_image.index_add_(0, caption_image, y / count)  # (I, E)
    for name, centred, mean in (("images", x, means[0]), ("captions", y, means[1])):
        if centred.abs().max() <= 1e-6 * mean.abs().max():
            raise ValueError(
                f"all {name} have the same features, so that no start can be computed from them: "
                "look at the data, or begin with random weights (--start random)"
            )
    image_root = _whitening(x.T @ (x * share), ridges[0])
    caption_root = _whitening(y.T @ y / count, ridges[1])
    u, rho, v = _singular(image_root.T @ (x.T @ of_image) @ caption_root, width)
    scale = rho**power
    weights = (image_root @ u * scale).T, (caption_root @ v * scale).T
    maps = [(weight.float(), -(weight @ mean).float()) for weight, mean in zip(weights, means)]
    return *maps, rho.float()


@torch.no_grad()
def start_from_correlation(model: TGDT, train: TokenSet) -> torch.Tensor:
    """The correlations, once the model's linear layers score a training set as CCA does.

    The readers of regions and words begin with the maps of whole images and captions: a mean of
    tokens is mapped to the mean of what they are mapped to. Where local tokens have maps of their
    own, these begin with those of the means of local tokens. Boxes begin without influence, and so
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
    images, texts = model.image_reader, model.text_reader
    pairs = [(images.features, texts.features)]  # of slot 0, and of local tokens too if they share
    if images.settings.own_maps:
        pairs.append((images.cell_features, texts.word_features))  # of local tokens alone
    image_inputs = _inputs_of(
        [image for image, _ in pairs],
        model,
        lambda rows: model.encode_images(train.images(rows)),
        train.image_count,
    )
    caption_inputs = _inputs_of(
        [text for _, text in pairs],
        model,
        lambda rows: model.encode_captions(train.text[rows]),
        len(train.text),
    )
    known = min(c.width, c.image_features, texts.settings.text_features)
    correlations = []
    for pair, seen, read in zip(pairs, image_inputs, caption_inputs):
        # boxes follow the features of a region, and begin without influence
        *maps, rho = canonical_maps(seen[:, : c.image_features], read, train.caption_image, known)
        correlations.append(rho)
        for layer, (weight, bias) in zip(pair, maps):
            layer.weight[known:] *= SPARE
            layer.bias[known:] *= SPARE
            layer.weight[:, weight.shape[1] :] = 0
            layer.weight[:known, : weight.shape[1]], layer.bias[:known] = weight, bias
    if model.image_reader.box_embedding is not None:
        nn.init.zeros_(model.image_reader.box_embedding.weight)
        nn.init.zeros_(model.image_reader.box_embedding.bias)
    for branch in branches:
        nn.init.eye_(branch.project.weight)
        nn.init.zeros_(branch.project.bias)
    return correlations[0]


def _inputs_of(layers, model, encode, count):
    """[(count, F) for each layer]: what the first reads in slot 0, and the second in local tokens.

    Of local tokens the mean. Dropout is off.
    """
    read, now, device = [[] for _ in layers], {}, next(model.parameters()).device
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, i=i: now.update({i: inputs[0].float()}))
        for i, layer in enumerate(layers)
    ]
    was_training = model.training
    model.eval()
    try:
        for rows in torch.arange(count, device=device).split(BATCH):
            mask = encode(rows).mask[..., None]  # (B, L, 1)
            read[0].append(now[0][:, 0])
            if len(layers) > 1:
                read[1].append((now[1] * mask).sum(dim=1) / mask.sum(dim=1))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return [torch.cat(parts) for parts in read]


def _whitening(covariance, ridge):
    """R with R^T S R = 1, S a covariance (N, N) with a ridge; zero where nothing varies."""
    variance = covariance.diagonal()
    mean = variance[variance > variance.max() * 1e-12].mean()
    if ridge > 0:  # positive definite then: about five times faster than eigenvectors
        eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        factor = torch.linalg.cholesky(covariance + ridge * mean * eye)
        return torch.linalg.solve_triangular(factor, eye, upper=False).T
    values, vectors = torch.linalg.eigh(covariance)
    known = values > values.max() * 1e-12
    return vectors * torch.where(known, values, torch.inf).rsqrt() @ vectors.T


def _singular(matrix, count):
    """(U (M, count), the largest singular values (count,), V (N, count)) of a matrix (M, N)."""
    values, v = torch.linalg.eigh(matrix.T @ matrix)  # a half of an SVD's time
    values, v = values.flip(0)[:count], v.flip(1)[:, :count]
    rho = values.clamp(min=0).sqrt()
    return matrix @ v / rho.clamp(min=1e-12), rho, v
