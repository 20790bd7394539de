"""The closed form to start from, against its definition, least squares and a model's own scores."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tgdt_mini.data import TokenSet
from tgdt_mini.encoding import encode
from tgdt_mini.losses import cmc_loss
from tgdt_mini.model import TGDT
from tgdt_mini.photos.correlation import canonical_maps, start_from_correlation
from tgdt_mini.photos.reader import photo_config
from tgdt_mini.similarity import global_similarity
from tgdt_mini.text_tokens import TextTokens

IMAGES, EACH, F, E = 60, 3, 7, 5


def pairs(seed=0, shared=3, noise=0.1):
    """(images, captions, owner): a few numbers that both know, the rest their own, mixed by random
    matrices.
    """
    draw = torch.Generator().manual_seed(seed)

    def some(*shape):
        return torch.randn(*shape, generator=draw)

    common, owner = some(IMAGES, shared), torch.arange(IMAGES).repeat_interleave(EACH)
    images = torch.cat([common, some(IMAGES, F - shared)], dim=1) @ some(F, F) + 2
    captions = torch.cat(
        [common[owner] + noise * some(len(owner), shared), some(len(owner), E - shared)], dim=1
    )
    return images, captions @ some(E, E) - 1, owner


def mapped(pair, features):
    return features @ pair[0].T + pair[1]


def covariance(one, other):
    return (one - one.mean(0)).T @ (other - other.mean(0)) / len(one)


def test_without_ridges_the_outputs_are_white_and_correlate_pair_by_pair():
    images, captions, owner = pairs()
    for_images, for_captions, correlations = canonical_maps(images, captions, owner, E, (0, 0), 0)
    x, y = mapped(for_images, images)[owner], mapped(for_captions, captions)
    for found, wanted in (
        (covariance(x, x), torch.eye(E)),
        (covariance(y, y), torch.eye(E)),
        (covariance(x, y), torch.diag(correlations)),
        (x.mean(0), torch.zeros(E)),
        (y.mean(0), torch.zeros(E)),
    ):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert (correlations[:3] > 0.95).all() and (
        correlations[3:] < 0.6
    ).all()  # what both know, and what they do not


def test_the_first_correlation_is_the_largest_that_any_direction_has():
    """That of the best least-squares fit of captions to each direction of the images, over
    thousands of directions.
    """
    images, captions, owner = pairs(noise=1.0)
    best = canonical_maps(images, captions, owner, 1, (0, 0))[2]
    seen, captions = images.double()[owner].numpy(), captions.double().numpy()
    design = np.column_stack([captions, np.ones(len(captions))])
    targets = seen @ np.random.default_rng(0).normal(size=(F, 5000))
    fitted = design @ np.linalg.lstsq(design, targets, rcond=None)[0]
    found = max(np.corrcoef(one, other)[0, 1] for one, other in zip(targets.T, fitted.T))
    assert found <= best + 1e-6 and found > 0.8 * best


def test_with_ridges_the_maps_are_those_of_symmetric_inverse_roots():
    images, captions, owner = pairs(noise=1.0)
    for_images, for_captions, correlations = canonical_maps(images, captions, owner, 3, (0.5, 0.2))
    x, y = (z.double().numpy() for z in (images[owner], captions))
    x, y = x - x.mean(0), y - y.mean(0)
    roots = []
    for z, ridge in ((x, 0.5), (y, 0.2)):
        variance = z.T @ z / len(z)
        ridge *= variance.trace() / len(variance)
        values, vectors = np.linalg.eigh(variance + ridge * np.eye(len(variance)))
        roots.append(vectors / np.sqrt(values) @ vectors.T)
    u, rho, vt = np.linalg.svd(roots[0] @ (x.T @ y / len(x)) @ roots[1])
    np.testing.assert_allclose(correlations, rho[:3], atol=1e-6)
    for pair, root, directions in ((for_images, roots[0], u), (for_captions, roots[1], vt.T)):
        wanted = (root @ directions[:, :3] * rho[:3] ** 0.5).T
        np.testing.assert_allclose(abs(pair[0].numpy()), abs(wanted), atol=1e-5)  # signs are free


def test_ridges_make_the_maps_smaller_and_the_power_weighs_directions():
    images, captions, owner = pairs()
    free, tied = (canonical_maps(images, captions, owner, E, (ridge, ridge), 0) for ridge in (0, 1))
    assert tied[0][0].norm() < free[0][0].norm() and (tied[2] < free[2]).all()
    flat, weighed = (canonical_maps(images, captions, owner, E, power=power) for power in (0, 1))
    torch.testing.assert_close(weighed[0][0], flat[0][0] * flat[2][:, None])


def test_features_that_never_change_and_more_features_than_pairs_are_left_out():
    images, captions, owner = pairs()
    still = torch.cat([images, torch.ones(IMAGES, 1)], dim=1)
    wanted, found = (canonical_maps(each, captions, owner, 3, (0, 0)) for each in (images, still))
    torch.testing.assert_close(found[2], wanted[2])
    assert found[0][0][:, -1].abs().max() < 1e-4
    few = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    assert all(
        part.isfinite().all()
        for part, _ in canonical_maps(few, few[:, :6], torch.arange(4), 3, (0, 0))[:2]
    )


def test_a_width_or_a_ridge_that_cannot_be_is_named():
    images, captions, owner = pairs()
    with pytest.raises(ValueError, match="width is 6; images and captions share 5"):
        canonical_maps(images, captions, owner, 6)
    with pytest.raises(ValueError, match="ridges are"):
        canonical_maps(images, captions, owner, 3, (-1, 0))


@pytest.mark.parametrize("noise", [0, 1e-8])
@pytest.mark.parametrize("ridges", [(1.0, 0.1), (0, 0)])
def test_pictures_or_captions_that_are_all_alike_are_named_with_the_cure(noise, ridges):
    images, captions, owner = pairs()
    for name, all_alike in (("captions", captions), ("images", images)):
        same = all_alike[:1] * (1 + noise * torch.rand(len(all_alike), 1))
        both = (images, same) if name == "captions" else (same, captions)
        with pytest.raises(ValueError, match=f"all {name} have the same features.*--start random"):
            canonical_maps(*both, owner, 3, ridges)


def stored(seed=0):
    """A TokenSet of pretrained features: two regions an image, captions of two to four words and a
    start token.
    """
    images, captions, owner = pairs(seed)
    draw = torch.Generator().manual_seed(seed)
    regions = images.repeat_interleave(2, dim=0) + torch.randn(2 * IMAGES, F, generator=draw)
    mask = torch.arange(5) < torch.randint(3, 6, (len(owner), 1), generator=draw)  # (C, 5)
    words = mask & (torch.arange(5) > 0)
    features = captions[:, None] + torch.randn(len(owner), 5, E, generator=draw)
    corners = torch.rand(2 * IMAGES, 2, generator=draw) / 2
    text = TextTokens(
        torch.zeros(mask.shape, dtype=torch.int64), mask, words, features * mask[..., None]
    )
    return TokenSet(
        regions,
        torch.cat([corners, corners + 0.5], dim=1),
        2 * torch.arange(IMAGES + 1),
        images,
        text,
        owner,
        tuple("words" for _ in owner),
        tuple(map(str, range(IMAGES))),
    )


def test_a_model_that_starts_there_scores_as_the_closed_form_does():
    tokens = stored()
    torch.manual_seed(0)
    config = photo_config(
        width=4,
        image_width=4,
        text_width=4,
        heads=2,
        image_heads=2,
        text_heads=2,
        image_features=F,
        text_features=E,
    )
    model = TGDT(config).train()
    correlations = start_from_correlation(model, tokens)
    assert model.training
    found = global_similarity(*encode(model, tokens))

    whole = normed(tokens.pooled, F)
    mean = words_of(tokens, lambda words: words)
    mean = torch.nn.functional.layer_norm(mean, (E,))
    for_images, for_captions, wanted = canonical_maps(whole, mean, tokens.caption_image, 4)
    torch.testing.assert_close(correlations, wanted, atol=1e-5, rtol=1e-4)
    scores = (
        normalize(mapped(for_images, whole), dim=1) @ normalize(mapped(for_captions, mean), dim=1).T
    )
    torch.testing.assert_close(found, scores, atol=1e-4, rtol=0)


def normed(features, width):
    """Rooted, as photo_config says, and normed."""
    rooted = features.sign() * features.abs().sqrt()
    return torch.nn.functional.layer_norm(rooted, (width,))


def words_of(tokens, prepare):
    """(C, E) the mean over each caption's words of what `prepare` makes of them."""
    mask = tokens.text.word_mask[..., None]
    return (prepare(tokens.text.features) * mask).sum(1) / mask.sum(1)


