"""Beam search with real networks: the exhaustive n best of all four architectures, and Hugging Face's hypotheses."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference.beam_search import search, search_prompts
from purelm.inference.decode import generate
from purelm.inference.sampling import Sampler
from purelm.models import make_model, parameter_shapes, unstack_layers

VOCABULARY, END, NEW, WIDE = 4, 3, 3, 64
PROMPTS = np.array([[1, 2, 0, 0, 0], [2, 0, 1, 3, 2], [0, 0, 0, 0, 0]])
LENGTHS = np.array([2, 5, 1])
SOURCES = np.array([[1, 2, 0, 3], [2, 3, 0, 0]])
SEGMENTS = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])


def small(**fields) -> ModelConfig:
    return ModelConfig(**{"vocabulary_size": VOCABULARY, "context_length": 8, "num_layers": 2, "width": 16,
                          "num_heads": 4, **fields})


DECODERS = {
    "learned": small(),
    "rope": small(positions="rope", num_kv_heads=2, qk_norm=True, attention_window=3, attention_softcap=4.0),
    "prefix_t5": small(positions="t5", prefix_attention=True, relative_buckets=4, relative_max_distance=8),
    "alibi": small(positions="alibi", attention_sink=True, scan_layers=True),
    "xla": small(attention_implementation="xla", num_kv_heads=1),
    "sharing": small(positions="sinusoidal", layer_sharing=2, parallel_block=True),
}
RECURRENT = {
    "lstm": small(architecture="recurrent", positions="none"),
    "gru": small(architecture="recurrent", positions="none", cell="gru"),
}
READERS = {
    "transformer": small(architecture="encoder_decoder"),
    "recurrent": small(architecture="recurrent_encoder_decoder", positions="none"),
    "alibi": small(architecture="encoder_decoder", positions="alibi", num_kv_heads=2, attention_window=2),
    "luong": small(architecture="recurrent_encoder_decoder", positions="none", recurrent_attention="luong"),
}
SLOW = ("prefix_t5", "alibi", "xla", "sharing", "gru", "luong")


def cases(configs):
    return [pytest.param(config, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
            for name, config in configs.items()]


@functools.cache
def make_params(config: ModelConfig):
    """Noise, so that probabilities are far apart."""
    draw = np.random.default_rng(5)

    def leaf(path, shape):
        return jnp.asarray(0.5 * draw.standard_normal(shape.shape) + (path[-1].key == "scale"), shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, parameter_shapes(config))


@functools.partial(jax.jit, static_argnums=0)
def all_logits(config, params, tokens_BT, inputs):
    model = make_model(config)
    if "source_BS" in inputs:
        encoded = model.apply({"params": params}, inputs["source_BS"], method="encode",
                              source_segments_BS=inputs["source_segments_BS"])
        inputs = {"encoded": encoded}
    return model.apply({"params": params}, tokens_BT, **inputs).logits_BTV


def every_score(config, prompt, inputs, alpha, stops=(END,)):
    """{ids: (score, log-probability)} of all texts after the prompt that end within NEW tokens, by the full forward."""
    texts = np.array(list(itertools.product(range(VOCABULARY), repeat=NEW)))
    read = np.concatenate([np.tile(prompt, (len(texts), 1)), texts], axis=1)
    if config.prefix_attention:
        inputs = {"prefix_BT": np.tile(np.arange(read.shape[1]) < len(prompt), (len(texts), 1))}
    if config.architecture.endswith("encoder_decoder"):
        inputs = {name: np.tile(value, (len(texts), 1)) for name, value in inputs.items()}
    logits = np.asarray(all_logits(config, make_params(config), read, inputs), np.float64)[:, len(prompt) - 1:-1]
    chances = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    sums = np.take_along_axis(chances, texts[..., None], axis=-1)[..., 0].cumsum(axis=1)
    scores = {}
    for text, total in zip(texts.tolist(), sums):
        length = next((place for place, token in enumerate(text, 1) if token in stops), None)
        if length is not None:
            scores[tuple(text[:length])] = (total[length - 1] / ((5 + length) / 6) ** alpha, total[length - 1])
    return scores


def assert_best(found, row, scores):
    best = sorted(scores, key=lambda ids: -scores[ids][0])[:found.ids_BNT.shape[1]]
    assert [tuple(ids[:length]) for ids, length in zip(found.ids_BNT[row].tolist(), found.lengths_BN[row])] == best
    np.testing.assert_allclose(found.score_BN[row], [scores[ids][0] for ids in best], rtol=1e-4)
    np.testing.assert_allclose(found.log_probability_BN[row], [scores[ids][1] for ids in best], rtol=1e-4)


def continue_prompts(config, prompts=PROMPTS, lengths=LENGTHS, **options):
    options = {"beam_size": WIDE, "max_new_tokens": NEW, "length_penalty": 0.8, "stop_id": END,
               "vocabulary_size": VOCABULARY, "num_best": 5} | options
    return search_prompts(config, make_params(config), prompts, lengths, **options)


@pytest.mark.parametrize("config", cases(DECODERS | RECURRENT))
def test_a_wide_beam_finds_the_best_continuations(config):
    # Reddens where a hypothesis sees another's tokens, where positions or the window count rows of the cache in place
    # of tokens, or where a short prompt sees its padding.
    found = continue_prompts(config)
    for row, length in enumerate(LENGTHS):
        assert_best(found, row, every_score(config, PROMPTS[row, :length], {}, 0.8))


@pytest.mark.parametrize("config", cases(READERS))
def test_a_wide_beam_finds_the_best_targets(config):
    params = unstack_layers(make_params(config))
    found = jax.device_get(search(config, params, SOURCES, SEGMENTS, beam_size=WIDE, max_new_tokens=NEW, num_best=5,
                                  length_penalty=0.8, target_start=(END, 2), stop_id=(1, END),
                                  vocabulary_size=VOCABULARY))
    for row in range(len(SOURCES)):
        inputs = {"source_BS": SOURCES[row], "source_segments_BS": SEGMENTS[row]}
        assert_best(found, row, every_score(config, [END, 2], inputs, 0.8, stops=(1, END)))


@pytest.mark.parametrize("config", [DECODERS["rope"], pytest.param(RECURRENT["lstm"], marks=pytest.mark.slow)],
                         ids=["rope", "lstm"])
def test_a_row_is_what_it_is_alone(config):
    together = continue_prompts(config, beam_size=3, num_best=2)
    for row in range(len(LENGTHS)):
        alone = continue_prompts(config, PROMPTS[row:row + 1], LENGTHS[row:row + 1], beam_size=3, num_best=2)
        np.testing.assert_array_equal(alone.ids_BNT[0], together.ids_BNT[row])
        np.testing.assert_allclose(alone.score_BN[0], together.score_BN[row], rtol=1e-5)


def test_a_beam_of_one_is_greedy():
    config = DECODERS["learned"]
    one = continue_prompts(config, beam_size=1, num_best=1)
    drawn = generate(config, make_params(config), PROMPTS, prompt_lengths_B=LENGTHS, max_new_tokens=NEW,
                     sampler=Sampler(0.0), key=jax.random.key(0), stop_id=END)
    np.testing.assert_array_equal(one.ids_BT, drawn.ids_BT)
    np.testing.assert_array_equal(one.finished_B, drawn.stopped_B)


def test_without_a_stop_all_have_the_same_length():
    found = continue_prompts(DECODERS["learned"], beam_size=3, num_best=3, stop_id=None)
    assert (found.lengths_BN == NEW).all() and not found.finished_BN.any()
    assert (np.diff(found.score_BN, axis=1) <= 0).all()


@pytest.mark.parametrize("options, told", [
    ({"max_new_tokens": 4}, "context_length"), ({"prompts": np.array([[9]]), "lengths": None}, "prompt id 9"),
    ({"stop_id": 4}, "stop_id"), ({"sampler": Sampler(top_k=2)}, "top_k"),
    ({"sampler": Sampler(temperature=0.5)}, "temperature"), ({"length_penalty": -1.0}, "length_penalty"),
    ({"diversity_penalty": float("nan")}, "diversity_penalty")])
def test_what_cannot_be_searched_is_told(options, told):
    with pytest.raises(UserError, match=told):
        continue_prompts(DECODERS["learned"], **options)


def test_models_that_continue_no_prompt_are_told():
    with pytest.raises(UserError, match="encoder_decoder continues no prompt"):
        continue_prompts(READERS["transformer"])


GPT2 = ModelConfig(vocabulary_size=29, context_length=16, num_layers=2, width=16, num_heads=4,
                   feed_forward="gelu_tanh")


def gpt2_params(oracle):
    """A transformers GPT-2's weights as purelm has them."""
    weights = {name: value.detach().numpy() for name, value in oracle.named_parameters()}

    def stacked(name):
        return np.stack([weights[f"transformer.h.{layer}.{name}"] for layer in range(GPT2.num_layers)])

    def linear(name):
        return {"kernel": stacked(f"{name}.weight"), "bias": stacked(f"{name}.bias")}

    def norm(name):
        return {"scale": stacked(f"{name}.weight"), "bias": stacked(f"{name}.bias")}

    fused = linear("attn.c_attn")
    parts = {name: {kind: value[..., 16 * i:16 * (i + 1)] for kind, value in fused.items()}
             for i, name in enumerate(("query", "key", "value"))}
    return {
        "embedding": {"embedding": weights["transformer.wte.weight"]},
        "positions": {"embedding": weights["transformer.wpe.weight"]},
        "final_norm": {"scale": weights["transformer.ln_f.weight"], "bias": weights["transformer.ln_f.bias"]},
        "layers": {"attention_norm": norm("ln_1"), "attention": parts | {"output": linear("attn.c_proj")},
                   "feed_forward_norm": norm("ln_2"),
                   "feed_forward": {"up": linear("mlp.c_fc"), "down": linear("mlp.c_proj")}}}


