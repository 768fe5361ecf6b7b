"""BERT, RoBERTa, XLM-RoBERTa and DistilBERT against transformers, with the head of every task, in shapes that differ in
all that a family lets differ."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
import parity
import pytest
from published_configs import BERT_CHINESE, DISTILBERT_BASE, XLM_ROBERTA_BASE

from purelm.config import Config, TaskConfig, resolve_model
from purelm.errors import UserError
from purelm.interop.checkpoint import open_checkpoint
from purelm.interop.checkpoint_files import read_tensor
from purelm.interop.families import bert
from purelm.tasks import task_of

BERT = {"vocab_size": 40, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20,
        "max_position_embeddings": 16}
ROBERTA = {**BERT, "max_position_embeddings": 18, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
DISTILBERT = {"vocab_size": 40, "dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 20, "max_position_embeddings": 16}
MASKED_TASK = "masked_language_modeling"
MASKED, TEXTS, WORDS, ANSWERS = "MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering"

# (family, head, fields): three shapes a family at least, in each of which something else would be lost.
SHAPES = {
    "Bert masked": ("Bert", MASKED, {**BERT, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}),
    "Bert texts, 3 types": ("Bert", TEXTS, {**BERT, "hidden_size": 10, "num_attention_heads": 5, "type_vocab_size": 3,
                                            "hidden_act": "gelu_new", "num_labels": 3, "classifier_dropout": 0.25}),
    "Bert words, 1 type": ("Bert", WORDS, {**BERT, "type_vocab_size": 1, "hidden_act": "relu", "num_labels": 5,
                                           "num_hidden_layers": 1, "layer_norm_eps": 1e-3}),
    "Bert answers": ("Bert", ANSWERS, {**BERT, "num_attention_heads": 1, "initializer_range": 0.1}),
    "Roberta masked": ("Roberta", MASKED, ROBERTA),
    "Roberta texts, relu": ("Roberta", TEXTS, {**ROBERTA, "hidden_size": 10, "num_attention_heads": 5, "num_labels": 4,
                                               "hidden_act": "relu", "type_vocab_size": 2}),
    "Roberta words, padding 3": ("Roberta", WORDS, {**ROBERTA, "pad_token_id": 3, "max_position_embeddings": 24,
                                                    "num_hidden_layers": 1, "hidden_act": "gelu_new"}),
    "XLMRoberta answers": ("XLMRoberta", ANSWERS, {**ROBERTA, "num_attention_heads": 1, "hidden_dropout_prob": 0.0}),
    "DistilBert masked": ("DistilBert", MASKED, {**DISTILBERT, "sinusoidal_pos_embds": True}),
    "DistilBert texts": ("DistilBert", TEXTS, {**DISTILBERT, "dim": 10, "n_heads": 5, "activation": "gelu_new",
                                               "num_labels": 3}),
    "DistilBert words": ("DistilBert", WORDS, {**DISTILBERT, "n_layers": 1, "activation": "relu", "dropout": 0.3}),
    "DistilBert answers": ("DistilBert", ANSWERS, {**DISTILBERT, "n_heads": 1, "qa_dropout": 0.0}),
}
MORE_SHAPES = {
    "Bert masked, not tied": ("Bert", MASKED, {**BERT, "tie_word_embeddings": False, "hidden_act": "silu"}),
    "Bert masked, 3 types": ("Bert", MASKED, {**BERT, "type_vocab_size": 3, "num_hidden_layers": 3}),
    "Bert texts, 1 layer": ("Bert", TEXTS, {**BERT, "num_hidden_layers": 1, "num_attention_heads": 6}),
    "Roberta masked, not tied": ("Roberta", MASKED, {**ROBERTA, "tie_word_embeddings": False, "num_hidden_layers": 3}),
    "Roberta answers, 2 types": ("Roberta", ANSWERS, {**ROBERTA, "type_vocab_size": 2, "hidden_act": "gelu_new"}),
    "XLMRoberta masked": ("XLMRoberta", MASKED, {**ROBERTA, "pad_token_id": 0, "num_attention_heads": 6}),
    "XLMRoberta texts": ("XLMRoberta", TEXTS, {**ROBERTA, "num_labels": 6}),
    "XLMRoberta words": ("XLMRoberta", WORDS, {**ROBERTA, "num_labels": 6, "hidden_act": "silu"}),
    "DistilBert masked, not tied": ("DistilBert", MASKED, {**DISTILBERT, "tie_word_embeddings": False}),
    "DistilBert texts, 6 heads": ("DistilBert", TEXTS, {**DISTILBERT, "n_heads": 6, "seq_classif_dropout": 0.0}),
}


def make(family: str, head: str, fields: dict[str, Any], **more: Any) -> Any:
    """transformers' model, random."""
    transformers = pytest.importorskip("transformers")
    return parity.make(getattr(transformers, f"{family}For{head}"), getattr(transformers, f"{family}Config"), **fields,
                       **more)


