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
import jax.numpy as jnp
import numpy as np

from purelm.config import Config, ModelConfig, TaskConfig, TrainingConfig, validate
from purelm.inference.decode import generate
from purelm.inference.sampling import Sampler
from purelm.interop.families import family_of
from purelm.interop.fields import Fields
from purelm.interop.mapping import Tensor, params_from, tensors_from
from purelm.models import Encoded, Transformer
from purelm.models.classifier import Classifier, TokenClassifier
from purelm.tasks import task_of

LENGTH = 12
PADDING = 5  # Of the row that is padded on the left; the one padded on the right has one less.
TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
_PADDED = -1e30
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
    renamed = _IN_FILES.get(type(model).__name__, {})
    return renamed.get(name, name)


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
    """The model through its family's read_config, tensors and params_from."""
    values = fields_of(model)
    model_type = values["model_type"]
    family = family_of(model_type, "config.json")
    task = family.TASKS[type(model).__name__]
    classes = {"num_classes": model.config.num_labels} if task in ("classification", "tagging") else {}
    config = read_model(model_type, values, task, **classes)
    whole = Config(model=config, task=TaskConfig(name=task), training=TrainingConfig(num_steps=1))
    validate(whole, recorded=True)
    # What save_pretrained leaves out, being a default, must be understood as that default.
    assert read_model(model_type, json.loads(model.config.to_json_string()), task, **classes) == config
    tensors = family.tensors(config, task)
    params = params_from(tensors, _shapes(whole), state_of(model).__getitem__)
    return Ours(config, params, task, family, tensors)


def _shapes(config: Config) -> Any:
    return jax.eval_shape(functools.partial(task_of(config).initialize, config), jax.random.key(0))


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
    fields = taken.family.write_config(taken.config, taken.task)
    model_type, classes = model.config.model_type, {"num_classes": taken.config.num_classes}
    fields = json.loads(json.dumps(fields))
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
    """int32 [B, T]: where positions is "columns" those of the padded row, else counted over its tokens (0 on padding).
    """
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
    rng = np.random.default_rng(1)
    inputs = {"positions_BT": positions_BT, "segments_BT": segments_BT}
    theirs = {"input_ids": tokens_BT, "attention_mask": segments_BT}
    if positions == "given":
        theirs["position_ids"] = positions_BT
    if token_types:
        inputs["token_types_BT"] = rng.integers(0, taken.config.token_types, tokens_BT.shape).astype(np.int32)
        theirs["token_type_ids"] = inputs["token_types_BT"]
    weights_BT = segments_BT.astype(np.float32)
    labels = _labels(taken, weights_BT)
    output = _with_layers(model, {name: torch.tensor(array).long() for name, array in theirs.items()})
    logits = _their_logits(output, segments_BT)
    found, gradients = _run(taken.config, taken.task)(taken.params, tokens_BT, inputs, labels)
    real_BT = segments_BT > 0
    _compare("logits", found["logits"], logits, _reals(taken.task, logits, real_BT))
    _compare_layers("layer", found["layers"], output.hidden_states, real_BT)
    _their_loss(logits, labels).backward()
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


def _with_layers(model: Any, inputs: dict[str, Any]) -> Any:
    """transformers' output with every layer's own output as hidden_states, the last one before any final norm."""
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}.values()
    for config in configs:
        config.tie_last_hidden_states = False
    try:
        return model(**inputs, output_hidden_states=True, use_cache=False)
    finally:
        for config in configs:
            del config.tie_last_hidden_states


def _their_logits(output: Any, segments_BT: np.ndarray) -> Any:
    import torch

    if "start_logits" not in output:
        return output.logits
    logits_B2T = torch.stack([output.start_logits, output.end_logits], dim=1)
    return torch.where(torch.tensor(segments_BT)[:, None] > 0, logits_B2T, _PADDED)