@pytest.mark.parametrize("stop_id", [pytest.param(None, marks=pytest.mark.slow), 24])
def test_hypotheses_are_hugging_faces(stop_id):
    # Without a length penalty, and stopping when as many have finished as there are beams, the rules coincide.
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    oracle = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=29, n_positions=16, n_embd=16, n_layer=2, n_head=4, initializer_range=0.7, bos_token_id=0,
        eos_token_id=stop_id)).eval()
    prompt = np.random.default_rng(0).integers(8, 29, (3, 5))
    ids = torch.tensor(prompt)
    expected = oracle.generate(
        ids, attention_mask=torch.ones_like(ids), num_beams=4, num_return_sequences=4, max_new_tokens=10,
        do_sample=False, length_penalty=0.0, early_stopping=True, pad_token_id=stop_id or 0, eos_token_id=stop_id,
        return_dict_in_generate=True, output_scores=True)
    found = search_prompts(GPT2, gpt2_params(oracle), prompt, None, beam_size=4, num_best=4, max_new_tokens=10,
                           length_penalty=0.0, stop_id=stop_id, vocabulary_size=29)
    theirs = np.full((12, 10), stop_id or 0)
    generated = expected.sequences.numpy()[:, 5:]
    theirs[:, :generated.shape[1]] = generated
    np.testing.assert_array_equal(found.ids_BNT.reshape(12, 10), theirs)
    np.testing.assert_allclose(found.score_BN.reshape(-1), expected.sequences_scores.numpy(), rtol=1e-4)
    if stop_id is not None:
        assert found.finished_BN.any(axis=1).all()