def check(family: str, head: str, fields: dict[str, Any]) -> None:
    positions = {"Roberta": "own", "XLMRoberta": "own"}.get(family, "given")
    parity.check_encoder(make(family, head, fields), positions=positions, token_types=family != "DistilBert")


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits_layers_gradients_and_the_way_back_are_theirs(shape):
    """Reddens where a line of a table, an activation, an offset of positions or a type of token is wrong."""
    check(*shape)


@pytest.mark.slow
@pytest.mark.parametrize("shape", MORE_SHAPES.values(), ids=MORE_SHAPES)
def test_logits_layers_gradients_and_the_way_back_are_theirs_in_more_shapes(shape):
    check(*shape)


@pytest.mark.parametrize("name", ["Bert texts, 3 types", "Bert words, 1 type", "Bert answers", "Roberta texts, relu"])
def test_tasks_read_them_as_transformers_does(name):
    """A batch as the task makes it, padded on the right, without positions: reddens where the task's own head, or its
    positions or types of tokens, are others."""
    import torch

    model = make(*SHAPES[name])
    taken = parity.ours(model)
    tokens_BT, segments_BT = parity.draw_tokens(model, 3, parity.LENGTH), parity.padded_segments(parity.LENGTH)
    segments_BT[1] = segments_BT[1, ::-1]
    tokens_BT = np.where(segments_BT > 0, tokens_BT, model.config.pad_token_id).astype(np.int32)
    batch = {"tokens": tokens_BT, "segments": segments_BT}
    theirs = {"input_ids": tokens_BT, "attention_mask": segments_BT}
    if taken.task != "tagging":
        batch["token_types"] = theirs["token_type_ids"] = (tokens_BT % taken.config.token_types).astype(np.int32)
    whole = Config(model=taken.config, task=TaskConfig(name=taken.task))
    logits_of = jax.jit(lambda params, batch: task_of(whole).logits_of(whole, params, batch))
    logits = logits_of(taken.params, batch)
    with torch.no_grad():
        output = model(**{name: torch.tensor(array).long() for name, array in theirs.items()})
    if taken.task == "classification":
        np.testing.assert_allclose(logits[0], output.logits, atol=1e-4)
    elif taken.task == "tagging":
        np.testing.assert_allclose(np.asarray(logits)[segments_BT > 0], output.logits[segments_BT > 0], atol=1e-4)
    else:
        for number, their_logits_BT in enumerate((output.start_logits, output.end_logits)):
            np.testing.assert_allclose(np.asarray(logits)[:, number][segments_BT > 0],
                                       their_logits_BT[segments_BT > 0], atol=1e-4)
            assert (np.asarray(logits)[:, number][segments_BT == 0] < -1e29).all()


def test_released_configs_are_understood():
    """config.json of bert-base-chinese, xlm-roberta-base and distilbert-base-uncased, field by field."""
    config = parity.read_model("bert", BERT_CHINESE, MASKED_TASK)
    assert (config.vocabulary_size, config.token_types, config.norm_epsilon) == (21128, 2, 1e-12)
    config = parity.read_model("xlm-roberta", XLM_ROBERTA_BASE, MASKED_TASK)
    assert (config.context_length, config.position_offset, config.token_types) == (512, 2, 1)
    config = parity.read_model("distilbert", DISTILBERT_BASE, MASKED_TASK)
    assert (config.token_types, config.num_layers, config.classifier_dropout) == (0, 6, 0.0)


