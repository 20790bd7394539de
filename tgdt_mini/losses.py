"""What training minimises: the consistent multimodal contrastive (CMC) loss and its parts.

    total = inter(S_G) + inter(S_L) + intra, and if asked for + inter(S_G + S_L)

inter asks that a pair scores higher than its negatives, by a margin, both ways (the triplet loss of
VSE++). intra asks that two captions are about as similar as their two images are. Source: the
released TGDT code. Three things differ: the mean over the batch instead of the sum, so that the
learning rate does not depend on the batch; captions of one image are never each other's negatives;
and all negatives can count, since the hardest alone can collapse a model that starts from scratch.
B is the batch size, D the width of tokens. Losses are in float32 even under autocast.
"""

from dataclasses import dataclass

import torch

from tgdt_mini.embedding import Embedding
from tgdt_mini.files.check import check_scale, one_of, real_number, typed
from tgdt_mini.similarity import (
    INFINITY,
    MOST_WEIGHT,
    at_least_float32,
    autocast_off,
    global_similarity,
    local_similarity,
    shortlist_similarity,
)


def hinge_loss(
    scores: torch.Tensor,
    margin: float = 0.2,
    positives: torch.Tensor | None = None,
    negatives: str = "hardest",
    reduction: str = "mean",
) -> torch.Tensor:
    """Scalar triplet loss over the rows and columns of scores (B, B), matches on the diagonal.

    negatives "hardest": sum_i [margin + max_j S_ij - S_ii]+ and the same over columns, as VSE++ has
    it. "mean": the mean over j of the hinges, so that every negative pushes a little. positives:
    (B, B) bool, further matches, which are no negatives. A row without a negative adds 0. reduction
    "sum" is the formula; "mean" divides it by B, and equal scores then give 2 x margin: collapse.

    Example: scores [[0.5, 0.4], [0.1, 0.6]] -> rows 0.1 + 0, columns 0 + 0 -> sum 0.1, mean 0.05.
    """
    _check_square(scores)
    one_of("negatives", negatives, ("hardest", "mean"))
    scores = at_least_float32(scores)
    allowed, matches = _negatives(scores, positives), scores.diagonal()  # (B, B), (B,)
    options = real_number("margin", margin, -MOST_WEIGHT, MOST_WEIGHT), negatives
    rows = _hinge_rows(scores, matches, allowed, *options)  # (B,)
    columns = _hinge_rows(scores.T, matches, allowed.T, *options)  # (B,)
    return _reduce(rows + columns, reduction)


@typed
def consistency_loss(
    image_globals: torch.Tensor,
    caption_globals: torch.Tensor,
    margin: float = 0.3,
    reduction: str = "mean",
) -> torch.Tensor:
    """Scalar intra-modal loss of global tokens (B, D): sum_j [max_i |t_i.t_j - v_i.v_j| - margin]+.

    The similarity of two captions may differ from that of their images by at most the margin; only
    the worst partner counts. The gradient reaches both. reduction "mean" divides the sum by B.

    Example: images (1, 0) and (0, 1), both captions (1, 0): |1 - 0| - 0.3 = 0.7 twice -> mean 0.7.
    """
    shapes = [tuple(tokens.shape) for tokens in (image_globals, caption_globals)]
    if shapes[0] != shapes[1] or len(shapes[0]) != 2 or not shapes[0][0]:
        raise ValueError(f"image_globals and caption_globals: {shapes}; both must be (B >= 1, D)")
    with autocast_off(image_globals):
        images, captions = at_least_float32(image_globals), at_least_float32(caption_globals)
        gap = (captions @ captions.T - images @ images.T).abs()  # (B, B)
        margin = real_number("margin", margin, -MOST_WEIGHT, MOST_WEIGHT)
        return _reduce((gap.amax(0) - margin).clamp(min=0), reduction)


def info_nce_loss(
    scores: torch.Tensor, temperature: float | torch.Tensor, positives: torch.Tensor | None = None
) -> torch.Tensor:
    """Scalar loss of CLIP: cross-entropy of the diagonal of scores (B, B) / temperature, both ways.

    positives: (B, B) bool, further matches. They leave the denominator. Equal scores give ln(B).

    Example: scores [[1, 0], [0, 1]], temperature 1 -> ln(1 + e^-1) = 0.3133.
    """
    _check_square(scores)
    check_scale("temperature", temperature, 1e-6, MOST_WEIGHT)
    logits = at_least_float32(scores) / temperature
    is_match = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    counted = logits.masked_fill(~(_negatives(logits, positives) | is_match), -INFINITY)
    return (counted.logsumexp(1) + counted.logsumexp(0) - 2 * logits.diagonal()).mean() / 2


