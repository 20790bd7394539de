"""An encoder cut in two: what is below the cut runs once and is kept, what is above it is trained
as a part of TGDT.

Any transformers encoder will do whose layers take tokens and a mask, as BERT's and ViT's do; `cut`
tries it on an example and refuses an encoder whose parts, put together, do not give what the whole
gives. No weights are loaded here.
"""

import json

import torch
from torch import nn

from tgdt_mini.encoders.pretrained import one_line

NOT_KEPT = (  # of an encoder's settings: where it lay, and what speaks of other layers or of heads
    "_name_or_path",
    "transformers_version",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "out_features",
    "out_indices",
    "stage_names",
)


class TopLayers(nn.Module):
    """An encoder's last layers, trained as a part of TGDT; `about` (JSON values) is enough to build
    it anew.

    first: slots before the local tokens that these layers see, 1 for a class token, 0 for none.
    about["trained"]: how many of them learn, all by default; those below stay as they were, and
    with 0 so does the norm.
    """

    def __init__(self, layers, norm, about: dict, first: int):
        super().__init__()
        self.layers, self.norm, self.about, self.first = nn.ModuleList(layers), norm, about, first
        trained = about.get("trained", len(self.layers))
        for still in self.layers[: len(self.layers) - trained] if trained else [self]:
            still.requires_grad_(False)

    def forward(self, tokens, mask):
        """tokens (B, L, width), mask (B, L) bool, True is real -> (B, L, width)"""
        hidden = torch.zeros(mask.shape, dtype=tokens.dtype, device=tokens.device)
        hidden = hidden.masked_fill(~mask, torch.finfo(tokens.dtype).min)[:, None, None].expand(
            -1, 1, mask.shape[1], -1
        )
        for layer in self.layers:
            tokens = layer(tokens, attention_mask=hidden)
            tokens = tokens[0] if isinstance(tokens, tuple) else tokens
        return self.norm(tokens)

    @classmethod
    def rebuild(cls, about: dict) -> "TopLayers":
        """The same layers with random weights, from their description: what a checkpoint is loaded
        into.
        """
        from transformers import AutoConfig, AutoModel

        values = dict(about["config"])
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        model = AutoModel.from_config(config)
        return cls(
            layers_of(model),
            getattr(model, about["norm"]) if about["norm"] else nn.Identity(),
            about,
            about["first"],
        )


def layers_of(model):
    """The ModuleList of an encoder's transformer layers."""
    count = getattr(model.config, "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(
        f"{type(model).__name__} has no list of its layers that could be cut; use trained_layers=0"
    )


class _Enough(Exception):
    """What is below the cut has been computed."""


def run_lower(model, trained_layers, **inputs):
    """(B, L, width) what goes into the last `trained_layers` layers; with 0, the encoder's
    output.
    """
    if not trained_layers:
        return model(**inputs).last_hidden_state
    found = []

    def keep(_, args, kwargs):
        found.append(args[0] if args else kwargs["hidden_states"])
        raise _Enough

    hook = layers_of(model)[-trained_layers].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        model(**inputs)
    except _Enough:
        pass
    finally:
        hook.remove()
    return found[0]


@torch.no_grad()
def split_top(model, trained_layers, example, mask=None, first=0):
    """The TopLayers of an encoder, None for 0; ValueError if they, fed by what is below, do not
    give its output.

    example: inputs to try it on; mask (B, L) bool: which of their tokens are real, all by default.
    first: as in TopLayers. They are built as a checkpoint would build them, so that no run ends
    with layers that cannot be read.
    """
    if not trained_layers:
        return None
    layers = layers_of(model)
    if not 0 < trained_layers <= len(layers):
        raise ValueError(
            f"trained_layers is {trained_layers}; {type(model).__name__} has {len(layers)}, so use 0 to {len(layers)}"
        )
    config = model.config.to_dict() | {
        "num_hidden_layers": trained_layers,
        "model_type": model.config.model_type,
    }
    config = {
        name: value for name, value in config.items() if name not in NOT_KEPT and _is_plain(value)
    }
    config = json.loads(json.dumps(config))  # as a checkpoint will read it
    wanted, lower = model(**example).last_hidden_state, run_lower(model, trained_layers, **example)
    mask = (
        torch.ones(lower.shape[:2], dtype=torch.bool, device=lower.device) if mask is None else mask
    )
    norms = [name for name, child in model.named_children() if isinstance(child, nn.LayerNorm)]
    for norm in (None, *norms):
        try:
            top = (
                TopLayers.rebuild({"config": config, "norm": norm, "first": first})
                .to(lower.device)
                .eval()
            )
            for mine, own in zip(top.layers, layers[-trained_layers:]):
                mine.load_state_dict(own.state_dict())
            if norm:
                top.norm.load_state_dict(getattr(model, norm).state_dict())
            found = top(lower, mask)
        except Exception as error:  # whatever layers of another kind raise
            raise ValueError(
                f"the layers of {type(model).__name__} need more than tokens and a mask ({one_line(error)}); "
                "use trained_layers=0"
            ) from error
        if torch.allclose(found[mask], wanted[mask], rtol=1e-4, atol=1e-4):
            return top
    raise ValueError(
        f"{type(model).__name__} cannot be cut: its parts do not give its output; use trained_layers=0"
    )


def _is_plain(value):
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
