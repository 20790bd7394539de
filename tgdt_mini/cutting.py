"""An encoder cut in two: what is below the cut runs once and is kept, what is above it is trained as a part of TGDT.

Any transformers encoder will do whose layers take tokens and a mask, as BERT's and ViT's do; `cut` tries it on an
example and refuses an encoder whose parts, put together, do not give what the whole gives. No weights are loaded here.
"""

import json

import torch
from torch import nn


class TopLayers(nn.Module):
    """An encoder's last layers, trained as a part of TGDT; `about` (JSON values) is enough to build it anew.

    first: slots before the local tokens that these layers see, 1 for a class token, 0 for none.
    """

    def __init__(self, layers, norm, about: dict, first: int):
        super().__init__()
        self.layers, self.norm, self.about, self.first = nn.ModuleList(layers), norm, about, first

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
        """The same layers with random weights, from their description: what a checkpoint is loaded into."""
        from transformers import AutoConfig, AutoModel

        values = dict(about["config"])
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        model = AutoModel.from_config(config, attn_implementation="sdpa")
        model = getattr(model, "vision_model", model)
        return cls(layers_of(model), getattr(model, about["norm"]) if about["norm"] else nn.Identity(), about,
                   about["first"])  # fmt: skip


def layers_of(model):
    """The ModuleList of an encoder's transformer layers."""
    count = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(f"{type(model).__name__} has no list of {count} layers to cut; use trained_layers=0")


class _Enough(Exception):
    """What is below the cut has been computed."""


def below(model, trained_layers, **inputs):
    """(B, L, width) what goes into the last `trained_layers` layers; with 0, the encoder's output."""
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
def cut(model, trained_layers, example, first):
    """The TopLayers of an encoder, None for 0; ValueError if they, fed by what is below, do not give its output."""
    if not trained_layers:
        return None
    count = model.config.num_hidden_layers
    if not 0 < trained_layers <= count:
        raise ValueError(f"trained_layers is {trained_layers}; {type(model).__name__} has {count}, so use 0 to {count}")
    config = model.config.to_dict() | {"num_hidden_layers": trained_layers, "model_type": model.config.model_type}
    config = {name: value for name, value in config.items() if _is_plain(value) and name != "transformers_version"}
    wanted, lower = model(**example).last_hidden_state, below(model, trained_layers, **example)
    mask = torch.ones(lower.shape[:2], dtype=torch.bool, device=lower.device)
    norms = [name for name, child in model.named_children() if isinstance(child, nn.LayerNorm)]
    for norm in (None, *norms):
        last = getattr(model, norm) if norm else nn.Identity()
        about = {"config": config, "norm": norm, "first": first}
        top = TopLayers(list(layers_of(model))[-trained_layers:], last, about, first)
        try:
            found = top(lower, mask)
        except (TypeError, RuntimeError) as error:
            raise ValueError(
                f"the layers of {type(model).__name__} need more than tokens and a mask ({error}); use trained_layers=0"
            ) from error
        if torch.allclose(found, wanted, atol=1e-4):
            return top.requires_grad_(True)
    raise ValueError(f"{type(model).__name__} cannot be cut: its parts do not give its output; use trained_layers=0")


def _is_plain(value):
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