@pytest.mark.parametrize("own_maps", [True, False])
def test_local_tokens_start_from_their_own_means_or_from_the_maps_of_slot_0(own_maps):
    tokens = stored()
    torch.manual_seed(0)
    sizes = dict(width=4, image_width=4, text_width=4, image_features=F, text_features=E)
    model = TGDT(photo_config(own_maps=own_maps, **sizes))
    start_from_correlation(model, tokens)
    images, captions = encode(model, tokens)

    cells = normed(tokens.features, F)  # (2 I, F)
    normed_words = lambda words: torch.nn.functional.layer_norm(words, (E,))  # noqa: E731
    if own_maps:
        seen, read = cells.unflatten(0, (-1, 2)).mean(1), words_of(tokens, normed_words)
    else:
        seen = normed(tokens.pooled, F)
        read = normed_words(words_of(tokens, lambda words: words))
    for_cells, for_words, _ = canonical_maps(seen, read, tokens.caption_image, 4)
    found = images.local_tokens[images.mask]
    torch.testing.assert_close(found, normalize(mapped(for_cells, cells), dim=1), atol=1e-4, rtol=0)
    words = normed_words(tokens.text.features[tokens.text.word_mask])
    found = captions.local_tokens[captions.mask]
    torch.testing.assert_close(found, normalize(mapped(for_words, words), dim=1), atol=1e-4, rtol=0)


