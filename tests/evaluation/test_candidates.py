"""The sentence of the source that a model finds most probable, against probabilities computed one by one."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import Config, DecodingConfig, ModelConfig, TaskConfig, TrainingConfig, validate
from purelm.data.tokenizers.special import around
from purelm.errors import UserError
from purelm.evaluation import sequence_to_sequence as evaluation
from purelm.models import make_model
from purelm.tasks import sequence_to_sequence as task

END = 256
# Few lengths, so that little is compiled.
SENTENCES = [["A cat.", "So it goes on!", "A dog."], ["We do.", "Or do they no?", "It is."],
             ["Oh my!", "How can it be?", "We see"]]
MODELS = {
    "encoder_decoder": dict(architecture="encoder_decoder", num_heads=2, positions="learned", norm="rms_norm"),
    "decoder": dict(architecture="decoder", num_heads=2, positions="learned", norm="rms_norm"),
    "recurrent": dict(architecture="recurrent_encoder_decoder"),
}


class Bytes:
    """A tokenizer whose tokens are the bytes of a text."""

    special, vocabulary_size = around(END), 257

    def encode_batch(self, texts):
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) for text in texts]

    encode_targets = encode_batch


def make_config(architecture="encoder_decoder", **decoding):
    model = ModelConfig(vocabulary_size=257, context_length=56, num_layers=1, width=16, **MODELS[architecture])
    return Config(model=model, task=TaskConfig(name="sequence_to_sequence"), training=TrainingConfig(num_steps=1),
                  decoding=DecodingConfig(**({"candidates": "sentences", "max_new_tokens": 24} | decoding)))


def make_run(architecture):
    config, random = make_config(architecture), np.random.default_rng(0)
    shapes = jax.eval_shape(functools.partial(task.initialize, config), jax.random.key(0))
    params = jax.tree.map(lambda leaf: random.normal(0, 0.4, leaf.shape).astype(np.float32), shapes)
    return types.SimpleNamespace(config=config, params=params, tokenizer=Bytes())


def predict(run, sources, **decoding):
    config = dataclasses.replace(run.config, decoding=dataclasses.replace(run.config.decoding, **decoding))
    run = types.SimpleNamespace(config=config, params=run.params, tokenizer=run.tokenizer)
    return evaluation.predict(run, [{"source": source, "targets": None} for source in sources], batch_size=4)


@functools.partial(jax.jit, static_argnums=0)
def log_probability(config, params, source_S, answer_T):
    """Of one answer, its end included, without batches or padding; config of the model."""
    model, variables = make_model(config), {"params": params}
    if config.architecture == "decoder":
        row = jnp.concatenate([source_S, answer_T[:-1]])
        logits_TV = model.apply(variables, row[None]).logits_BTV[0, len(source_S) - 1:]
    else:
        encoded = model.apply(variables, source_S[None], source_segments_BS=jnp.ones((1, len(source_S)), jnp.int32),
                              method="encode")
        tokens_T = jnp.concatenate([jnp.array([END]), answer_T[:-1]])
        logits_TV = model.apply(variables, tokens_T[None], encoded=encoded).logits_BTV[0]
    return jax.nn.log_softmax(logits_TV)[jnp.arange(len(answer_T)), answer_T].sum()


@pytest.mark.parametrize("architecture", MODELS)
def test_the_answer_is_the_sentence_with_the_best_score(architecture):
    # Reddens with a wrong order, a length penalty left out, an end not counted, another source's sentences.
    run, alpha, moved = make_run(architecture), 3.0, 0
    found = predict(run, [" ".join(texts) for texts in SENTENCES], length_penalty=alpha)
    for texts, answer in zip(SENTENCES, found):
        source_S, *answers = (np.array([*text.encode(), END], np.int32) for text in (" ".join(texts), *texts))
        known = np.array([log_probability(run.config.model, run.params, source_S, ids_T) for ids_T in answers])
        scores = known / ((5 + np.array([len(ids_T) for ids_T in answers])) / 6) ** alpha
        best = int(np.argmax(scores))
        moved += best != np.argmax(known)
        assert answer["text"] == texts[best] and answer["finished"]
        assert answer["log_probability"] == pytest.approx(known[best], abs=2e-3)
        assert answer["probability"] == pytest.approx(float(jax.nn.softmax(scores)[best]), abs=2e-3)
    assert moved  # else the penalty would not matter here


def test_limits_and_mistakes():
    run = make_run("encoder_decoder")
    # What is longer than an answer may be is no candidate, unless all are; a source may be empty.
    short, long, nothing = predict(run, ["A long one. B?", "A long one.", ""], max_new_tokens=4)
    assert [answer["text"] for answer in (short, long, nothing)] == ["B?", "A long one.", ""]
    assert nothing["probability"] == 1
    with pytest.raises(UserError, match="config.decoding.beam_size=4 has no effect with config.decoding.candidates"):
        validate(make_config(beam_size=4))
    with pytest.raises(UserError, match="beam_size=2 has no effect"):
        predict(run, ["B?"], beam_size=2)
    run.params = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), run.params)
    with pytest.raises(UserError, match="not finite"):
        predict(run, ["B?"], max_new_tokens=4)
