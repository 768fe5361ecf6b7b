"""Models that a family has only after a change of parameters: transformers computes the same of what is written."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NamedTuple

import jax
import numpy as np
import parity
import published
import pytest
import torch
import transformers
from safetensors.numpy import save_file

from purelm.config import ModelConfig, presets, resolve_model
from purelm.errors import UserError
from purelm.interop.choosing import Choice, choose_family
from purelm.interop.exporting import export_run
from purelm.interop.folds import REWRITES
from purelm.interop.importing import import_checkpoint
from purelm.interop.mapping import leaves_of, lines_by_name, to_theirs
from purelm.interop.reading_run import HeldParams, RunLeaves
from purelm.interop.task_parameters import task_shapes
from purelm.models import Transformer
from purelm.training.checkpoint_items import nest

SIZES = {"vocabulary_size": 31, "context_length": 32, "num_layers": 2, "width": 16, "num_heads": 4, "head_size": 4,
         "feed_forward_width": 24}
PLAIN = ModelConfig(**SIZES)
LLAMA = dataclasses.replace(presets.llama("tiny"), **SIZES)
TWO_STACKS = {**SIZES, "encoder_layers": 4}


class Case(NamedTuple):
    model: ModelConfig
    family: str
    fields: tuple[str, ...]  # The first of each rewrite's, in their order.


# Together they take every rewrite, with biases where there can be some: each reddens where a leaf of one is forgotten,
# scaled by another number, or rewritten in another order. A large epsilon makes a norm tell x from 4 x.
CASES = {
    "marian": Case(presets.vaswani("tiny", **TWO_STACKS, num_kv_heads=2, attention_scale=0.3), "marian",
                   ("bias", "sinusoidal_halves", "attention_scale", "num_kv_heads")),
    "marian with tables of its own": Case(
        presets.vaswani("tiny", **SIZES, shared_embeddings=False, tied_embeddings=False, head_bias=True), "marian",
        ("sinusoidal_halves",)),
    "t5": Case(presets.t5("tiny", **TWO_STACKS, residual_scale="inverse_sqrt_depth", head_scale="one"), "t5",
               ("embedding_scale", "attention_scale", "residual_scale")),
    "bart": Case(presets.bart("base", **TWO_STACKS, residual_scale="rezero", layer_sharing=2), "bart",
                 ("position_offset", "residual_scale", "layer_sharing")),
    "gpt2": Case(dataclasses.replace(PLAIN, position_offset=3, bias=False, norm_scale=False, attention_scale=0.7,
                                     embedding_scale="sqrt_width", layer_sharing=2, residual_scale="rezero"), "gpt2",
                 ("bias", "embedding_scale", "attention_scale", "position_offset", "residual_scale", "layer_sharing")),
    "opt": Case(dataclasses.replace(PLAIN, feed_forward="relu", norm_offset=True, head_scale="inverse_sqrt_width"),
                "opt", ("embedding_scale", "position_offset", "norm_offset")),
    "gpt_neox": Case(dataclasses.replace(PLAIN, positions="rope", parallel_block=True, num_kv_heads=1,
                                         query_key_value_bias=False), "gpt_neox",
                     ("bias", "num_kv_heads", "parallel_norms")),
    "qwen3": Case(dataclasses.replace(LLAMA, embedding_norm=True, norm_scale=False, qk_norm=True, attention_scale=0.3,
                                      num_kv_heads=2, embedding_scale="sqrt_width", norm_epsilon=0.3), "qwen3",
                  ("bias", "embedding_norm", "attention_scale")),
    "gemma2": Case(dataclasses.replace(LLAMA, feed_forward="geglu_tanh", norm_place="sandwich", norm_offset=False,
                                       residual_scale="rezero", attention_softcap=5.0), "gemma2",
                   ("embedding_scale", "residual_scale", "norm_offset")),
    "olmo2": Case(dataclasses.replace(LLAMA, norm_place="output", norm_offset=True, qk_norm=True, attention_scale=0.3,
                                      qk_norm_over="all_heads", residual_scale="inverse_sqrt_depth"), "olmo2",
                  ("attention_scale", "residual_scale", "norm_offset")),
}


def task_of(model: ModelConfig) -> str:
    return "sequence_to_sequence" if model.architecture == "encoder_decoder" else "language_modeling"


def random_params(model: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Every leaf, far from what it begins at; attention is far from uniform."""
    rng, params = np.random.default_rng(seed), {}
    for path, leaf in leaves_of(task_shapes(model, task_of(model))):
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        one = path.endswith("norm/scale") and not model.norm_offset or path.endswith("residual_scale")
        small = 1.0 if path.endswith("embedding/embedding") else model.width ** -0.5
        params[path] = 1.5 * small * noise if path.endswith(("kernel", "embedding")) else one + 0.3 * noise
    return params


def written(case: Case, folder: Any) -> tuple[Choice, dict[str, np.ndarray], Any]:
    """(choice, our parameters by path, transformers' model of what is written)."""
    model, task = resolve_model(case.model, 31), task_of(case.model)
    choice, params = choose_family(model, task, None, case.family, None), random_params(model)
    leaves = RunLeaves(HeldParams(params, 0), choice.steps)
    lines = lines_by_name(choice.family.tensors(choice.model, task), task_shapes(choice.model, task))
    tensors = {name: np.ascontiguousarray(to_theirs(
        [tensor for tensor, _ in found], [leaves.read(tensor.ours, layer) for tensor, layer in found]))
        for name, found in lines.items()}
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    (folder / "config.json").write_text(json.dumps(choice.fields | {"dtype": "float32"} | ids))
    torch.set_num_threads(1)
    loaded, found = getattr(transformers, choice.architecture).from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True)
    tied = set(choice.family.aliases(choice.model, task)) if choice.model.tied_embeddings else set()
    tied |= {name for name in found["missing_keys"] if name.endswith(("embed_tokens.weight", "embed_positions.weight"))}
    assert not found["unexpected_keys"] and set(found["missing_keys"]) <= tied, found
    return choice, params, loaded.eval()


