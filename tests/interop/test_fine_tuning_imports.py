"""A masked language model of transformers is taken over, and every task of encoders goes on from its run folder."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import numpy as np
import parity
import pytest

from purelm.config import load_json
from purelm.data import load_tokenizer
from purelm.interop.importing import import_checkpoint
from purelm.tasks import masked_language_modeling
from purelm.training.launch import launch
from purelm.training.load import load_run

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "film", "was", "good", "bad", "paris"]
SENTENCES = [f"the film was {word} in paris {number}" for number in range(20) for word in ("good", "bad")]
ROWS = {
    "classification": [{"text": text, "label": "good" if "good" in text else "bad"} for text in SENTENCES],
    "tagging": [{"tokens": text.split(), "tags": ["B-place" if word == "paris" else "O" for word in text.split()]}
                for text in SENTENCES],
    "extractive_qa": [{"id": str(number), "context": text, "question": "where", "answers": [
        {"text": "paris", "start": text.index("paris")}]} for number, text in enumerate(SENTENCES)],
    "masked_language_modeling": [{"text": text} for text in SENTENCES],
}
# What a fine-tuned BERT is, beside what the masked language model's config says.
WITHOUT_HEAD = {"head_transform": False, "head_bias": False}
CHANGES = {
    "classification": {**WITHOUT_HEAD, "pooling": "first", "pooling_transform": "tanh", "classifier_dropout": 0.1},
    "tagging": WITHOUT_HEAD, "extractive_qa": WITHOUT_HEAD, "masked_language_modeling": {},
}
DRAWN = {"classification": {"classifier/output/bias", "classifier/output/kernel", "classifier/transform/bias",
                            "classifier/transform/kernel"},
         "tagging": {"classifier/output/bias", "classifier/output/kernel"},
         "extractive_qa": {"span/bias", "span/kernel"}, "masked_language_modeling": set()}


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> pathlib.Path:
    """The run folder of a tiny BERT that was saved from pretraining."""
    transformers = pytest.importorskip("transformers")
    source = tmp_path_factory.mktemp("bert")
    (source / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    described = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (source / "tokenizer_config.json").write_text(json.dumps(described))
    model = parity.make(transformers.BertForPreTraining, transformers.BertConfig, vocab_size=len(VOCABULARY) + 3,
                        hidden_size=12, num_hidden_layers=1, num_attention_heads=3, intermediate_size=20,
                        max_position_embeddings=24)
    model.save_pretrained(source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    run = tmp_path_factory.mktemp("runs") / "bert"
    assert len(import_checkpoint(str(source), str(run)).kept) == 4
    return run


@pytest.mark.parametrize("task", ["classification", "extractive_qa", *(
    pytest.param(task, marks=pytest.mark.slow) for task in ("tagging", "masked_language_modeling"))])
def test_a_task_goes_on_from_it(imported, task, tmp_path, capfd):
    """Reddens where a part of the encoder is drawn anew, a head is not, or that is not said."""
    data = tmp_path / "train.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS[task])) + "\n")
    before = load_json(imported / "config.json")
    config = dataclasses.replace(
        before, init_from=str(imported), task=dataclasses.replace(before.task, name=task, **(
            {"window_overlap": 2} if task == "extractive_qa" else {})),
        model=dataclasses.replace(before.model, **CHANGES[task]),
        data=dataclasses.replace(before.data, path=str(data), tokenizer_path=None, validation_fraction=0.2),
        optimizer=dataclasses.replace(before.optimizer, learning_rate=1e-9),
        training=dataclasses.replace(before.training, num_epochs=None, num_steps=1, batch_size=4))
    launch(config, str(tmp_path / "run"), quiet=False)
    said = capfd.readouterr().err
    drawn = [line for line in said.splitlines() if line.startswith("not in that run, and so drawn at random: ")]
    assert [set(line.partition(": ")[2].split(", ")) for line in drawn] == [DRAWN[task]] * bool(DRAWN[task])
    assert "of another shape" not in said
    first, after = load_run(str(imported)).params, load_run(str(tmp_path / "run")).params
    for name in after.keys() & first.keys():  # After a step that moves nothing.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after[name], first[name])
    assert after.keys() - first.keys() == {path.split("/")[0] for path in DRAWN[task]}


def test_the_mask_is_the_checkpoints_own(imported):
    """Reddens where the mask is an id after the vocabulary, whose embedding the checkpoint does not have."""
    tokenizer = load_tokenizer(imported / "tokenizer.json")
    assert masked_language_modeling.mask_id(tokenizer) == SPECIAL.index("[MASK]")
