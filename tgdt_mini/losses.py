"""What training minimises: the consistent multimodal contrastive (CMC) loss, its parts, and InfoNCE
to compare with.

    total = inter(S_G) + inter(S_L) + intra

inter asks that a pair scores higher than its negatives, by a margin, in both directions (the
triplet loss of VSE++); intra asks that two captions are about as similar as their two images are.
Source: the released TGDT code.
Three things differ from it: the mean over the batch instead of the sum, so that learning rate and
gradient clipping do not depend on the batch size; captions of one image are never each other's
negatives; and all negatives can be used instead of the hardest one, because the hardest alone can
collapse a model that starts from scratch.

B is the batch size. Losses are computed in float32 even under autocast. No schedule and no logging:
see training.
"""

from dataclasses import dataclass

import torch

from tgdt_mini.embedding import Embedding
from tgdt_mini.similarity import (
    INFINITY,
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
    """Scalar triplet loss over the rows and the columns of scores (B, B), whose diagonal holds the
    matching pairs.

    negatives "hardest": sum_i [margin + max_j S_ij - S_ii]+  +  the same over columns. This is
    VSE++'s. negatives "mean": the max over j becomes the mean over j of the hinge, so every
    negative pushes a little.
    positives: (B, B) bool, further matches, left out of the negatives; the diagonal is always left
    out. A row or column without any negative adds 0: a batch of one pair has loss 0 and teaches
    nothing. reduction "sum" is the formula above; "mean" divides it by B (rows plus columns, over
    B). Equal scores everywhere give 2 x margin with "mean": a loss that sticks at that value has
    collapsed.

    Example: scores [[0.5, 0.4], [0.1, 0.6]] -> rows 0.1 + 0, columns 0 + 0 -> sum 0.1, mean 0.05.
    """
    _check_square(scores)
    _check_choice("negatives", negatives, ("hardest", "mean"))
    scores = at_least_float32(scores)
    allowed = _negatives(scores, positives)  # (B, B)
    matches = scores.diagonal()  # (B,)
    rows = _hinge_rows(scores, matches, allowed, margin, negatives)  # (B,)
    columns = _hinge_rows(scores.T, matches, allowed.T, margin, negatives)  # (B,)
    return _reduce(rows + columns, reduction)


def consistency_loss(
    image_globals: torch.Tensor,
    caption_globals: torch.Tensor,
    margin: float = 0.3,
    reduction: str = "mean",
) -> torch.Tensor:
    """Scalar intra-modal loss, sum_j [max_i |t_i . t_j - v_i . v_j| - margin]+, of global tokens
    (B, D) each.

    Two captions may be as alike as their two images are, give or take the margin; only the worst
    partner counts. The gradient reaches both modalities. reduction "mean" divides the sum by B.

    Example: images (1, 0) and (0, 1), both captions (1, 0): |1 - 0| - 0.3 = 0.7 for each -> sum
    1.4, mean 0.7.
    """
    if image_globals.shape != caption_globals.shape or image_globals.dim() != 2:
        raise ValueError(
            f"image_globals {tuple(image_globals.shape)} and caption_globals {tuple(caption_globals.shape)} "
            "must both be (B, D): one caption for each image"
        )
    with autocast_off(image_globals):
        images, captions = at_least_float32(image_globals), at_least_float32(caption_globals)
        gap = (captions @ captions.T - images @ images.T).abs()  # (B, B)
        return _reduce((gap.amax(0) - margin).clamp(min=0), reduction)


def info_nce_loss(
    scores: torch.Tensor, temperature: float | torch.Tensor, positives: torch.Tensor | None = None
) -> torch.Tensor:
    """Scalar contrastive loss of CLIP: cross-entropy of the diagonal of scores (B, B) /
    temperature, mean of both ways.

    positives: (B, B) bool, further matches; they are left out of the denominator, neither pulled
    nor pushed. Equal scores everywhere give ln(B): a loss that sticks at that value has learnt
    nothing.

    Example: scores [[1, 0], [0, 1]], temperature 1 -> ln(1 + e^-1) = 0.3133.
    """
    _check_square(scores)
    if not torch.is_tensor(temperature) and not temperature > 0:
        raise ValueError(
            f"temperature is {temperature}; it must be greater than 0 (CLIP starts at 0.07)"
        )
    logits = at_least_float32(scores) / temperature
    matches = logits.diagonal()  # (B,)
    counted = _negatives(logits, positives) | torch.eye(
        len(logits), dtype=torch.bool, device=logits.device
    )
    logits = logits.masked_fill(~counted, -INFINITY)
    return (logits.logsumexp(1) + logits.logsumexp(0) - 2 * matches).mean() / 2


def hard_caption_loss(
    images: Embedding,
    captions: Embedding,
    hard_captions: Embedding,
    temperature: float | torch.Tensor,
) -> torch.Tensor:
    """Scalar: how easily N captions and their hard negatives are confused on their own images, by
    local score.

    mean over pairs of ln(1 + exp((S_L(image, hard caption) - S_L(image, caption)) / temperature)):
    InfoNCE with the hard caption as the only negative. Equal scores give ln 2. Not part of the
    paper's loss; see `scenes/hard_captions.py`.
    """

    def score(text):
        return shortlist_similarity(
            images, text.local_tokens[:, None], text.mask[:, None], query_is="image"
        )  # (N, 1)

    if not torch.is_tensor(temperature) and not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be greater than 0")
    return torch.nn.functional.softplus(
        (score(hard_captions) - score(captions)) / temperature
    ).mean()


@dataclass(frozen=True)
class CMCLoss:
    """The loss to minimise and its parts, all scalars with a gradient; a part that is switched off
    is 0.
    """

    total: torch.Tensor
    inter_global: torch.Tensor
    inter_local: torch.Tensor
    intra: torch.Tensor


def cmc_loss(
    images: Embedding,
    captions: Embedding,
    image_ids: torch.Tensor | None = None,
    *,
    margin: float = 0.2,
    consistency_margin: float = 0.3,
    negatives: str = "hardest",
    inter: str = "hinge",
    temperature: float | torch.Tensor = 0.07,
    use_global: bool = True,
    use_local: bool = True,
    use_intra: bool = True,
    reduction: str = "mean",
) -> CMCLoss:
    """The CMC loss of B matching pairs, image i with caption i: total = inter_global + inter_local
    + intra.

    image_ids: (B,) integers; pairs with the same id show the same image and are never each other's
    negatives.
    margin, negatives: as in `hinge_loss`; consistency_margin: as in `consistency_loss`. inter
    "info_nce" puts `info_nce_loss` in place of the hinge, to compare; it takes temperature instead
    of margin.
    use_global, use_local, use_intra: a part that is switched off is not computed.
    """
    _check_choice("inter", inter, ("hinge", "info_nce"))
    if inter == "info_nce" and reduction != "mean":
        raise ValueError(
            f'reduction is {reduction!r}; inter="info_nce" is a mean by definition, use reduction="mean"'
        )
    if not (use_global or use_local or use_intra):
        raise ValueError(
            "use_global, use_local and use_intra are all False; switch at least one on"
        )
    if len(images) != len(captions):
        raise ValueError(
            f"{len(images)} images and {len(captions)} captions; caption i must belong to image i"
        )
    positives = None
    if image_ids is not None:
        if image_ids.shape != (len(images),):
            raise ValueError(
                f"image_ids has shape {tuple(image_ids.shape)}; it must be ({len(images)},)"
            )
        positives = image_ids[:, None] == image_ids[None, :]  # (B, B)

    def inter_loss(scores):
        if inter == "info_nce":
            return info_nce_loss(scores, temperature, positives)
        return hinge_loss(scores, margin, positives, negatives, reduction)

    off = at_least_float32(images.global_token).new_zeros(())
    inter_global = inter_loss(global_similarity(images, captions)) if use_global else off
    inter_local = inter_loss(local_similarity(images, captions)) if use_local else off
    intra = off
    if use_intra:
        intra = consistency_loss(
            images.global_token, captions.global_token, consistency_margin, reduction
        )
    return CMCLoss(inter_global + inter_local + intra, inter_global, inter_local, intra)


def _hinge_rows(scores, matches, allowed, margin, negatives):
    """(B,) the hinge of each row of scores (B, B) against its own match and allowed negatives."""
    if negatives == "hardest":
        hardest = scores.masked_fill(~allowed, -INFINITY).amax(
            1
        )  # (B,), -inf where none is left: the clamp makes it 0
        return (margin + hardest - matches).clamp(min=0)
    hinges = (margin + scores - matches[:, None]).clamp(min=0).masked_fill(~allowed, 0)  # (B, B)
    return hinges.sum(1) / allowed.sum(1).clamp(min=1)


def _negatives(scores, positives):
    """(B, B) bool: everything that is neither on the diagonal nor marked as a further match."""
    negatives = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    if positives is None:
        return negatives
    if positives.shape != scores.shape or positives.dtype != torch.bool:
        raise ValueError(
            f"positives is {positives.dtype} {tuple(positives.shape)}; it must be torch.bool {tuple(scores.shape)}"
        )
    return negatives & ~positives


def _reduce(losses, reduction):
    _check_choice("reduction", reduction, ("mean", "sum"))
    return losses.mean() if reduction == "mean" else losses.sum()


def _check_square(scores):
    if scores.dim() != 2 or scores.shape[0] != scores.shape[1] or len(scores) == 0:
        raise ValueError(
            f"scores has shape {tuple(scores.shape)}; it must be (B, B) with the matches on the diagonal"
        )


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be {' or '.join(map(repr, choices))}")
