"""From a text to an answer: a checkpoint with its tokenizer, taken over into a run folder, answers as transformers."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import parity
import pytest

from purelm.evaluation import classification, extractive_qa, masked_language_modeling, tagging
from purelm.interop.importing import import_checkpoint
from purelm.training.load import load_run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "film",
          "was", "good", "bad", "paris", ".", "?", "中"]
QUESTION, TEXT = "The film, wAs é good?", "the film was good in paris . bad 中"
BERT = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20,
        "max_position_embeddings": 66}
FIELDS = {"Bert": BERT, "Roberta": {**BERT, "type_vocab_size": 1},
          "DistilBert": {"dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 20, "max_position_embeddings": 66}}


def save_tokenizer(family: str, folder: pathlib.Path) -> Any:
    """The family's own tokenizer over a small vocabulary, saved to the folder."""
    if family != "Roberta":
        made = getattr(transformers, f"{family}Tokenizer")(vocab={piece: n for n, piece in enumerate(PIECES)})
    else:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        trained = Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trained.train_from_iterator([TEXT] * 3, trainers.BpeTrainer(
            vocab_size=280, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        model = json.loads(trained.to_str())["model"]
        made = transformers.RobertaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    made.save_pretrained(folder)
    return made


def taken_over(family: str, head: str, tmp_path: pathlib.Path, **fields: Any) -> tuple[Any, Any, Any]:
    """(their model, their tokenizer, our run)."""
    source = tmp_path / "source"
    source.mkdir()
    tokenizer = save_tokenizer(family, source)
    model = parity.make(getattr(transformers, f"{family}For{head}"), getattr(transformers, f"{family}Config"),
                        vocab_size=len(tokenizer), **FIELDS[family], **fields)
    model.save_pretrained(source)
    import_checkpoint(str(source), str(tmp_path / "run"))
    return model.requires_grad_(False), tokenizer, load_run(str(tmp_path / "run"))


def with_sections(run: Any, **sections: dict[str, Any]) -> Any:
    """The run with fields of its config changed."""
    return dataclasses.replace(run, config=dataclasses.replace(run.config, **{
        name: dataclasses.replace(getattr(run.config, name), **fields) for name, fields in sections.items()}))


SOME = ("Bert", pytest.param("Roberta", marks=pytest.mark.slow), pytest.param("DistilBert", marks=pytest.mark.slow))


@pytest.mark.parametrize("family", ["Bert", "Roberta", pytest.param("DistilBert", marks=pytest.mark.slow)])
def test_the_class_of_a_pair_of_texts(family, tmp_path):
    """Reddens where what stands around and between the texts, their types or the pooling differ."""
    model, tokenizer, run = taken_over(family, "SequenceClassification", tmp_path, num_labels=3)
    logits_C = model(**tokenizer(QUESTION, TEXT, return_tensors="pt")).logits[0]
    run = with_sections(run, data={"text_pair_field": "other"})
    found = classification.predict(run, [{"where": "", "text": QUESTION, "pair": TEXT, "label": None}], batch_size=1)
    expected = torch.softmax(logits_C, -1).tolist()
    assert found[0]["probabilities"] == pytest.approx({f"LABEL_{n}": p for n, p in enumerate(expected)}, abs=1e-5)


@pytest.mark.parametrize("family", SOME)
def test_tags_of_words(family, tmp_path):
    """Reddens where a word's first token is another."""
    model, tokenizer, run = taken_over(family, "TokenClassification", tmp_path, num_labels=5)
    words = TEXT.split()
    # RoBERTa's taggers are trained with a space before the first word too (add_prefix_space).
    inputs = tokenizer(" " + TEXT if family == "Roberta" else TEXT, return_tensors="pt")
    probabilities_TC = torch.softmax(model(**inputs).logits[0], -1).numpy()
    firsts = [inputs.word_ids().index(number) for number in range(len(words))]
    found = tagging.predict(run, [{"where": "", "tokens": words, "tags": None}], batch_size=1)[0]
    assert found["tags"] == [f"LABEL_{number}" for number in probabilities_TC[firsts].argmax(-1)]
    np.testing.assert_allclose(found["probabilities"], probabilities_TC[firsts].max(-1), atol=1e-5)


@pytest.mark.parametrize("family", ["Roberta", pytest.param("Bert", marks=pytest.mark.slow),
                                    pytest.param("DistilBert", marks=pytest.mark.slow)])
def test_the_answer_to_a_question(family, tmp_path):
    """Reddens where the paragraph begins elsewhere, or a token has other characters."""
    model, tokenizer, run = taken_over(family, "QuestionAnswering", tmp_path)
    inputs = tokenizer(QUESTION, TEXT, return_offsets_mapping=True, return_tensors="pt")
    spans = inputs.pop("offset_mapping")[0].tolist()
    output = model(**inputs)
    places = [place for place, which in enumerate(inputs.sequence_ids()) if which == 1]
    _, first, last = max((float(output.start_logits[0, i] + output.end_logits[0, j]), i, j)
                         for i in places for j in places if i <= j < i + run.config.task.longest_answer)
    run = with_sections(run, task={"window_overlap": 8})
    found = extractive_qa.predict(run, [{"where": "", "id": "1", "question": QUESTION, "context": TEXT,
                                         "answers": None}], batch_size=1)[0]
    assert (found["start"], found["end"]) == (spans[first][0], spans[last][1])


@pytest.mark.parametrize("family", ["DistilBert", pytest.param("Bert", marks=pytest.mark.slow),
                                    pytest.param("Roberta", marks=pytest.mark.slow)])
def test_what_stands_in_a_gap(family, tmp_path):
    """Reddens where the mask is another id, or the text is framed otherwise."""
    model, tokenizer, run = taken_over(family, "MaskedLM", tmp_path)
    inputs = tokenizer(f"the film {tokenizer.mask_token} good", return_tensors="pt")
    place = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    best = torch.topk(torch.softmax(model(**inputs).logits[0, place], -1), 5)
    found = masked_language_modeling.predict(run, [{"where": "", "text": "the film [MASK] good"}], batch_size=1)[0]
    texts, probabilities = zip(*found["fills"][0])
    assert list(texts) == [tokenizer.decode([number]) for number in best.indices]
    np.testing.assert_allclose(probabilities, best.values, atol=1e-5)
