"""What a user does with published weights, command after command, beside transformers."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest
import torch
import transformers

from purelm.config import load_json
from purelm.config.changes import apply_changes
from purelm.evaluation.report import evaluate_run
from purelm.inference.chat_prompts import chat_prompt
from purelm.interop.exporting import export_run
from purelm.interop.importing import import_checkpoint
from purelm.models import make_model
from purelm.training.launch import launch
from purelm.training.load import load_run

TEXT = "To be, or not to be, that is the question. 时间就是金钱 a 🙂 b " * 3
LLAMA_2 = ("{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + "
           "message['content'].strip() + ' [/INST]' }}{% else %}{{ ' ' + message['content'].strip() + ' ' + "
           "eos_token }}{% endif %}{% endfor %}")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """(the model of transformers, its tokenizer, our run folder, a file of text)."""
    folder = tmp_path_factory.mktemp("journeys")
    model, tokenizer = published.gpt2(folder / "source")
    import_checkpoint(str(folder / "source"), str(folder / "run"))
    (folder / "text.txt").write_text(TEXT)
    return model, tokenizer, folder / "run", folder / "text.txt"


def test_the_loss_of_a_text_is_theirs(gpt2):
    """Reddens where windows lose a token, or the mark before or after a document is another."""
    model, tokenizer, run, text = gpt2
    found = evaluate_run(str(run), data_path=str(text)).metrics
    ids = torch.tensor([0, *tokenizer(TEXT)["input_ids"], 0])
    losses = []
    with torch.no_grad():
        for start in range(0, len(ids) - 1, 48):
            window = ids[start:start + 49]
            losses.append(torch.nn.functional.cross_entropy(model(window[None, :-1]).logits[0], window[1:],
                                                            reduction="none"))
    assert found["tokens"] == len(ids) - 1 > 96
    assert found["loss"] == pytest.approx(float(torch.cat(losses).mean()), abs=1e-4)


def test_adapters_are_merged_into_what_others_load(gpt2, tmp_path):
    """Reddens where an export leaves the adapters out, or their names go along."""
    model, tokenizer, run, text = gpt2
    tune(run, tmp_path / "tuned", text, {"adapter.rank": 2, "optimizer.learning_rate": 0.1})
    export_run(str(tmp_path / "tuned"), str(tmp_path / "out"))
    theirs, said = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(said.values())
    ids = tokenizer("To be, or")["input_ids"]
    tuned = load_run(str(tmp_path / "tuned"))
    logits = make_model(tuned.config.model).apply({"params": tuned.params}, jnp.asarray([ids])).logits_BTV
    with torch.no_grad():
        expected, before = (one(torch.tensor([ids])).logits.numpy() for one in (theirs, model))
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert np.abs(before - expected).max() > 1e-2


def test_a_class_keeps_its_row_of_the_head(tmp_path):
    """Reddens where tuning orders the labels anew: the head that was taken would answer other classes."""
    names = ["good", "bad", "fair"]
    published.bert_classifier(tmp_path / "source", id2label=dict(enumerate(names)),
                              label2id={name: number for number, name in enumerate(names)})
    import_checkpoint(str(tmp_path / "source"), str(tmp_path / "run"))
    rows = [{"text": f"to be {number}", "label": ("bad", "good")[number % 2]} for number in range(12)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tune(tmp_path / "run", tmp_path / "tuned", tmp_path / "train.jsonl", {"optimizer.learning_rate": 1e-9})
    tuned = load_run(str(tmp_path / "tuned"))
    assert tuned.labels == tuple(names)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), tuned.params,
                 load_run(str(tmp_path / "run")).params)
    export_run(str(tmp_path / "tuned"), str(tmp_path / "out"))
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").id2label == dict(enumerate(names))
    said = []
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": "to be " * 40, "label": "fair"}) + "\n")
    evaluate_run(str(tmp_path / "tuned"), data_path=str(tmp_path / "long.jsonl"), progress=said.append)
    assert said[0] == "train: texts cut to the context 1"


def test_a_chat_is_asked_as_transformers_asks_it(gpt2, tmp_path):
    """A template in the manner of Llama 2, which writes <s> itself: reddens where it stands twice, or is text."""
    shutil.copytree(gpt2[2].parent / "source", tmp_path / "source")
    tokenizer = published.byte_tokenizer(("<s>", "</s>"), ("<s> $A", "<s> $A <s> $B"), bos_token="<s>",
                                         eos_token="</s>", chat_template=LLAMA_2)
    tokenizer.save_pretrained(tmp_path / "source")
    import_checkpoint(str(tmp_path / "source"), str(tmp_path / "run"))
    chat = [{"role": role, "content": content} for role, content in (
        ("user", "To be?"), ("assistant", "不 🙂"), ("user", " </s> is text here "))]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    found = chat_prompt(load_run(str(tmp_path / "run")).tokenizer, chat, 1000)
    assert found.tolist() == ids and ids.count(tokenizer.bos_token_id) == 2


def tune(before, workdir, data, changes):
    """Two steps from the run `before` on the file `data`."""
    config = apply_changes(load_json(before / "config.json"), {
        "init_from": str(before), "data.path": str(data), "training.num_epochs": None, "training.num_steps": 2,
        "training.batch_size": 2, **changes})
    launch(config, str(workdir), quiet=True)
