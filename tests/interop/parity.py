"""Our model against transformers' of the same numbers: what every family's tests do.

`make` builds transformers' model with every parameter random; `ours` takes it over through the family's table; the
`check_*` functions compare logits, every layer's output, every parameter's gradient and greedy generation, on a batch
with a full row, one that is padded on the left and one on the right, and then go the way back.

torch and transformers are imported where they are used, so that tests are collected without them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from types import ModuleType
from typing import Any

import jax
import numpy as np
from parity_comparison import compare, compare_gradients, compare_layers, their_logits, their_loss, with_layers
from parity_programs import run, run_two_stacks

from purelm.config import Config, ModelConfig, TaskConfig, TrainingConfig, validate
from purelm.inference.decode import generate
from purelm.inference.sampling import Sampler
from purelm.interop.families import family_of
from purelm.interop.fields import Fields
from purelm.interop.mapping import Tensor, params_from, tensors_from
from purelm.tasks import task_of

LENGTH = 12
PADDING = 5  # Of the row that is padded on the left; the one padded on the right has one less.
# No id comes twice: a model of random numbers would else write one for ever.
GREEDY = Sampler(temperature=0.0, repetition_penalty=100.0)
# Names of tensors in files that transformers' own modules call otherwise (its conversion_mapping.py).
_IN_FILES = {"GPTNeoXForCausalLM": {"lm_head.weight": "embed_out.weight"}}


@dataclasses.dataclass(frozen=True)
class Ours:
    """A model of transformers, taken over. params: nested numpy arrays; tensors: the family's table for it."""

    config: ModelConfig
    params: Any
    task: str
    family: ModuleType
    tensors: list[Tensor]


def make(model_class: type, config_class: type, *, seed: int = 0, **fields: Any) -> Any:
    """transformers' model of these fields of its config: float32, eval, no parameter at its initial value.

    Scales and biases are moved from where they start (1 or 0), so that none of them can be lost without a test's
    reddening; matrices are large enough that attention is far from uniform.
    """
    import torch

    torch.set_num_threads(1)
    model = model_class(config_class(**fields, attn_implementation="eager")).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.3 * noise if parameter.ndim < 2 else noise * parameter.shape[-1] ** -0.5)
    return model.requires_grad_(True)


def state_of(model: Any) -> dict[str, np.ndarray]:
    """The model's tensors by their names in files, tied ones under each of their names."""
    return {_name_in_file(model, name): tensor.numpy() for name, tensor in model.state_dict().items()}


def _name_in_file(model: Any, name: str) -> str:
    return _IN_FILES.get(type(model).__name__, {}).get(name, name)


def fields_of(model: Any) -> dict[str, Any]:
    """Every field of the model's config.json, defaults too."""
    return json.loads(model.config.to_json_string(use_diff=False))


def read_model(model_type: str, values: dict[str, Any], task: str, **changes: Any) -> ModelConfig:
    """ModelConfig of the fields of a config.json, all of which must be accounted for."""
    fields = Fields(values, "config.json")
    changes = {**family_of(model_type, "config.json").read_config(fields, task), **changes}
    fields.finish()
    return ModelConfig(**changes)


def ours(model: Any) -> Ours:
    """The model through its family: read_config, tensors and params_from."""
    values = fields_of(model)
    model_type = values["model_type"]
    family = family_of(model_type, "config.json")
    task = family.TASKS[type(model).__name__]
    classes = {"num_classes": model.config.num_labels} if task in ("classification", "tagging") else {}
    config = read_model(model_type, values, task, **classes)
    whole = Config(model=config, task=TaskConfig(name=task), training=TrainingConfig(num_steps=1))
    validate(whole)
    # What save_pretrained leaves out, being a default, must be understood as that default.
    assert read_model(model_type, json.loads(model.config.to_json_string()), task, **classes) == config
    tensors = family.tensors(config, task)
    shapes = jax.eval_shape(functools.partial(task_of(whole).initialize, whole), jax.random.key(0))
    return Ours(config, params_from(tensors, shapes, state_of(model).__getitem__), task, family, tensors)


def check_way_back(model: Any, taken: Ours) -> None:
    """Tensors have the same bytes again, and the config says the same, both as it is written and as transformers
    understands what is written."""
    state = state_of(model)
    written = tensors_from(taken.tensors, taken.params)
    aliases = taken.family.aliases(taken.config, taken.task)
    kept = re.compile("|".join(taken.family.KEPT) or r"(?!)")
    for name, array in state.items():
        source = name if name in written else aliases.get(name)
        if source is None:
            assert kept.fullmatch(name.removeprefix(taken.family.BASE)), f"nothing is known of tensor {name}"
            continue
        assert written[source].dtype == array.dtype and written[source].shape == array.shape, name
        assert written[source].tobytes() == array.tobytes(), name
    assert written.keys() <= state.keys(), written.keys() - state.keys()
    fields = json.loads(json.dumps(taken.family.write_config(taken.config, taken.task)))
    model_type, classes = model.config.model_type, {"num_classes": taken.config.num_classes}
    assert read_model(model_type, fields, taken.task, **classes) == taken.config
    understood = json.loads(type(model.config)(**fields).to_json_string(use_diff=False))
    assert read_model(model_type, understood, taken.task, **classes) == taken.config


