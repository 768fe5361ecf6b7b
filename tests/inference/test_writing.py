"""What generate.py writes, and which of its flags go together."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import ModelConfig
from purelm.data.tokenizers import ByteTokenizer
from purelm.errors import UserError
from purelm.inference import encode_prompt, sample_text, writing
from purelm.inference.decode import Reason
from purelm.inference.sampling import Sampler
from purelm.inference.speculative import ModelDraft
from purelm.inference.writing import Wish, check_wish, parse_biases, parse_ids, read_schema, token_lines, write
from purelm.models import Transformer

TOKENIZER = ByteTokenizer(end_of_text=True)
CONFIG = ModelConfig(vocabulary_size=257, context_length=64, num_layers=1, width=8, num_heads=2)
WISH = Wish(max_new_tokens=12, seed=1)


@pytest.fixture(scope="module")
def params():
    return jax.jit(Transformer(CONFIG).init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]


def texts(params, wish: Wish, prompt: str = "ab"):
    return write(CONFIG, params, TOKENIZER, encode_prompt(TOKENIZER, prompt), wish)


def test_samples_are_those_of_sample_text(params):
    # Reddens with other keys, samples in another order, or a temperature that is not 1 where none was asked for.
    found = texts(params, dataclasses.replace(WISH, num_samples=3))
    expected = sample_text(CONFIG, params, TOKENIZER, "ab", num_samples=3, max_new_tokens=12, sampler=Sampler(1.0),
                           seed=1)
    assert [one.text for one in found] == expected and found[0].tokens is None


def test_each_token_with_its_probability(params):
    one, = texts(params, dataclasses.replace(WISH, log_probabilities=2))
    assert len(one.tokens) == len(one.ids_T) and all(len(token.alternatives) == 2 for token in one.tokens)
    assert sum(token.log_probability for token in one.tokens) == pytest.approx(one.log_probability, abs=1e-3)
    first = token_lines(TOKENIZER, one.tokens)[0]
    assert first.startswith(f"{math.exp(one.tokens[0].log_probability):.3f}  ")


def test_a_stop_string_is_cut_off(params):
    # Reddens where the prompt's own is found, or what was written is shown whole.
    wish = dataclasses.replace(WISH, logit_bias=((ord("x"), 30.0), (ord("y"), 29.0)), max_new_tokens=40)
    free, = texts(params, wish, prompt="xyx")
    place = free.text.index("xyx", 3)
    one, = texts(params, dataclasses.replace(wish, stop=("xyx",)), prompt="xyx")
    assert one.reason == Reason.STOP_STRING and one.text == free.text[:place]


@pytest.mark.parametrize("wish", [
    dataclasses.replace(WISH, temperature=0.0, cache="int8"),
    dataclasses.replace(WISH, beam_size=2, length_penalty=0.0, num_samples=2),
    dataclasses.replace(WISH, contrastive_alpha=0.5, top_k=3),
    dataclasses.replace(WISH, temperature=0.0, lookup=3),
], ids=("int8", "beam", "contrastive", "lookup"))
def test_other_ways_of_writing(params, wish):
    found = texts(params, wish)
    assert len(found) == wish.num_samples and all(one.text.startswith("ab") for one in found)
    assert all(1 <= len(one.ids_T) <= 12 and one.log_probability < 0 for one in found)


def test_a_draft_changes_nothing(params):
    greedy, = texts(params, dataclasses.replace(WISH, temperature=0.0))
    drafted, = texts(params, dataclasses.replace(WISH, temperature=0.0, draft=ModelDraft(CONFIG, params),
                                                 num_drafted=3))
    assert greedy.text == drafted.text


@pytest.mark.parametrize("without, given", [
    ({"beam_size": 3}, {"length_penalty": 0.6}),
    ({"contrastive_alpha": 0.6}, {"top_k": 4}),
    ({"draft": "itself", "temperature": 0.0}, {"num_drafted": 5})], ids=("beam", "contrastive", "draft"))
def test_what_belongs_to_a_way_of_writing_has_a_value(params, monkeypatch, without, given):
    """Reddens with another value, or none."""
    def asked(wish):
        told = {}
        for name in ("search_prompts", "contrastive_search", "generate_speculative"):
            monkeypatch.setattr(writing, name, lambda *_, **options: told.update(options))
        with pytest.raises((TypeError, AttributeError)):  # Nothing was written.
            texts(params, wish)
        return told

    if "draft" in without:
        without = {**without, "draft": ModelDraft(CONFIG, params)}
    told, expected = (asked(dataclasses.replace(WISH, **fields)) for fields in (without, {**without, **given}))
    (name, value), = given.items()
    assert told[name] == expected[name] == value


def test_constraints(params):
    pytest.importorskip("outlines_core")
    one, = texts(params, dataclasses.replace(WISH, regex="[0-4]{3}"))
    assert one.text[2:].isdigit() and len(one.text) == 5 and one.reason == Reason.STOP_ID
    schema = '{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}'
    one, = texts(params, dataclasses.replace(WISH, json_schema=schema, max_new_tokens=30))
    assert one.text[2:].replace(" ", "") in ('{"a":true}', '{"a":false}')


@pytest.mark.parametrize("fields, words", [
    ({"beam_size": 2, "length_penalty": 0.0, "top_k": 3}, "--top_k does not go with --beam_size"),
    ({"length_penalty": 0.0}, "no effect without --beam_size"),
    ({"beam_size": 4, "length_penalty": 0.0, "beam_groups": 2}, "needs --diversity_penalty"),
    ({"beam_groups": 2}, "no effect without --beam_size"),
    ({"diversity_penalty": 0.5}, "no effect without --beam_groups"),
    ({"contrastive_alpha": 0.6, "top_k": 4, "regex": "a"}, "--regex does not go with --contrastive_alpha"),
    ({"contrastive_alpha": 0.6, "top_k": 4, "num_samples": 2}, "all would be the same"),
    ({"lookup": 3, "stop": ("a",)}, "--stop does not go with --lookup"),
    ({"num_drafted": 3}, "no effect without --draft"),
    ({"beam_size": 2, "num_samples": 3}, "--num_samples=3: a beam has --beam_size=2 texts"),
    ({"beam_size": 4, "beam_groups": 3, "diversity_penalty": 0.5}, "--beam_groups=3: must divide"),
    ({"contrastive_alpha": 1.5}, "--contrastive_alpha=1.5: must be from 0"),
    ({"temperature": 0.0, "top_p": 0.5}, "greedy"),
    ({"temperature": 0.0, "num_samples": 2}, "all would be the same"),
    ({"regex": "a", "json_schema": "{}"}, "give one"),
])
def test_what_does_not_go_together(fields, words):
    with pytest.raises(UserError, match=words) as error:
        check_wish(dataclasses.replace(WISH, **fields))
    assert "\n" not in str(error.value)


def test_lists_of_flags(tmp_path):
    assert parse_ids("3, 17", "--banned_ids") == (3, 17) and parse_ids("", "--banned_ids") == ()
    assert parse_biases("3:-1.5,17:2", "--logit_bias") == ((3, -1.5), (17, 2.0))
    for call in (lambda: parse_ids("3,x", "--a"), lambda: parse_biases("3", "--a"), lambda: parse_biases("3:x", "--a"),
                 lambda: parse_biases("1.5:2", "--a"), lambda: read_schema(str(tmp_path), "--a")):
        with pytest.raises(UserError, match="--a"):
            call()


def test_the_sampler_is_what_was_asked_for():
    wish = dataclasses.replace(WISH, top_k=4, banned_ids=(3,), min_new_tokens=2, presence_penalty=0.5)
    assert wish.sampler() == Sampler(1.0, top_k=4, banned=(3,), min_new_tokens=2, presence_penalty=0.5)
    assert np.isclose(dataclasses.replace(WISH, beam_size=2).sampler().temperature, 0)
