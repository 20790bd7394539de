"""Which weights Muon moves and which AdamW does, and that both step as torch's do."""

import pytest
import torch

from tgdt_mini import TGDT, TGDTConfig
from tgdt_mini.optimizer import MATRIX_RATE, Muon, near_orthogonal, optimizer_of, split
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
    groups = optimizer_of(model, config(optimizer="muon")).param_groups
    (muon,) = [group for group in groups if group.get("muon")]
    assert {id(p) for p in muon["params"]} == {id(p) for p in matrices.values()}
    assert muon["share"] == MATRIX_RATE and muon["weight_decay"] == DECAY


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


def test_it_steps_as_muon_and_adamw_of_torch_do():
    """Several steps, so that running means count; torch's Muon takes its matrices one by one."""
    ours, theirs = small_model(), small_model()
    one = optimizer_of(ours, config(optimizer="muon"))
    matrices, rest = split(theirs)
    groups = {True: [], False: []}  # by whether they decay
    for _, parameter in rest:
        groups[parameter.dim() > 1].append(parameter)
    decays = [{"params": groups[big], "weight_decay": DECAY * big} for big in groups]
    adamw = torch.optim.AdamW(decays, lr=RATE)
    fits = dict(weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")
    muon = torch.optim.Muon([parameter for _, parameter in matrices], lr=RATE, **fits)
    start = [parameter.detach().clone() for parameter in ours.parameters()]
    for seed in range(4):
        set_gradients(ours, seed), set_gradients(theirs, seed)
        one.step(), adamw.step(), muon.step()
    of_muon = {id(parameter) for _, parameter in matrices}
    for before, a, b in zip(start, ours.parameters(), theirs.parameters()):
        moved = (b - before).abs().max()
        # bfloat16 has 8 bits, and a sum over a batch of matrices may be taken in another order
        assert (a - b).abs().max() < (0.05 if id(b) in of_muon else 1e-5) * moved


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 12, 5), (2, 5, 12), (1, 1, 7)])
def test_a_batch_of_matrices_is_made_orthogonal_one_by_one(shape):
    draw = torch.Generator().manual_seed(0)
    matrices = torch.randn(shape, generator=draw) * 10.0 ** torch.arange(shape[0])[:, None, None]
    found = near_orthogonal(matrices)
    assert found.shape == shape and found.dtype == torch.float32
    for matrix, own in zip(matrices, found):
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        assert torch.nn.functional.cosine_similarity(own.flatten(), (u @ v).flatten(), dim=0) > 0.97
        alone = near_orthogonal(matrix[None])[0]
        torch.testing.assert_close(own, alone, atol=0.02, rtol=0)


def test_a_gradient_of_zeros_leaves_a_matrix_where_it_is():
    assert torch.equal(near_orthogonal(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def test_an_infinite_gradient_of_float16_moves_nothing():
    """GradScaler must leave out a whole step: Muon's part of it, too."""
    model = small_model()
    optimizer, scaler = optimizer_of(model, config(optimizer="muon")), torch.amp.GradScaler("cpu")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    set_gradients(model, seed=1)
    scaler.scale(torch.ones(()))  # begins its counts
    model.text_branch.project.bias.grad[0] = torch.inf
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    for a, b in zip(before, model.parameters()):
        assert torch.equal(a, b)


def test_a_closure_is_called_once_before_both_step():
    model, other = small_model(), small_model()
    one, two = (optimizer_of(each, config(optimizer="muon")) for each in (model, other))
    asked = []

    def closure():
        asked.append(torch.is_grad_enabled())
        set_gradients(model, seed=1)
        return torch.tensor(7.0)

    for seed in (1, 1):
        set_gradients(other, seed)
        kept = [parameter.grad.clone() for parameter in other.parameters()]
        two.step()
        for gradient, parameter in zip(kept, other.parameters()):
            assert torch.equal(parameter.grad, gradient)  # whoever reads them afterwards finds them
        assert one.step(closure) == 7.0
    assert asked == [True, True]
    for a, b in zip(model.parameters(), other.parameters()):
        assert torch.equal(a, b)


def test_a_state_of_torchs_muon_can_be_loaded():
    """It has no count of steps, as those of earlier runs; AdamW asks for one."""
    model = small_model()
    optimizer = optimizer_of(model, config(optimizer="muon"))
    set_gradients(model, seed=1)
    optimizer.step()
    saved = optimizer.state_dict()
    assert any("step" not in state for state in saved["state"].values())
    again = optimizer_of(model, config(optimizer="muon"))
    again.load_state_dict(saved)
    for index, state in again.state_dict()["state"].items():
        for name, value in saved["state"][index].items():
            assert torch.equal(state[name], value), (index, name)


def test_a_parameter_without_a_gradient_stays():
    model = small_model()
    optimizer = optimizer_of(model, config(optimizer="muon"))
    set_gradients(model, seed=1)
    name, matrix = split(model)[0][0]
    matrix.grad, before = None, matrix.detach().clone()
    optimizer.step()
    assert torch.equal(matrix, before), name


def test_a_state_that_is_loaded_goes_on_as_if_never_stopped():
    def steps(model, optimizer, seeds):
        for seed in seeds:
            set_gradients(model, seed)
            optimizer.step()

    straight, cut = small_model(), small_model()
    steps(straight, optimizer_of(straight, config(optimizer="muon")), range(4))
    first = optimizer_of(cut, config(optimizer="muon"))
    assert isinstance(first, Muon)
    steps(cut, first, range(2))
    again = optimizer_of(cut, config(optimizer="muon"))
    again.load_state_dict(first.state_dict())
    assert len(again.state_dict()["state"]) == len([*cut.parameters()])
    steps(cut, again, range(2, 4))
    for a, b in zip(straight.parameters(), cut.parameters()):
        assert torch.equal(a, b)