def draw_tokens(model: Any, rows: int, length: int, seed: int = 0) -> np.ndarray:
    """int32 [rows, length], none of them a special id: torch gives the padding's embedding no gradient."""
    special = [getattr(model.config, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "decoder_start")]
    free = [number for number in range(model.config.vocab_size) if number not in special]
    return np.random.default_rng(seed).choice(free, (rows, length)).astype(np.int32)


def padded_segments(length: int) -> np.ndarray:
    """int32 [3, length], 1 on tokens: a full row, one padded on the left, one padded on the right."""
    segments_BT = np.ones((3, length), np.int32)
    segments_BT[1, :PADDING] = 0
    segments_BT[2, length - PADDING + 1:] = 0
    return segments_BT


def positions_of(segments_BT: np.ndarray, positions: str) -> np.ndarray:
    """int32 [B, T]: those of the padded row where positions is "columns", else counted over its tokens."""
    if positions == "columns":
        return np.broadcast_to(np.arange(segments_BT.shape[1], dtype=np.int32), segments_BT.shape)
    return np.maximum(np.cumsum(segments_BT, axis=1) - 1, 0).astype(np.int32)


def check_decoder(model: Any, *, positions: str = "given", new_tokens: int = 16) -> Ours:
    """All of parity for a decoder; gives what was taken over.

    positions: "given" to transformers as position_ids; "own": it counts the tokens by itself; "columns": it counts
    padding too.
    """
    taken = ours(model)
    check_forward(model, taken, positions=positions)
    check_greedy(model, taken, new_tokens=new_tokens)
    check_way_back(model, taken)
    return taken


def check_encoder(model: Any, *, positions: str = "given", token_types: bool = False) -> Ours:
    """All of parity for an encoder with the head of its task; arguments as check_decoder's. token_types: given too."""
    taken = ours(model)
    check_forward(model, taken, positions=positions, token_types=token_types)
    check_way_back(model, taken)
    return taken


def check_encoder_decoder(model: Any, *, positions: str = "columns", new_tokens: int = 16,
                          use_cache: bool = True) -> Ours:
    """All of parity for an encoder-decoder; arguments as check_decoder's ("given" is not possible). use_cache: theirs,
    which T5's decoder cannot have where it is deeper than its encoder."""
    taken = ours(model)
    _check_two_stacks(model, taken, positions)
    check_greedy_target(model, taken, new_tokens=new_tokens, use_cache=use_cache)
    check_way_back(model, taken)
    return taken


def check_forward(model: Any, taken: Ours, *, positions: str = "given", token_types: bool = False) -> None:
    """Logits, every hidden state and every gradient, on rows with padding on either side."""
    import torch

    tokens_BT, segments_BT = draw_tokens(model, 3, LENGTH), padded_segments(LENGTH)
    if taken.task == "classification":  # transformers' encoders pool the first column, be it padding.
        segments_BT[1] = segments_BT[1, ::-1]
    if positions == "own":  # RoBERTa knows padding by its id.
        tokens_BT = np.where(segments_BT > 0, tokens_BT, model.config.pad_token_id or 0).astype(np.int32)
    positions_BT = positions_of(segments_BT, positions)
    inputs = {"positions_BT": positions_BT, "segments_BT": segments_BT}
    theirs = {"input_ids": tokens_BT, "attention_mask": segments_BT}
    if positions == "given":
        theirs["position_ids"] = positions_BT
    if token_types:
        types_BT = np.random.default_rng(1).integers(0, taken.config.token_types, tokens_BT.shape)
        inputs["token_types_BT"] = types_BT.astype(np.int32)
        theirs["token_type_ids"] = inputs["token_types_BT"]
    labels = _labels(taken, segments_BT.astype(np.float32))
    output = with_layers(model, {name: torch.tensor(array).long() for name, array in theirs.items()})
    logits = their_logits(output, segments_BT)
    found, gradients = run(taken.config, taken.task)(taken.params, tokens_BT, inputs, labels)
    compare("logits", found["logits"], logits, _reals(taken.task, logits, segments_BT > 0))
    compare_layers("layer", found["layers"], output.hidden_states, segments_BT > 0)
    their_loss(logits, labels).backward()
    _compare_gradients(model, taken, gradients)


