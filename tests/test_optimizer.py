"""Which weights Muon moves and which AdamW does, Muon's step by hand, and two that act as one."""

import pytest
import torch

from tgdt_mini import TGDT, TGDTConfig
from tgdt_mini.optimizer import MATRIX_RATE, Together, optimizer_of, split
from tgdt_mini.training_config import TrainingConfig

RATE, DECAY = 1e-2, 0.05


def small_model():
    torch.manual_seed(0)
    return TGDT(TGDTConfig.mini(width=16, heads=2, feedforward=24, image_hidden=20, vocabulary=30))


def config(**settings):
    return TrainingConfig(**(dict(learning_rate=RATE, weight_decay=DECAY) | settings))


def set_gradients(model, seed):
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw)


def in_groups(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_moved_by_one_optimizer(name):
    model = small_model()
    moved = in_groups(optimizer_of(model, config(optimizer=name)))
    assert sorted(map(id, moved)) == sorted(map(id, model.parameters()))


def test_muon_takes_the_branches_matrices_alone():
    model = small_model()
    matrices, rest = (dict(part) for part in split(model))
    assert matrices and all(parameter.dim() == 2 for parameter in matrices.values())
    assert {name.split(".")[0] for name in matrices} == {"image_branch", "text_branch"}
    assert "text_reader.word_embedding.weight" in rest and "image_branch.project.bias" in rest
    _, muon = optimizer_of(model, config(optimizer="muon")).optimizers
    assert {id(p) for p in in_groups(muon)} == {id(p) for p in matrices.values()}
    assert {group["share"] for group in muon.param_groups} == {MATRIX_RATE}


def test_weights_decay_and_biases_do_not():
    for group in optimizer_of(small_model(), config()).param_groups:
        decays = {parameter.dim() > 1 for parameter in group["params"]}
        assert decays == {group["weight_decay"] == DECAY}


def test_a_step_of_muon_is_about_the_nearest_orthogonal_matrix():
    """Against U V' of a singular value decomposition, in float64."""
    model = small_model()
    (name, weights), *_ = split(model)[0]
    before = weights.detach().double().clone()
    optimizer = optimizer_of(model, config(optimizer="muon"))
    set_gradients(model, seed=1)
    u, _, v = torch.linalg.svd(weights.grad.double(), full_matrices=False)
    optimizer.step()
    scale = RATE * 0.2 * max(before.shape) ** 0.5  # as large as a usual step of AdamW
    step = (before * (1 - RATE * DECAY) - weights.detach().double()) / scale
    cosine = (step * (u @ v)).sum() / (step.norm() * (u @ v).norm())
    assert cosine > 0.97, name
    sizes = torch.linalg.svdvals(step)  # five rounds of the polynomial end near 1
    assert 0.6 < sizes.min() and sizes.max() < 1.3


def test_together_steps_as_each_part_by_itself():
    together, apart = small_model(), small_model()
    one = optimizer_of(together, config(optimizer="muon"))
    parts = optimizer_of(apart, config(optimizer="muon")).optimizers
    for seed in range(3):
        set_gradients(together, seed), set_gradients(apart, seed)
        one.step()
        for part in parts:
            part.step()
    for a, b in zip(together.parameters(), apart.parameters()):
        assert torch.equal(a, b)
    one.zero_grad()
    assert all(parameter.grad is None for parameter in together.parameters())


def test_a_state_that_is_loaded_goes_on_as_if_never_stopped():
    def steps(model, optimizer, seeds):
        for seed in seeds:
            set_gradients(model, seed)
            optimizer.step()

    straight, cut = small_model(), small_model()
    steps(straight, optimizer_of(straight, config(optimizer="muon")), range(4))
    first = optimizer_of(cut, config(optimizer="muon"))
    assert isinstance(first, Together)
    steps(cut, first, range(2))
    again = optimizer_of(cut, config(optimizer="muon"))
    again.load_state_dict(first.state_dict())
    assert len(again.state_dict()["state"]) == len([*cut.parameters()])
    steps(cut, again, range(2, 4))
    for a, b in zip(straight.parameters(), cut.parameters()):
        assert torch.equal(a, b)