def test_a_space_wider_than_the_features_scores_nearly_the_same_and_learns_in_all_directions():
    tokens, scores = stored(), []
    for width in (4, 16):  # captions have 5 numbers
        torch.manual_seed(0)
        sizes = dict(
            width=width, image_width=width, text_width=width, image_features=F, text_features=E
        )
        model = TGDT(photo_config(image_feature_dropout=0.0, text_feature_dropout=0.0, **sizes))
        assert len(start_from_correlation(model, tokens)) == min(width, E)
        scores.append(global_similarity(*encode(model, tokens)))
    images, captions = model(
        tokens.images(torch.arange(IMAGES)), tokens.text[torch.arange(0, IMAGES * EACH, EACH)]
    )
    cmc_loss(images, captions, contrastive="info_nce").total.backward()
    for reader in (model.image_reader.features, model.text_reader.features):
        assert (reader.weight.grad.abs().sum(dim=1) > 0).all()
    assert torch.corrcoef(torch.stack([each.flatten() for each in scores]))[0, 1] > 0.9


@pytest.mark.parametrize(
    "changes", [{"image_hidden": 8}, {"local_layers": 1}, {"image_slot": "zero"}, {"width": 8}]
)
def test_a_model_that_is_not_linear_is_refused(changes):
    sizes = dict(width=4, image_width=4, text_width=4, heads=2, image_heads=2, text_heads=2)
    sizes["own_maps"] = False
    model = TGDT(photo_config(image_features=F, text_features=E, **(sizes | changes)))
    with pytest.raises(ValueError, match="start is 'correlation', which needs linear layers"):
        start_from_correlation(model, stored())