def hard_caption_loss(images, captions, hard, temperature: float, use_global: bool = False):
    """Scalar: how easily N captions and their hard negatives (`Embedding`s) are confused.

    Mean ln(1 + exp((S(image, hard) - S(image, caption)) / temperature)), S = S_L or S_G + S_L:
    InfoNCE with one negative. Not in the paper; see `scenes/hard_captions.py`.
    """

    def score(texts):  # (N,)
        words, mask = texts.local_tokens[:, None], texts.mask[:, None]  # (N, 1, W, D), (N, 1, W)
        by_local = shortlist_similarity(images, words, mask, query_is="image")[:, 0]
        by_global = at_least_float32(images.global_token) * at_least_float32(texts.global_token)
        return by_local + by_global.sum(1) if use_global else by_local

    check_scale("temperature", temperature, 1e-6, MOST_WEIGHT)
    return torch.nn.functional.softplus((score(hard) - score(captions)) / temperature).mean()


@dataclass(frozen=True)
class CMCLoss:
    """The loss to minimise and its parts: scalars with a gradient; a part switched off is 0."""

    total: torch.Tensor
    inter_global: torch.Tensor
    inter_local: torch.Tensor
    intra: torch.Tensor
    inter_mixed: torch.Tensor


@typed
def cmc_loss(
    images: Embedding,
    captions: Embedding,
    image_ids: torch.Tensor | None = None,
    *,
    margin: float = 0.2,
    consistency_margin: float = 0.3,
    negatives: str = "hardest",
    contrastive: str = "hinge",
    temperature: float | torch.Tensor = 0.07,
    use_global: bool = True,
    use_local: bool = True,
    use_intra: bool = True,
    use_mixed: bool = False,
    reduction: str = "mean",
) -> CMCLoss:
    """The CMC loss of B pairs, image i with caption i: inter_global + inter_local + intra.

    image_ids: (B,) integers; pairs with the same id are never each other's negatives. margin,
    negatives: as in `hinge_loss`. consistency_margin: as in `consistency_loss`. contrastive
    "info_nce" puts `info_nce_loss` in place of the hinge, with temperature instead of margin.
    use_global, use_local, use_intra: a part that is off is not computed. use_mixed: one more term
    (not in the paper), on S_G + S_L; only local tokens learn from it.
    """
    one_of("contrastive", contrastive, ("hinge", "info_nce"))
    one_of("reduction", reduction, ("mean", "sum") if contrastive == "hinge" else ("mean",))
    if not (use_global or use_local or use_intra or use_mixed):
        raise ValueError("use_global, use_local, use_intra, use_mixed are False; switch one on")
    if (size := len(images)) != len(captions):
        raise ValueError(f"{size} images and {len(captions)} captions; they must be pairs")
    if image_ids is not None and image_ids.shape != (size,):
        raise ValueError(f"image_ids has shape {tuple(image_ids.shape)}; it must be ({size},)")
    positives = None if image_ids is None else image_ids[:, None] == image_ids  # (B, B)

    def inter(scores):
        if contrastive == "info_nce":
            return info_nce_loss(scores, temperature, positives)
        return hinge_loss(scores, margin, positives, negatives, reduction)

    zero = at_least_float32(images.global_token).new_zeros(())
    by_global = global_similarity(images, captions) if use_global or use_mixed else zero
    by_local = local_similarity(images, captions) if use_local or use_mixed else zero
    inter_global = inter(by_global) if use_global else zero
    inter_local = inter(by_local) if use_local else zero
    inter_mixed = inter(by_global.detach() + by_local) if use_mixed else zero
    pair = images.global_token, captions.global_token
    intra = consistency_loss(*pair, consistency_margin, reduction) if use_intra else zero
    return CMCLoss(sum(parts := (inter_global, inter_local, intra, inter_mixed), zero), *parts)


def _hinge_rows(scores, matches, allowed, margin, negatives):
    """(B,) the hinge of each row of scores (B, B) against its match (B,) and allowed negatives."""
    if negatives == "hardest":
        hardest = scores.masked_fill(~allowed, -INFINITY).amax(1)  # (B,) the clamp makes -inf 0
        return (margin + hardest - matches).clamp(min=0)
    hinges = (margin + scores - matches[:, None]).clamp(min=0).masked_fill(~allowed, 0)  # (B, B)
    return hinges.sum(1) / allowed.sum(1).clamp(min=1)


@typed
def _negatives(scores, positives: torch.Tensor | None):
    """(B, B) bool: all but the diagonal and further matches."""
    negatives = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    if positives is None:
        return negatives
    shape, kind = tuple(positives.shape), positives.dtype
    if shape != scores.shape or kind != torch.bool:
        raise ValueError(f"positives is {kind} {shape}; it must be bool {tuple(scores.shape)}")
    return negatives & ~positives


def _reduce(losses, reduction):
    one_of("reduction", reduction, ("mean", "sum"))
    return losses.mean() if reduction == "mean" else losses.sum()


@typed
def _check_square(scores: torch.Tensor):
    if scores.dim() != 2 or scores.shape[0] != scores.shape[1] or len(scores) == 0:
        raise ValueError(f"scores has shape {tuple(scores.shape)}; it must be (B, B), B at least 1")
