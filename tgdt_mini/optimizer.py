"""What moves the weights: AdamW; or Muon for the matrices of both branches and AdamW for the rest.

AdamW divides each number of a gradient by its own usual size. Muon looks at a matrix as a whole: it
keeps a running mean M of the gradients and steps along the orthogonal matrix nearest to M, so that
directions which M hardly shows are learnt as fast as its strongest one. With M = U S V' (singular
values S), that is U V'. Muon is not in the paper; it learns the drawn scenes in about half of the
steps (chapter 10). Source: Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/, here
as torch.optim.Muon, which finds U V' by five matrix products of a polynomial, nearly.
"""

import torch

MATRIX_RATE = 3.0  # of learning_rate: Muon's rate, scaled to steps as large as AdamW's


def optimizer_of(model: torch.nn.Module, config, fused: bool = False):
    """The optimizer that `config.optimizer` names, for a model's parameters.

    Each group has a "share": its rate as a share of config.learning_rate, which `Trainer` reads.
    fused: one kernel a step, for a GPU.
    """
    matrices, rest = split(model)
    # AdamW: for everything, or for what Muon leaves
    if config.optimizer == "adamw":
        matrices, rest = [], [*matrices, *rest]
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
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)
    if not matrices:
        return adamw
    # Muon: its steps have the size of AdamW's, so that both share one learning rate
    group = {"params": [parameter for _, parameter in matrices], "share": MATRIX_RATE}
    muon = torch.optim.Muon(
        [group],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return Together(adamw, muon)


def split(model: torch.nn.Module):
    """([(name, parameter)] of the branches' matrices, the rest): what Muon takes, and AdamW.

    What reads raw input (pixels, word ids) is for AdamW, as Muon's source advises.
    """
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        is_matrix = "_branch." in name and parameter.dim() == 2
        (matrices if is_matrix else rest).append((name, parameter))
    return matrices, rest


class Together:
    """Several optimizers that step as one, with the methods of one that a training loop calls."""

    def __init__(self, *optimizers):
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self, set_to_none: bool = True):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def step(self):
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict:
        """As torch's: parameters are numbered through, from the first optimizer to the last."""
        state, groups = {}, []
        for first, own in self._numbered():  # each optimizer counts its parameters from 0
            state |= {first + number: moments for number, moments in own["state"].items()}
            for group in own["param_groups"]:
                groups.append(group | {"params": [first + number for number in group["params"]]})
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, saved: dict) -> None:
        """Take up the state; the groups stay as this optimizer has them."""
        for optimizer, (first, own) in zip(self.optimizers, self._numbered()):
            # of the stored numbers, those of this optimizer
            numbers = {number for group in own["param_groups"] for number in group["params"]}
            state = {
                number - first: moments
                for number, moments in saved["state"].items()
                if number - first in numbers
            }
            optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})

    def _numbered(self):
        """(number of its first parameter, state dict) of each optimizer."""
        first = 0
        for optimizer in self.optimizers:
            own = optimizer.state_dict()
            yield first, own
            first += sum(len(group["params"]) for group in own["param_groups"])
