"""A checkpoint's config.json, every field of which must be accounted for: none is dropped without a word."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from purelm.errors import UserError, did_you_mean

# What every config.json may have and what changes nothing that the network computes: notes of the library that wrote
# it, tokens and lengths of generation (read with generation_config.json), labels (read with the head's size), types.
COMMON = frozenset({
    "_attn_implementation_autoset", "_name_or_path", "add_cross_attention", "architectures", "bad_words_ids",
    "begin_suppress_tokens", "bos_token_id", "chunk_size_feed_forward", "decoder_start_token_id", "diversity_penalty",
    "do_sample", "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id",
    "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id",
    "gradient_checkpointing", "id2label", "is_encoder_decoder", "keys_to_ignore_at_inference", "label2id",
    "length_penalty", "max_length", "min_length", "model_type", "no_repeat_ngram_size", "num_beam_groups", "num_beams",
    "num_return_sequences", "output_attentions", "output_hidden_states", "output_past", "output_scores", "pad_token_id",
    "prefix", "problem_type", "pruned_heads", "remove_invalid_values", "repetition_penalty", "return_dict",
    "return_dict_in_generate", "sep_token_id", "suppress_tokens", "task_specific_params", "temperature",
    "tf_legacy_loss", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript", "transformers_version",
    "typical_p", "unk_token_id", "use_bfloat16", "use_cache",
})
# Of these, what would change the network where it is set.
_MUST_BE_EMPTY = {"add_cross_attention": "cross-attention in a decoder", "pruned_heads": "pruned heads",
                  "chunk_size_feed_forward": None}
REQUIRED = object()
# Sizes are int32 in XLA; and a table has lines for each layer.
_LARGEST, _MOST_LAYERS = 2**31 - 1, 10_000

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh",
               "gelu_pytorch_tanh": "gelu_tanh", "silu": "silu", "swish": "silu", "relu2": "squared_relu"}
_GATED = {"silu": "swiglu", "gelu": "geglu", "gelu_tanh": "geglu_tanh", "relu": "reglu"}


class Fields:
    """The fields of one config.json (or of a part of it).

    Args:
      values: the fields.
      where: what is named in messages, such as "gpt2/config.json".
    """

    def __init__(self, values: Mapping[str, Any], where: str = "config.json"):
        self.values, self.where = dict(values), where
        self._seen = set(COMMON)
        for name, what in _MUST_BE_EMPTY.items():
            if what is not None and self.values.get(name):
                raise self.error(name, f"{what} cannot be taken over")

    def error(self, name: str, message: str) -> UserError:
        """The error to raise for a field."""
        return UserError(f"{self.where}: {name}={_short(self.values.get(name))}: {message}")

    def has(self, name: str) -> bool:
        """Whether the file gives the field, and not as null."""
        return self.values.get(name) is not None

    def take(self, name: str, default: Any = REQUIRED, kind: type | tuple[type, ...] | None = None) -> Any:
        """The field's value, or `default`, what transformers takes where the file leaves it out.

        Raises:
          UserError: it is missing and has no default, or is no `kind` (null passes).
        """
        self._seen.add(name)
        if name not in self.values:
            if default is REQUIRED:
                raise UserError(f"{self.where}: field {name} is missing; take the checkpoint's files again")
            return default
        value = self.values[name]
        if kind is not None and value is not None and not _is(value, kind):
            raise self.error(name, f"wants {_names(kind)}")
        return value

    def size(self, name: str, default: int, most: int = _LARGEST) -> int:
        """A field that is a whole number from 1, where transformers takes `default`; UserError for another value, or
        one that is larger than any model's."""
        value = self.take(name, default, int)
        if value is None or value < 1:
            raise self.error(name, "wants a whole number from 1")
        if value > most:
            raise self.error(name, f"wants {most} at most")
        return value

    def layers(self, name: str, default: int) -> int:
        """A field that is a number of layers; raises as `size`."""
        return self.size(name, default, _MOST_LAYERS)

    def number(self, name: str, default: Any = REQUIRED) -> float:
        """A field that is a number; UserError for another value, null too."""
        value = self.take(name, default, (int, float))
        if value is None:
            raise self.error(name, "wants a number")
        return float(value)

    def heads(self, name: str, default: int, width: int) -> int:
        """A number of heads that share `width` among them; UserError where they cannot."""
        value = self.size(name, default)
        if width % value:
            raise self.error(name, f"does not divide the width {width}")
        return value

    def require(self, name: str, value: Any, why: str, default: Any = REQUIRED) -> None:
        """The field must have this value, or one of a tuple; `default` as in `take`, `why` follows in the message."""
        found = self.take(name, (value[0] if isinstance(value, tuple) else value) if default is REQUIRED else default)
        if found not in (value if isinstance(value, tuple) else (value,)):
            raise self.error(name, why)

    def ignore(self, *names: str) -> None:
        """Fields without an effect on what the network computes."""
        self._seen.update(names)

    def finish(self) -> None:
        """UserError for the first field that nothing asked for."""
        for name in sorted(self.values.keys() - self._seen):
            raise self.error(name, f"no such field is known of this family"
                                   f"{did_you_mean(name, sorted(self._seen), lists=False)}; what it changes cannot be "
                                   "taken over")


def class_names(values: Mapping[str, Any], where: str) -> list[str]:
    """architectures of a config.json, [] where it has none; UserError for anything but names."""
    names = values.get("architectures")
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{where}: architectures={_short(names)} is no list of names of classes")
    return names