def _labels(taken: Ours, weights_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(labels, weights) over the rows of logits: fixed classes of a cross-entropy."""
    rng = np.random.default_rng(2)
    if taken.task == "classification":
        return rng.integers(0, taken.config.num_classes, len(weights_BT)), np.ones(len(weights_BT), np.float32)
    if taken.task == "extractive_qa":  # Start and end, of which each row's logits are over its tokens.
        return np.argmax(weights_BT, axis=1)[:, None] + np.array([[0, 3]]), np.ones((len(weights_BT), 2), np.float32)
    classes = taken.config.num_classes if taken.task == "tagging" else taken.config.vocabulary_size
    return rng.integers(0, classes, weights_BT.shape), weights_BT


def _reals(task: str, logits: Any, real_BT: np.ndarray) -> np.ndarray:
    if task == "classification":
        return np.ones(len(logits), bool)
    return np.broadcast_to(real_BT[:, None], logits.shape) if task == "extractive_qa" else real_BT


def _compare_gradients(model: Any, taken: Ours, gradients: Any) -> None:
    compare_gradients(
        tensors_from(taken.tensors, jax.device_get(gradients)),
        {_name_in_file(model, name): value for name, value in model.named_parameters(remove_duplicate=False)})
    model.zero_grad()


def check_greedy(model: Any, taken: Ours, *, lengths: tuple[int, ...] = (4, 9, 6), new_tokens: int = 16) -> None:
    """The same tokens from prompts of different lengths: theirs padded on the left, ours on the right."""
    import torch

    tokens_BT, lengths_B = draw_tokens(model, len(lengths), max(lengths), seed=3), np.array(lengths)
    assert max(lengths) + new_tokens <= taken.config.context_length, "what is written must fit the context"
    left_BT = (right_BT := np.arange(max(lengths)) < lengths_B[:, None])[:, ::-1]
    theirs_BT = np.repeat(tokens_BT[:, :1], max(lengths), axis=1)  # The penalty counts padding too.
    theirs_BT[left_BT] = tokens_BT[right_BT]
    _forget_stops(model)
    with torch.no_grad():
        expected_BT = model.generate(
            torch.tensor(theirs_BT).long(), attention_mask=torch.tensor(left_BT.copy()).long(), do_sample=False,
            use_cache=True, max_new_tokens=new_tokens)[:, max(lengths):].numpy()
    found = generate(taken.config, taken.params, tokens_BT, prompt_lengths_B=lengths_B, max_new_tokens=new_tokens,
                     sampler=GREEDY, key=jax.random.key(0))
    np.testing.assert_array_equal(found.ids_BT, expected_BT)


def _forget_stops(model: Any) -> None:
    """Every row is written to its full length, by the largest logit of the ids that are new in it."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        repetition_penalty=GREEDY.repetition_penalty, pad_token_id=0,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None))


def check_greedy_target(model: Any, taken: Ours, *, new_tokens: int = 16, use_cache: bool = True) -> None:
    """The same target tokens of sources of different lengths, padded on the right; nothing forced, nothing banned."""
    import torch

    source_BS, segments_BS = draw_tokens(model, 3, LENGTH, seed=4), padded_segments(LENGTH)
    segments_BS[1] = np.arange(LENGTH) < LENGTH - PADDING
    start = model.config.decoder_start_token_id
    _forget_stops(model)
    with torch.no_grad():
        expected_BT = model.generate(
            torch.tensor(source_BS).long(), attention_mask=torch.tensor(segments_BS).long(), do_sample=False,
            num_beams=1, use_cache=use_cache, max_new_tokens=new_tokens)[:, 1:].numpy()
    found = generate(taken.config, taken.params, np.full((3, 1), start, np.int32), max_new_tokens=new_tokens,
                     sampler=GREEDY, key=jax.random.key(0), source_BS=source_BS,
                     source_segments_BS=segments_BS)
    np.testing.assert_array_equal(found.ids_BT, expected_BT)


def _check_two_stacks(model: Any, taken: Ours, positions: str) -> None:
    """Logits, every hidden state of both stacks and every gradient; sources and targets padded on either side."""
    import torch

    source_BS, target_BT = draw_tokens(model, 3, LENGTH), draw_tokens(model, 3, LENGTH - 2, seed=5)
    source_segments_BS, segments_BT = padded_segments(LENGTH)[::-1].copy(), padded_segments(LENGTH - 2)
    theirs = {"input_ids": source_BS, "attention_mask": source_segments_BS, "decoder_input_ids": target_BT,
              "decoder_attention_mask": segments_BT}
    output = with_layers(model, {name: torch.tensor(array).long() for name, array in theirs.items()})
    inputs = {"positions_BT": positions_of(segments_BT, positions), "segments_BT": segments_BT}
    source = {"positions_BT": positions_of(source_segments_BS, positions), "segments_BT": source_segments_BS}
    labels = _labels(taken, segments_BT.astype(np.float32))
    found, gradients = run_two_stacks(taken.config)(taken.params, source_BS, source, target_BT, inputs, labels)
    compare_layers("encoder layer", found["encoder_layers"], output.encoder_hidden_states, source_segments_BS > 0)
    compare_layers("decoder layer", found["layers"], output.decoder_hidden_states, segments_BT > 0)
    compare("logits", found["logits"], output.logits, segments_BT > 0)
    their_loss(output.logits, labels).backward()
    _compare_gradients(model, taken, gradients)