def logits_of(model: ModelConfig, params: Any, tokens_BT: np.ndarray, source_BS: np.ndarray) -> jax.Array:
    transformer = Transformer(model)

    def run(params: Any) -> jax.Array:
        inputs = {}
        if model.architecture == "encoder_decoder":
            inputs["encoded"] = transformer.apply({"params": params}, source_BS, method="encode")
        return transformer.apply({"params": params}, tokens_BT, **inputs).logits_BTV

    return jax.jit(run)(params)


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_computes_the_same(name: str, tmp_path: Any) -> None:
    case = CASES[name]
    choice, params, theirs = written(case, tmp_path / name)
    assert tuple(step.rewrite.fields[0] for step in choice.steps) == case.fields
    model, params = resolve_model(case.model, 31), nest(params)
    tokens_BT, source_BS = parity.draw_tokens(theirs, 2, 9), parity.draw_tokens(theirs, 2, 11, seed=1)
    both = model.architecture == "encoder_decoder"
    inputs = {"input_ids": source_BS, "decoder_input_ids": tokens_BT} if both else {"input_ids": tokens_BT}
    with torch.no_grad():
        expected = theirs(**{name: torch.tensor(ids).long() for name, ids in inputs.items()}).logits.numpy()
    found = logits_of(model, params, tokens_BT, source_BS)
    assert np.std(expected) > 0.1  # Of something, not of nothing.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    ours = parity.Ours(model, params, task_of(model), choice.family, [])
    if both:
        parity.check_greedy_target(theirs, ours, new_tokens=12)
    else:
        parity.check_greedy(theirs, ours, new_tokens=12)


def test_a_run_is_written_as_another_family(tmp_path: Any) -> None:
    """Reddens where a run's checkpoint is read past its steps, or a note is lost."""
    source, tokenizer = published.gpt2(tmp_path / "gpt2", activation_function="relu")
    import_checkpoint(str(tmp_path / "gpt2"), str(tmp_path / "run"))
    done = export_run(str(tmp_path / "run"), str(tmp_path / "opt"), family="opt")
    assert done.notes[1:] == ("position_offset 0 -> 2: positions are written from another row",)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "opt")
    inputs = tokenizer("To be, or not to be", return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, source(**inputs).logits, rtol=0, atol=1e-5)
    assert type(model).__name__ == "OPTForCausalLM"


def test_every_rewrite_is_taken_by_a_case() -> None:
    assert {field for case in CASES.values() for field in case.fields} == {
        rewrite.fields[0] for rewrite in REWRITES}


def test_a_note_says_each_rewrite_in_one_line() -> None:
    choice = choose_family(resolve_model(CASES["marian"].model, 31), "sequence_to_sequence", None, None, None)
    notes = [step.note for step in choice.steps]
    assert notes[1].startswith("sinusoidal_halves False -> True: the width's dimensions")
    assert notes[2] == "attention_scale 0.3 -> None: queries are written scaled"
    assert not any("\n" in note for note in notes)


@pytest.mark.parametrize("model,named", [
    (presets.vaswani("tiny", **SIZES, norm_epsilon=1e-6), "marian .*norm_epsilon=1e-06, not 1e-05$"),
    (dataclasses.replace(PLAIN, embedding_norm=True), "embedding_norm=True, not False$"),
    (dataclasses.replace(PLAIN, position_offset=2, embedding_width=16, tied_embeddings=False), "embedding_width=16"),
    (dataclasses.replace(LLAMA, qk_norm=True, attention_sink=True), "attention_sink=True, not False$"),
    (dataclasses.replace(LLAMA, positions="alibi"), "positions=alibi, not rope$"),
    (presets.bart("base", **SIZES, tied_embeddings=False, head_bias=False), "bart .*tied_embeddings=False, not True"),
    (dataclasses.replace(PLAIN, architecture="encoder", positions="rope"), "positions=rope, not learned.* and . more$"),
], ids=["epsilon", "norm after positions", "a narrow table", "sink", "alibi", "untied bart", "encoder"])
def test_what_cannot_be_folded_is_named(model: ModelConfig, named: str) -> None:
    """Reddens where a rewrite is taken that is not the same function."""
    task = "masked_language_modeling" if model.architecture == "encoder" else task_of(model)
    with pytest.raises(UserError, match=named) as caught:
        choose_family(resolve_model(model, 31), task, None, None, None)
    assert "\n" not in str(caught.value)


def test_patterns_that_say_the_same_are_the_same() -> None:
    """Reddens where a pattern is compared as it is written, or fields that no layer reads are."""
    window = dataclasses.replace(LLAMA, qk_norm=True, num_layers=3, attention_window=5, relative_buckets=64)
    patterns = {("full", "full", "full", "window"): None, ("window",): 5, ("window", "full"): 5}
    for pattern, width in patterns.items():
        model = dataclasses.replace(window, attention_pattern=pattern)
        choice = choose_family(resolve_model(model, 31), "language_modeling", None, "qwen3", None)
        assert not choice.steps and choice.model.attention_window == width