def activation(fields: Fields, field: str, default: Any = REQUIRED, gated: bool = False) -> str:
    """config.model.feed_forward of an activation's name; UserError for one that is not known."""
    name = fields.take(field, default, str)
    if name not in ACTIVATIONS:
        raise fields.error(field, f"no such activation is known{did_you_mean(str(name), sorted(ACTIVATIONS))}")
    ours = ACTIVATIONS[name]
    if not gated:
        return ours
    if ours not in _GATED:
        raise fields.error(field, f"no gate has this activation; one of {', '.join(sorted(_GATED))} has")
    return _GATED[ours]


def activation_name(feed_forward: str) -> str | None:
    """The name that transformers gives to the activation of config.model.feed_forward, of a gate's too."""
    plain = {gate: name for name, gate in _GATED.items()}.get(feed_forward, feed_forward)
    return {"relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "silu": "silu",
            "squared_relu": "relu2"}.get(plain)


def rope(fields: Fields, default_base: float, context_length: int, *, partial: bool = False) -> dict[str, Any]:
    """Fields of ModelConfig for rope_parameters (transformers 5), or rope_theta and rope_scaling (before).

    partial: the family reads partial_rotary_factor by itself; of others it has to be 1.

    Raises:
      UserError: a kind of scaling that there is no switch for, or a field of it that is not known.
    """
    parameters = fields.take("rope_parameters", None, dict)
    scaling = fields.take("rope_scaling", None, dict)
    base = fields.take("rope_theta", None, (int, float))
    return rope_of({**(scaling or {}), **(parameters or {})}, fields, base if base is not None else default_base,
                   context_length, partial=partial)


def rope_of(values: Mapping[str, Any], fields: Fields, default_base: float, context_length: int, *,
            partial: bool = False) -> dict[str, Any]:
    """Fields of ModelConfig for one dictionary of rope_parameters; see `rope`."""
    inner = Fields(values, f"{fields.where}: rope_parameters")
    kind = inner.take("rope_type", inner.take("type", "default"))  # The latter before transformers 4.45.
    result: dict[str, Any] = {"positions": "rope", "rope_base": inner.number("rope_theta", default_base)}
    if partial:
        inner.ignore("partial_rotary_factor")
    else:
        inner.require("partial_rotary_factor", 1.0, "a part of each head cannot be rotated in this family")
    if kind in ("linear", "llama3", "yarn"):
        result |= {"rope_scaling": kind, "rope_scaling_factor": inner.number("factor")}
    elif kind != "default":
        name = "rope_type" if inner.has("rope_type") else "type"
        raise inner.error(name, "no such scaling can be taken over; one of default, linear, llama3, yarn can")
    if kind in ("llama3", "yarn"):
        result["rope_original_length"] = inner.take("original_max_position_embeddings", context_length, int)
    else:
        inner.ignore("original_max_position_embeddings")
    if kind == "llama3":
        result |= {"rope_low_frequency_factor": inner.number("low_freq_factor"),
                   "rope_high_frequency_factor": inner.number("high_freq_factor")}
    if kind == "yarn":
        factor = inner.take("attention_factor", None, (int, float))
        result |= {"rope_beta_fast": float(inner.take("beta_fast", 32.0, (int, float)) or 32.0),
                   "rope_beta_slow": float(inner.take("beta_slow", 1.0, (int, float)) or 1.0),
                   "rope_attention_factor": None if factor is None else float(factor)}
        inner.require("truncate", True, "dimensions that are not whole numbers cannot be taken over")
        for name in ("mscale", "mscale_all_dim"):
            inner.require(name, None, "this factor on attention cannot be taken over")
    inner.finish()
    for name, value in result.items():
        if isinstance(value, (int, float)) and value <= 0:
            raise UserError(f"{inner.where}: {name.removeprefix('rope_')}={value}: wants a number above 0")
    return result


def write_rope(model: Any) -> dict[str, Any]:
    """rope_parameters of a model, as `rope` reads them."""
    written = {"rope_type": "default" if model.rope_scaling == "none" else model.rope_scaling,
               "rope_theta": model.rope_base}
    if model.rope_scaling != "none":
        written["factor"] = model.rope_scaling_factor
    if model.rope_scaling in ("llama3", "yarn"):
        written["original_max_position_embeddings"] = model.rope_original_length
    if model.rope_scaling == "llama3":
        written |= {"low_freq_factor": model.rope_low_frequency_factor,
                    "high_freq_factor": model.rope_high_frequency_factor}
    if model.rope_scaling == "yarn":
        written |= {"beta_fast": model.rope_beta_fast, "beta_slow": model.rope_beta_slow}
        if model.rope_attention_factor is not None:
            written["attention_factor"] = model.rope_attention_factor
    return written


def write_old_rope(model: Any) -> dict[str, Any]:
    """rope_theta, and rope_scaling where there is any: what readers of before transformers 5 know."""
    scaling = {name: value for name, value in write_rope(model).items() if name != "rope_theta"}
    return {"rope_theta": model.rope_base, **({} if model.rope_scaling == "none" else {"rope_scaling": scaling})}


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    finite = not isinstance(value, (int, float)) or -sys.float_info.max <= value <= sys.float_info.max
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)) and finite


def _names(kind: type | tuple[type, ...]) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", list: "a list",
             dict: "an object"}
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(names[k] for k in kinds if not (k is int and float in kinds))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