def _their_loss(logits: Any, labels: tuple[np.ndarray, np.ndarray]) -> Any:
    import torch

    targets, weights = (torch.tensor(array) for array in labels)
    chosen = torch.gather(torch.log_softmax(logits, dim=-1), -1, targets.long()[..., None])[..., 0]
    return -(chosen * weights).sum()


def _our_loss(logits: jax.Array, labels: tuple[jax.Array, jax.Array]) -> jax.Array:
    targets, weights = labels
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0]
    return -jnp.sum(chosen * weights)


@functools.cache
def _run(config: ModelConfig, task: str) -> Any:
    """The one program of a shape: (params, tokens_BT, inputs, labels) -> ({"logits", "layers"}, gradients)."""
    model = Transformer(config)

    def loss(params: Any, tokens_BT: Any, inputs: dict[str, Any], labels: Any) -> tuple[jax.Array, dict[str, Any]]:
        apply = functools.partial(model.apply, {"params": params})
        output = apply(tokens_BT, **inputs, collect=True, method="hidden")
        x_BTD, seen = output.logits_BTV, output.intermediates
        if task == "classification":
            logits, _ = Classifier(config).apply({"params": params["classifier"]}, x_BTD, inputs["segments_BT"])
        elif task == "tagging":
            logits = TokenClassifier(config).apply({"params": params["classifier"]}, x_BTD)
        elif task == "extractive_qa":
            logits_B2T = jnp.moveaxis(x_BTD @ params["span"]["kernel"] + params["span"]["bias"], -1, 1)
            logits = jnp.where(inputs["segments_BT"][:, None] > 0, logits_B2T, _PADDED)
        else:
            logits = apply(x_BTD, method="logits")
        return _our_loss(logits, labels), {"logits": logits, "layers": _layers(seen)}

    def both(*arguments: Any) -> tuple[dict[str, Any], Any]:
        (_, found), gradients = jax.value_and_grad(loss, has_aux=True)(*arguments)
        return found, gradients

    return jax.jit(both)


def _layers(seen: dict[str, jax.Array]) -> jax.Array:
    """[1 + L, B, T, D]: what enters the first layer, and what each gives."""
    return jnp.concatenate([seen["embedding_BTD"][None], seen["residual_LBTD"]])


def _compare(what: str, found: Any, expected: Any, real: np.ndarray) -> None:
    expected = expected.detach().numpy()
    assert found.shape == expected.shape, f"{what}: {found.shape}, not {expected.shape}"
    np.testing.assert_allclose(np.asarray(found)[real], expected[real], rtol=0, atol=TOLERANCE, err_msg=what)


def _compare_layers(what: str, found_LBTD: Any, expected: Any, real_BT: np.ndarray) -> None:
    assert len(expected) == len(found_LBTD), f"{what}: {len(found_LBTD)} hidden states, not {len(expected)}"
    for number, layer_BTD in enumerate(expected):
        _compare(f"{what} {number}", found_LBTD[number], layer_BTD, real_BT)


def _compare_gradients(model: Any, taken: Ours, gradients: Any) -> None:
    """Of every parameter, each within 1e-3 of the largest entry of its own (of 0.01, where all are smaller)."""
    found = tensors_from(taken.tensors, jax.device_get(gradients))
    theirs = {_name_in_file(model, name): parameter
              for name, parameter in model.named_parameters(remove_duplicate=False)}
    for name, gradient in found.items():
        expected = theirs[name].grad
        expected = np.zeros_like(gradient) if expected is None else expected.numpy()
        limit = GRADIENT_TOLERANCE * max(np.abs(expected).max(), 1e-2)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=limit, err_msg=f"gradient of {name}")
    model.zero_grad()


