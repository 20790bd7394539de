"""What moves the weights: AdamW; or Muon for the matrices of both branches and AdamW for the rest.

AdamW divides each number of a gradient by its own usual size. Muon looks at a matrix as a whole: it
keeps a running mean M of the gradients and steps along the orthogonal matrix nearest to M, so that
directions which M hardly shows are learnt as fast as its strongest one. With M = U S V' (singular
values S), that is U V'. Muon is not in the paper; it learns the drawn scenes in about half of the
steps (chapter 10). Source: Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/.
N matrices of one shape, A rows, B columns.
"""

import torch

MOMENTUM, POLYNOMIAL = 0.95, (3.4445, -4.7750, 2.0315)  # as the source has them
MATRIX_RATE = 3.0  # of learning_rate: Muon's rate, scaled to steps as large as AdamW's


def optimizer_of(model: torch.nn.Module, config):
    """The optimizer that `config.optimizer` names, for a model's parameters.

    Each group has a "share": its rate as a share of config.learning_rate, which `Trainer` reads.
    """
    everything = [*model.named_parameters()]
    matrices, rest = split(model) if config.optimizer == "muon" else ([], everything)
    groups = {}
    for name, parameter in rest:
        # weights decay, biases and norms do not; a pretrained encoder's last layers learn slowly
        share = config.top_rate if ".top." in name else 1.0  # of the learning rate
        decay = config.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((share, decay), []).append(parameter)
    groups = [
        {"params": groups[share, decay], "share": share, "weight_decay": decay}
        for share, decay in sorted(groups)
    ]
    if matrices:
        group = {"params": [parameter for _, parameter in matrices], "share": MATRIX_RATE}
        groups.append(group | {"muon": True, "weight_decay": config.weight_decay})
    fused = next(model.parameters()).device.type in ("cpu", "cuda", "mps")  # one kernel a step
    return (Muon if matrices else torch.optim.AdamW)(groups, lr=config.learning_rate, fused=fused)


def split(model: torch.nn.Module):
    """([(name, parameter)] of the branches' matrices, the rest): what Muon takes, and AdamW.

    What reads raw input (pixels, word ids) is for AdamW, as Muon's source advises.
    """
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        is_matrix = "_branch." in name and parameter.dim() == 2
        (matrices if is_matrix else rest).append((name, parameter))
    return matrices, rest


class Muon(torch.optim.AdamW):
    """AdamW, and Muon for the groups that say "muon": the same steps as torch.optim.Muon's.

    Matrices of one shape go together: 18 instead of 28 ms for the mini model's 22, on one core of
    an Intel Xeon. Steps are as large as AdamW's, so that both share one learning rate.
    """

    def __init__(self, groups, **settings):
        super().__init__(groups, **settings)
        # where a gradient of float16 is infinite, GradScaler has to leave out all of a step
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure=None):
        loss, moved = None if closure is None else torch.enable_grad()(closure)(), []
        for group in self.param_groups:
            by_shape = {}
            for matrix in group["params"] if group.get("muon") else ():
                if matrix.grad is not None:
                    by_shape.setdefault(tuple(matrix.shape), []).append(matrix)
            for shape, matrices in by_shape.items():
                gradients = [matrix.grad for matrix in matrices]
                means = [self._mean(matrix) for matrix in matrices]
                torch._foreach_lerp_(means, gradients, 1 - MOMENTUM)
                ahead = torch.stack(torch._foreach_lerp(gradients, means, MOMENTUM))  # Nesterov's
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                rate = group["lr"] * (0.2 * max(shape) ** 0.5)
                torch._foreach_add_(matrices, near_orthogonal(ahead).unbind(), alpha=-rate)
                moved += zip(matrices, gradients)
        for matrix, _ in moved:
            matrix.grad = None  # AdamW takes the others
        super().step()
        for matrix, gradient in moved:
            matrix.grad = gradient
        return loss

    def load_state_dict(self, saved: dict) -> None:
        """As torch's. For AdamW each state needs a count of steps, which Muon does without."""
        states = {at: {"step": torch.zeros(())} | own for at, own in saved["state"].items()}
        super().load_state_dict(saved | {"state": states})
        for own in self.state.values():
            if "momentum_buffer" in own:
                del own["step"]

    def _mean(self, matrix):
        if "momentum_buffer" not in self.state[matrix]:
            self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        return self.state[matrix]["momentum_buffer"]


def near_orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """(N, A, B): for matrices (N, A, B) = U S V', nearly U V'.

    Five rounds of X <- a X + (b X X' + c (X X')^2) X, in bfloat16, bring singular values near 1.
    """
    a, b, c = POLYNOMIAL
    tall = matrices.shape[1] > matrices.shape[2]  # then X' X is the smaller square
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
