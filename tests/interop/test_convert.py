"""Published weights into a run folder and out of it again, whole."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import published
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from purelm.config import load_json
from purelm.errors import UserError
from purelm.evaluation import evaluator_of
from purelm.evaluation.report import evaluate_run, with_decoding
from purelm.inference import Sampler, encode_prompt, sample_ids
from purelm.interop.exporting import export_run
from purelm.interop.importing import import_checkpoint
from purelm.training.launch import launch
from purelm.training.load import load_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("published")


@pytest.fixture(scope="module")
def gpt2(folder):
    model, tokenizer = published.gpt2(folder / "gpt2")
    import_checkpoint(str(folder / "gpt2"), str(folder / "gpt2_run"))
    return model, tokenizer, folder / "gpt2_run"


def tensors_of(path):
    found = {}
    for file in sorted(path.glob("*.safetensors")):
        found |= load_file(file)
    return found


def greedy(run, prompt, count):
    ids = encode_prompt(run.tokenizer, prompt)
    generated = sample_ids(run.config.model, run.params, ids, num_samples=1, max_new_tokens=count,
                           sampler=Sampler(temperature=0.0), seed=0, stop_id=run.tokenizer.special.stop,
                           vocabulary_size=run.tokenizer.vocabulary_size)
    return [*ids.tolist(), *generated.ids_BT[0][:generated.lengths_B[0]].tolist()]


def test_an_imported_run_writes_what_transformers_writes(gpt2):
    model, tokenizer, workdir = gpt2
    theirs = model.generate(**tokenizer("To be, or", return_tensors="pt"), do_sample=False, max_new_tokens=20)
    assert greedy(load_run(str(workdir)), "To be, or", 20) == theirs[0].tolist()


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "bert_classifier", "bart"])
def test_what_was_imported_goes_back_byte_for_byte(folder, name):
    """Reddens where a tensor is rounded, renamed, lost or put in another file, or a small file is not kept."""
    source = folder / f"{name}_source"
    getattr(published, name)(source)
    done = import_checkpoint(str(source), str(folder / f"{name}_back"))
    export_run(str(folder / f"{name}_back"), str(folder / f"{name}_out"))
    out = folder / f"{name}_out"
    for file in source.iterdir():
        if file.name != "model.safetensors.index.json":
            assert (out / file.name).read_bytes() == file.read_bytes(), file.name
    assert {file.name for file in out.iterdir()} - {file.name for file in source.iterdir()} == {"README.md"}
    if name == "qwen3":
        assert done.config.model.param_dtype == "bfloat16" and len(list(out.glob("model-*.safetensors"))) > 2
        index = [json.loads((path / "model.safetensors.index.json").read_text()) for path in (source, out)]
        assert index[0]["weight_map"] == index[1]["weight_map"]
    transformers.AutoModel.from_pretrained(out)


def test_a_classifier_predicts_as_it_did(folder):
    """Reddens where texts are framed otherwise, the labels are in another order, or the pooler is left out."""
    model, tokenizer = published.bert_classifier(folder / "bert")
    import_checkpoint(str(folder / "bert"), str(folder / "bert_run"))
    run = load_run(str(folder / "bert_run"))
    texts = ["to be", "not to be, that is the question", "时间"]
    evaluator = evaluator_of(run.config)
    answers = evaluator.predict(run, [evaluator.example_of_text(run.config, text) for text in texts], batch_size=2)
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    for answer, probabilities in zip(answers, torch.softmax(logits, -1).numpy(), strict=True):
        assert answer["label"] == ("bad", "fair", "good")[int(probabilities.argmax())]
        assert answer["probability"] == pytest.approx(float(probabilities.max()), abs=1e-4)


def test_an_encoder_decoder_answers_as_it_did(folder):
    """Reddens where the source's frame, the decoder's start or the forced first id is lost."""
    model, tokenizer = published.bart(folder / "bart")
    import_checkpoint(str(folder / "bart"), str(folder / "bart_run"))
    run = with_decoding(load_run(str(folder / "bart_run")), {"max_new_tokens": 20})
    evaluator = evaluator_of(run.config)
    answers = evaluator.predict(run, [evaluator.example_of_text(run.config, "not to be")], batch_size=1)
    theirs = model.generate(**tokenizer("not to be", return_tensors="pt"), do_sample=False, max_new_tokens=20)
    assert len(set(theirs[0].tolist())) >= 3  # Not the same token again and again.
    assert answers[0]["text"] == tokenizer.decode(theirs[0], skip_special_tokens=True)


def test_tensors_that_nothing_reads_are_kept_and_given_back(folder):
    model, tokenizer = published.gpt2(folder / "extra")
    file = folder / "extra" / "model.safetensors"
    extra = {"transformer.h.0.attn.bias": torch.ones(1, 1, 48, 48, dtype=torch.bool),
             "lm_head.weight": model.transformer.wte.weight.detach().clone()}
    save_file({**load_file(file), **extra}, file, {"format": "pt"})
    done = import_checkpoint(str(folder / "extra"), str(folder / "extra_run"))
    assert set(done.kept) == extra.keys()
    export_run(str(folder / "extra_run"), str(folder / "extra_out"))
    assert (folder / "extra_out" / "model.safetensors").read_bytes() == file.read_bytes()


def test_files_of_the_base_class_and_of_pytorch(folder):
    """gpt2 on the Hub was saved from the class without a head: no name has its prefix."""
    model, tokenizer = published.gpt2(folder / "base")
    (folder / "base" / "model.safetensors").unlink()
    state = {name.removeprefix("transformer."): value for name, value in model.state_dict().items()
             if name != "lm_head.weight"}
    torch.save(state, folder / "base" / "pytorch_model.bin")
    import_checkpoint(str(folder / "base"), str(folder / "base_run"))
    ids = greedy(load_run(str(folder / "base_run")), "To be", 8)
    theirs = model.generate(**tokenizer("To be", return_tensors="pt"), do_sample=False, max_new_tokens=8)
    assert ids == theirs[0].tolist()
    export_run(str(folder / "base_run"), str(folder / "base_out"))
    back = tensors_of(folder / "base_out")
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)


def change_config(source, **fields):
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_generation(source, **fields):
    (source / "generation_config.json").write_text(json.dumps(fields))


def change_tensors(source, change):
    file = source / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


MISTAKES = [
    ("unknown family", lambda source: change_config(source, model_type="gpt3"), "model_type='gpt3'.*did you mean"),
    ("no model_type", lambda source: (source / "config.json").write_text("{}"), "has no model_type"),
    ("unknown class", lambda source: change_config(source, architectures=["GPT2ForSequenceClassification"]),
     "'GPT2ForSequenceClassification' cannot be taken over.*GPT2LMHeadModel can"),
    ("class that is no name", lambda source: change_config(source, architectures=[1]), "no list of names of classes"),
    ("family that is no name", lambda source: change_config(source, model_type=[]), "is no family"),
    ("more layers than there are", lambda source: change_config(source, n_layer=10**9), "n_layer=1000000000"),
    ("generation of another kind", lambda source: change_generation(source, bad_words_ids=[1]), "bad_words_ids="),
    ("unknown option", lambda source: change_config(source, n_layers=3), "n_layers=3: no such field.*'n_layer'"),
    ("option without a switch", lambda source: change_config(source, scale_attn_by_inverse_layer_idx=True),
     "scale_attn_by_inverse_layer_idx=True"),
    ("quantized", lambda source: change_config(source, quantization_config={"bits": 4}), "quantized weights"),
    ("other shape", lambda source: change_config(source, n_positions=64),
     r"transformer\.wpe\.weight: is \[48, 36\], but the config says \[64, 36\]"),
    ("tensor left over", lambda source: change_tensors(source, lambda found: {**found, "transformer.h.0.extra.weight":
                                                                               torch.ones(2)}),
     "tensor transformer.h.0.extra.weight is known to nothing"),
    ("tensor missing", lambda source: change_tensors(source, lambda found: {
        name: value for name, value in found.items() if name != "transformer.h.1.ln_2.bias"}),
     "tensor transformer.h.1.ln_2.bias is missing"),
    ("tied tensor that differs", lambda source: change_tensors(source, lambda found: {
        **found, "lm_head.weight": torch.zeros(300, 36)}), "lm_head.weight differs from transformer.wte.weight"),
    ("whole numbers", lambda source: change_tensors(source, lambda found: {
        name: value.long() for name, value in found.items()}), "is int64, which is no type of parameters"),
    ("weights cut short", lambda source: (source / "model.safetensors").write_bytes(
        (source / "model.safetensors").read_bytes()[:-9]), "not a whole safetensors file"),
    ("config that is not JSON", lambda source: (source / "config.json").write_text("{"), "not whole JSON"),
    ("no tokenizer", lambda source: [path.unlink() for path in source.glob("tokenizer*")], "no tokenizer is there"),
]


@pytest.mark.parametrize("damage, message", [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_wrong_checkpoint_gives_one_line_and_leaves_nothing(gpt2, folder, tmp_path, damage, message):
    shutil.copytree(folder / "gpt2", tmp_path / "source")
    damage(tmp_path / "source")
    with pytest.raises(UserError, match=message) as caught:
        import_checkpoint(str(tmp_path / "source"), str(tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_that_holds_something_is_left_alone(gpt2, folder, tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="holds something already"):
        import_checkpoint(str(folder / "gpt2"), str(tmp_path))
    with pytest.raises(UserError, match="holds something already"):
        export_run(str(gpt2[2]), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_checkpoint_whose_bytes_changed_is_not_exported(gpt2, folder, tmp_path):
    """Reddens where an export reads parameters without their checksums."""
    shutil.copytree(gpt2[2], tmp_path / "run")
    largest = max((path for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file()),
                  key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        export_run(str(tmp_path / "run"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_another_type_and_another_context(folder, gpt2, tmp_path):
    export_run(str(gpt2[2]), str(tmp_path / "out"), dtype="bfloat16", shard_bytes=40_000)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    with pytest.raises(UserError, match="positions are learned"):
        import_checkpoint(str(folder / "gpt2"), str(tmp_path / "short"), context_length=16)
    published.qwen3(tmp_path / "qwen3")
    done = import_checkpoint(str(tmp_path / "qwen3"), str(tmp_path / "short"), context_length=16, dtype="float32")
    assert (done.config.model.context_length, done.config.model.param_dtype) == (16, "float32")
    export_run(str(tmp_path / "short"), str(tmp_path / "again"))
    digest = [hashlib.sha256(b"".join(path.read_bytes() for path in sorted((tmp_path / name).glob("*.safetensors"))))
              for name in ("qwen3", "again")]
    assert digest[0].digest() == digest[1].digest()


def test_parameters_are_float32_of_the_same_value_whatever_the_file(gpt2, folder):
    params = load_run(str(gpt2[2])).params
    theirs = gpt2[0].state_dict()["transformer.h.1.mlp.c_fc.weight"].numpy()
    np.testing.assert_array_equal(np.asarray(params["layers"]["feed_forward"]["up"]["kernel"][1]), theirs)


def test_a_pretrained_encoder_begins_another_task(gpt2, folder, tmp_path):
    """Reddens where the pooler is drawn anew, the new head is not, or another head is taken for an unknown tensor."""
    transformers.set_seed(0)
    tokenizer = published.bert_classifier(tmp_path / "source")[1]
    model = transformers.BertForPreTraining(transformers.BertConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=40)).eval()
    shutil.rmtree(tmp_path / "source")
    model.save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    done = import_checkpoint(str(tmp_path / "source"), str(tmp_path / "run"), task="classification", num_classes=5)
    assert any("drawn at random: classifier/output/bias, classifier/output/kernel" in note or
               "drawn at random: classifier/output/kernel, classifier/output/bias" in note for note in done.notes)
    published.bert_classifier(tmp_path / "three")
    again = import_checkpoint(str(tmp_path / "three"), str(tmp_path / "other"), task="classification", num_classes=5)
    assert set(again.checkpoint.drawn) == {"classifier/output/kernel", "classifier/output/bias"}  # It has three.
    run = load_run(str(tmp_path / "run"))
    classifier = run.params["classifier"]
    np.testing.assert_array_equal(classifier["transform"]["kernel"], model.bert.pooler.dense.weight.detach().numpy().T)
    assert classifier["output"]["kernel"].shape == (32, 5) and np.std(classifier["output"]["kernel"]) > 0.01
    export_run(str(tmp_path / "run"), str(tmp_path / "out"))
    back = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        pooled = [found(**tokenizer("to be", return_tensors="pt")).pooler_output for found in (model.bert, back.bert)]
    torch.testing.assert_close(*pooled)
    with pytest.raises(UserError, match="--task=classification: a head can be drawn for encoders alone"):
        import_checkpoint(str(folder / "gpt2"), str(tmp_path / "no"), task="classification")


def test_an_imported_run_without_data_says_what_to_give(gpt2, tmp_path):
    """Reddens where evaluating or training in it speaks of other data, or begins."""
    config = load_json(gpt2[2] / "config.json")
    (tmp_path / "input.txt").write_text("to be or not to be\n" * 50)
    for call in (lambda: evaluate_run(str(gpt2[2])),
                 lambda: launch(dataclasses.replace(config, data=dataclasses.replace(
                     config.data, path=str(tmp_path / "input.txt"))), str(gpt2[2]))):
        with pytest.raises(UserError, match="no data of their own; to evaluate, give --data_path=FILE; to train, give "
                                            "another --workdir with --config="):
            call()


def test_a_tokenizer_from_elsewhere_goes_back_with_the_weights(folder, tmp_path):
    """Reddens where an export has the tokenizer that lay beside the weights, or none."""
    published.gpt2(tmp_path / "source")
    other = published.byte_tokenizer(("<|endoftext|>", "<|other|>"), eos_token="<|endoftext|>")
    other.save_pretrained(tmp_path / "other")
    (tmp_path / "source" / "special_tokens_map.json").write_text('{"pad_token": "<|endoftext|>"}')
    import_checkpoint(str(tmp_path / "source"), str(tmp_path / "run"), tokenizer_from=str(tmp_path / "other"))
    export_run(str(tmp_path / "run"), str(tmp_path / "out"))
    back = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert back("To be <|other|>").input_ids == other("To be <|other|>").input_ids
    assert not (tmp_path / "out" / "special_tokens_map.json").exists()