def check_greedy(model: Any, taken: Ours, *, lengths: tuple[int, ...] = (4, 9, 6), new_tokens: int = 16) -> None:
    """The same tokens from prompts of different lengths: theirs padded on the left, ours on the right."""
    import torch

    tokens_BT, lengths_B = draw_tokens(model, len(lengths), max(lengths), seed=3), np.array(lengths)
    assert max(lengths) + new_tokens <= taken.config.context_length, "what is written must fit the context"
    right_BT = np.arange(max(lengths)) < lengths_B[:, None]
    left_BT = right_BT[:, ::-1]
    theirs_BT = np.zeros_like(tokens_BT)
    theirs_BT[left_BT] = tokens_BT[right_BT]
    _forget_stops(model)
    with torch.no_grad():
        expected_BT = model.generate(
            torch.tensor(theirs_BT).long(), attention_mask=torch.tensor(left_BT.copy()).long(), do_sample=False,
            use_cache=True, max_new_tokens=new_tokens)[:, max(lengths):].numpy()
    found = generate(taken.config, taken.params, tokens_BT, prompt_lengths_B=lengths_B, max_new_tokens=new_tokens,
                     sampler=Sampler(temperature=0.0), key=jax.random.key(0))
    np.testing.assert_array_equal(found.ids_BT, expected_BT)


def _forget_stops(model: Any) -> None:
    """Every row is written to its full length, by the largest logit alone."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        pad_token_id=0, decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None))


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
                     sampler=Sampler(temperature=0.0), key=jax.random.key(0), source_BS=source_BS,
                     source_segments_BS=segments_BS)
    np.testing.assert_array_equal(found.ids_BT, expected_BT)


def _check_two_stacks(model: Any, taken: Ours, positions: str) -> None:
    """Logits, every hidden state of both stacks and every gradient; sources and targets padded on either side."""
    import torch

    source_BS, target_BT = draw_tokens(model, 3, LENGTH), draw_tokens(model, 3, LENGTH - 2, seed=5)
    source_segments_BS, segments_BT = padded_segments(LENGTH)[::-1].copy(), padded_segments(LENGTH - 2)
    labels = _labels(taken, segments_BT.astype(np.float32))
    theirs = {"input_ids": source_BS, "attention_mask": source_segments_BS, "decoder_input_ids": target_BT,
              "decoder_attention_mask": segments_BT}
    output = _with_layers(model, {name: torch.tensor(array).long() for name, array in theirs.items()})
    inputs = {"positions_BT": positions_of(segments_BT, positions), "segments_BT": segments_BT}
    source = {"positions_BT": positions_of(source_segments_BS, positions), "segments_BT": source_segments_BS}
    found, gradients = _run_two_stacks(taken.config)(taken.params, source_BS, source, target_BT, inputs, labels)
    _compare_layers("encoder layer", found["encoder_layers"], output.encoder_hidden_states, source_segments_BS > 0)
    _compare_layers("decoder layer", found["layers"], output.decoder_hidden_states, segments_BT > 0)
    _compare("logits", found["logits"], output.logits, segments_BT > 0)
    _their_loss(output.logits, labels).backward()
    _compare_gradients(model, taken, gradients)


@functools.cache
def _run_two_stacks(config: ModelConfig) -> Any:
    def forward(model: Transformer, source_BS: Any, source: Any, target_BT: Any, inputs: Any) -> dict[str, Any]:
        table = model.embedding if config.shared_embeddings else None
        read = model.encoder.features(source_BS, **source, collect=True, embedding=table)
        encoded = Encoded(read.logits_BTV, source["segments_BT"])
        output = model(target_BT, **inputs, encoded=encoded, collect=True)
        return {"logits": output.logits_BTV, "layers": _layers(output.intermediates),
                "encoder_layers": _layers(read.intermediates)}

    def loss(params: Any, *arguments: Any) -> tuple[jax.Array, dict[str, Any]]:
        *arguments, labels = arguments
        found = Transformer(config).apply({"params": params}, *arguments, method=forward)
        return _our_loss(found["logits"], labels), found

    def both(*arguments: Any) -> tuple[dict[str, Any], Any]:
        (_, found), gradients = jax.value_and_grad(loss, has_aux=True)(*arguments)
        return found, gradients

    return jax.jit(both)