@pytest.mark.parametrize("family, task, fields, expected", [
    ("bert", "classification", {"hidden_dropout_prob": 0.3}, 0.3),
    ("bert", "tagging", {"hidden_dropout_prob": 0.3, "classifier_dropout": 0.0}, 0.0),
    ("roberta", "extractive_qa", {"classifier_dropout": 0.3}, 0.0),
    ("distilbert", "tagging", {"dropout": 0.3}, 0.3), ("distilbert", "classification", {}, 0.2),
    ("distilbert", "extractive_qa", {"qa_dropout": 0.05}, 0.05),
])
def test_each_head_has_its_own_dropout(family, task, fields, expected):
    """Reddens where one head's dropout is taken for another's, or null for 0."""
    assert parity.read_model(family, fields, task).classifier_dropout == expected


@pytest.mark.parametrize("family, task, fields, message", [
    ("bert", MASKED_TASK, {"is_decoder": True}, "is_decoder=True: a decoder of this family"),
    ("bert", MASKED_TASK, {"add_cross_attention": True}, "add_cross_attention=True: cross-attention"),
    ("bert", "tagging", {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key': rel"),
    ("bert", "tagging", {"num_attention_heads": 5, "hidden_size": 12}, "num_attention_heads=5: does not divide"),
    ("distilbert", "tagging", {"n_heads": 5, "dim": 12}, "n_heads=5: does not divide"),
    ("bert", "tagging", {"hidden_act": "mish"}, "hidden_act='mish': no such activation"),
    ("bert", "classification", {"problem_type": "regression"}, "problem_type='regression': only one class a text"),
    ("roberta", "classification", {"problem_type": "multi_label_classification"},
     "problem_type='multi_label_classification': only one class a text"),
    ("distilbert", "classification", {"id2label": {"0": "x"}}, "id2label={'0': 'x'}: a classifier has 2 labels"),
    ("distilbert", "extractive_qa", {"num_labels": 3}, "num_labels=3: question answering has 2 outputs"),
    ("roberta", MASKED_TASK, {"hidden_act": "relu"}, "hidden_act='relu': the head of masked tokens has"),
    ("roberta", "tagging", {"pad_token_id": None}, "pad_token_id=None: positions start in the row after"),
    ("roberta", "tagging", {"max_position_embeddings": 2}, "max_position_embeddings=2: leaves no room"),
    ("bert", "tagging", {"hidden_sizes": 12}, "hidden_sizes=12: no such field .* did you mean 'hidden_size'"),
    ("distilbert", "tagging", {"hidden_act": "gelu"}, "hidden_act='gelu': no such field is known"),
])
def test_what_cannot_be_taken_over_is_refused_by_name(family, task, fields, message):
    with pytest.raises(UserError, match=f"^config.json: {message}") as raised:
        parity.read_model(family, fields, task)
    assert "\n" not in str(raised.value)


def test_a_folder_like_bert_base_uncased_is_read(tmp_path):
    """Saved from pretraining and called BertForMaskedLM, with TensorFlow's names of a norm's parameters; reddens where
    the pooler, the head of the next sentence or a buffer is called unknown, or an old name is missed."""
    transformers = pytest.importorskip("transformers")
    safetensors = pytest.importorskip("safetensors.numpy")
    model = parity.make(transformers.BertForPreTraining, transformers.BertConfig, **BERT)
    taken = parity.ours(model)
    parity.check_way_back(model, taken)
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"):
           np.ascontiguousarray(array)
           for name, array in parity.tensors_from(taken.tensors, taken.params).items()}
    kept = {name: tensor.numpy() for name, tensor in model.state_dict().items() if "pooler" in name or "seq_" in name}
    kept["bert.embeddings.position_ids"] = np.arange(16)[None]
    safetensors.save_file(old | kept, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**parity.fields_of(model), "architectures": ["BertForMaskedLM"]}))
    found = open_checkpoint(tmp_path)
    assert found.others.keys() == kept.keys() and len(kept) == 5 and found.model == resolve_model(taken.config, 40)
    assert found.names["bert.embeddings.LayerNorm.weight"] == "bert.embeddings.LayerNorm.gamma"
    for name, stored in found.files.items():
        np.testing.assert_array_equal(read_tensor(stored), model.state_dict()[name].numpy(), err_msg=name)
    # A classifier of texts reads the pooler.
    config = parity.read_model("bert", parity.fields_of(model), "classification")
    assert "bert.pooler.dense.weight" in {tensor.theirs for tensor in bert.tensors(config, "classification")}
