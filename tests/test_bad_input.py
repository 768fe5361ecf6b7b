"""Wrong commands and files: each gives one line (what, where, what would be right), exit code 2, and leaves nothing.

Each row is a mistake that a person makes. It reddens when a message loses what it must say, when a traceback comes
through, when the exit code is not 2, or when something is left behind.
"""

import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from purelm.data.tokenizers import CharacterTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRAIN, EVALUATE, GENERATE, PREDICT, CHAT, BASELINES = "train", "evaluate", "generate", "predict", "chat", "baselines"
SERVE = "serve"
CONFIG = "--config={configs}/lm/shakespeare_char.py:cpu"
TINY = ["--config.model.num_layers=1", "--config.model.width=16", "--config.model.num_heads=2",
        "--config.model.context_length=16", "--config.training.num_steps=2", "--config.training.batch_size=2",
        "--config.optimizer.warmup=1", "--config.training.log_every=1", "--config.training.evaluate_every=2",
        "--config.training.checkpoint_every=1"]
GOOD = [CONFIG, "--config.data.path={files}/good.txt", *TINY]
NEW = "--workdir={new}"


def example_task(config: str, folder: str) -> list[str]:
    """Arguments that would train a config of examples on a folder of `places`."""
    return [f"--config={{configs}}/{config}.py", f"--config.data.path={{files}}/{folder}", NEW]


# (what is wrong, program, arguments, parts of the message)
CASES = [
    ("misspelt flag", TRAIN, [*GOOD, "--workdri={new}"], ["--workdri", "did you mean 'workdir'"]),
    ("misspelt field", TRAIN, [*GOOD, NEW, "--config.model.num_layer=3"], ["did you mean 'num_layers'"]),
    ("misspelt section", TRAIN, [*GOOD, NEW, "--config.modle.width=16"], ["did you mean 'model'"]),
    ("field of another section", TRAIN, [*GOOD, NEW, "--config.training.learning_rate=1"],
     ["did you mean '--config.optimizer.learning_rate'"]),
    ("section in place of a field", TRAIN, [*GOOD, NEW, "--config.model=5"], ["is a section"]),
    ("text for a number", TRAIN, [*GOOD, NEW, "--config.model.width=wide"], ["config.model.width", "a whole number"]),
    ("fraction for a whole number", TRAIN, [*GOOD, NEW, "--config.model.width=1.5"], ["a whole number"]),
    ("unknown choice", TRAIN, [*GOOD, NEW, "--config.model.norm=rmsnorm"], ["did you mean 'rms_norm'"]),
    ("value without a flag", TRAIN, [*GOOD, NEW, "fast"], ["'fast'", "--name=value"]),
    ("no config", TRAIN, [NEW], ["--config is missing"]),
    ("no such config", TRAIN, ["--config={configs}/lm/shakespear_char.py", NEW],
     ["no file", "did you mean", "shakespeare_char.py"]),
    ("no such recipe", TRAIN, ["--config={configs}/lm/shakespeare_char.py:fst", NEW], ["did you mean 'fast'"]),
    ("config that is not Python", TRAIN, ["--config={files}/good.txt", NEW], ["wants a Python file"]),
    ("config with a syntax error", TRAIN, ["--config={files}/broken.py", NEW], ["broken.py:2"]),
    ("config with a wrong field", TRAIN, ["--config={files}/wrong_field.py", NEW], ["wrong_field.py:4", "num_layer"]),
    ("config that returns no config", TRAIN, ["--config={files}/returns.py", NEW], ["returns.py", "returned dict"]),
    ("config without get_config", TRAIN, ["--config={files}/empty.py", NEW], ["empty.py", "get_config"]),
    ("config that imports what is missing", TRAIN, ["--config={files}/imports.py", NEW],
     ["imports.py:1", "nothing_such"]),
    ("argument that the config does not take", TRAIN, ["--config={configs}/lm/python_stdlib.py:fast", NEW],
     ["python_stdlib.py:fast", "leave ':fast' out"]),
    ("fields without a config", TRAIN, ["--config.model.width=32", NEW], ["--config.model.width=32", "no config"]),
    ("two configs", TRAIN, [*GOOD, "--config={configs}/lm/gpt2.py", NEW], ["given twice", "gpt2.py"]),
    ("flag without its config file", TRAIN, ["--config", NEW], ["--config: names no file"]),
    ("JSON config with text for a number", TRAIN, ["--config={files}/wide.json", NEW],
     ["wide.json", "config.model.width='wide'", "a whole number"]),
    ("JSON config with half a rule", TRAIN, ["--config={files}/rule.json", NEW], ["rule.json", "decay_rules[0]"]),
    ("seed beyond 31 bits", TRAIN, [*GOOD, NEW, "--config.seed=3000000000"], ["config.seed", "2147483647"]),
    ("model beyond the memory", TRAIN, [*GOOD, "--workdir={huge}", "--config.model.width=10000000"],
     ["out of memory", "--dry_run"]),
    ("no run folder", TRAIN, GOOD, ["--workdir is missing"]),
    ("two lengths", TRAIN, [*GOOD, NEW, "--config.training.num_epochs=1"],
     ["num_steps and num_epochs", "--config.training.num_steps=none"]),
    ("no length", TRAIN, [*GOOD, NEW, "--config.training.num_steps=none"], ["no length is set"]),
    ("no duration", TRAIN, [*GOOD, NEW, "--config.training.log_every=often"], ["log_every", "'2 epochs'"]),
    ("negative learning rate", TRAIN, [*GOOD, NEW, "--config.optimizer.learning_rate=-1"], ["above 0"]),
    ("heads that do not divide", TRAIN, [*GOOD, NEW, "--config.model.num_heads=3"], ["num_heads=3", "width=16"]),
    ("key/value heads that do not divide", TRAIN, [*GOOD, NEW, "--config.model.num_kv_heads=3"], ["num_kv_heads=3"]),
    ("micro-batches that do not divide", TRAIN, [*GOOD, NEW, "--config.training.accumulation_steps=3"],
     ["accumulation_steps=3", "batch_size=2"]),
    ("log point every no steps", TRAIN, [*GOOD, NEW, "--config.training.log_every=0"], ["at least one step"]),
    ("no data", TRAIN, [CONFIG, *TINY, NEW], ["config.data.path=input.txt"]),
    ("missing file", TRAIN, [*GOOD, NEW, "--config.data.path={files}/god.txt"], ["god.txt"]),
    ("glob of nothing", TRAIN, [*GOOD, NEW, "--config.data.path={files}/*.html"], ["*.html"]),
    ("empty file", TRAIN, [*GOOD, NEW, "--config.data.path={files}/empty.txt"], ["empty.txt"]),
    ("binary file", TRAIN, [*GOOD, NEW, "--config.data.path={files}/binary.txt"], ["binary.txt"]),
    ("bad UTF-8", TRAIN, [*GOOD, NEW, "--config.data.path={files}/latin1.txt"], ["latin1.txt", "UTF-8"]),
    ("truncated gzip", TRAIN, [*GOOD, NEW, "--config.data.path={files}/cut.txt.gz"], ["cut.txt.gz"]),
    ("text shorter than a context", TRAIN, [*GOOD, NEW, "--config.data.path={files}/short.txt"], ["context"]),
    ("device for a file", TRAIN, [*GOOD, NEW, "--config.data.path=/dev/null"], ["/dev/null", "neither a file"]),
    ("empty split", TRAIN, [*GOOD, NEW, "--config.data.split=hash"], ["validation split is empty", "contiguous"]),
    ("option of another optimizer", TRAIN, [*GOOD, NEW, "--config.optimizer.momentum=0.9"],
     ["momentum=0.9", "--config.optimizer.momentum=none"]),
    ("empty folder", TRAIN, [*GOOD, NEW, "--config.data.path={files}/nothing"], ["nothing"]),
    ("bad JSON line", TRAIN, [*GOOD, NEW, "--config.data.source=jsonl", "--config.data.path={files}/bad.jsonl"],
     ["bad.jsonl", "2"]),
    ("JSON field that is missing", TRAIN,
     [*GOOD, NEW, "--config.data.source=jsonl", "--config.data.path={files}/good.jsonl",
      "--config.data.text_field=txt"], ["good.jsonl", "txt", "text"]),
    ("unknown cleaning step", TRAIN, [*GOOD, NEW, "--config.data.cleaning=('unicode_nfd',)"],
     ["did you mean 'unicode_nfc'"]),
    ("tokenizer that is not there", TRAIN, [*GOOD, NEW, "--config.data.tokenizer_path={files}/no.json"], ["no.json"]),
    ("tokenizer that is none", TRAIN, [*GOOD, NEW, "--config.data.tokenizer_path={files}/good.jsonl"], ["good.jsonl"]),
    ("vocabulary smaller than the tokenizer's", TRAIN, [*GOOD, NEW, "--config.model.vocabulary_size=5"],
     ["vocabulary_size=5", "smaller than the tokenizer's"]),
    ("TFDS name that does not exist", TRAIN,
     [*GOOD, NEW, "--config.data.source=tfds", "--config.data.tfds_name=imdb_review", "--config.data.path=none"],
     ["imdb_review"]),
    ("regex that is none", TRAIN, [*GOOD, NEW, "--config.optimizer.decay_rules=(('(',1.0),)"],
     ["not a regular expression"]),
    ("rule that matches no parameter", TRAIN, [*GOOD, NEW, "--config.optimizer.decay_rules=(('nothing',1.0),)"],
     ["decay_rules"]),
    ("more devices than there are", TRAIN, [*GOOD, NEW, "--config.parallel.tensor=2"], ["tensor", "1"]),
    ("pmap with split parameters", TRAIN, [*GOOD, NEW, "--config.parallel.engine=pmap", "--config.parallel.fsdp=2"],
     ["pmap", "mesh"]),
    ("attention form of another device", TRAIN, [*GOOD, NEW, "--config.model.attention_implementation=splash"],
     ["splash", "TPU"]),
    ("run folder that is a file", TRAIN, [*GOOD, "--workdir={files}/good.txt"], ["good.txt", "folder"]),
    ("run folder under a file", TRAIN, [*GOOD, "--workdir={files}/good.txt/run"], ["good.txt", "folder"]),
    ("run folder of another config", TRAIN, [*GOOD, "--config.model.width=32", "--workdir={run}"],
     ["config.model.width", "16", "32"]),
    ("run folder of other data", TRAIN, [*GOOD, "--config.data.path={files}/other.txt", "--workdir={run}"],
     ["other data"]),
    ("half a distributed run", TRAIN, [*GOOD, NEW, "--coordinator=localhost:1"], ["--num_processes"]),
    ("processes without a coordinator", TRAIN, [*GOOD, NEW, "--num_processes=2"], ["--coordinator=host:port"]),
    ("coordinator without a port", TRAIN,
     [*GOOD, NEW, "--coordinator=localhost", "--num_processes=1", "--process_id=0"], ["=localhost", "host:port"]),
    ("process number out of range", TRAIN,
     [*GOOD, NEW, "--coordinator=localhost:1", "--num_processes=2", "--process_id=2"], ["--process_id=2", "0 to 1"]),
    ("cluster that is not there", TRAIN, [*GOOD, NEW, "--coordinator=auto"], ["--coordinator=auto", "no cluster"]),
    ("unknown task", TRAIN, [*GOOD, NEW, "--config.task.name=clasification"], ["did you mean 'classification'"]),
    ("task of a module that is not there", TRAIN, [*GOOD, NEW, "--config.task.name=my_tasks.rating"], ["my_tasks"]),
    ("architecture that cannot do the task", TRAIN, [*GOOD, NEW, "--config.model.architecture=encoder"],
     ["architecture=encoder cannot do", "decoder or recurrent"]),
    ("option of another architecture", TRAIN, [*GOOD, NEW, "--config.model.cell=gru"], ["config.model.cell='gru'"]),
    ("option of another task", TRAIN, [*GOOD, NEW, "--config.task.window_overlap=3"], ["for extractive_qa"]),
    ("label unseen in training", TRAIN, example_task("classification/transformer", "unseen"),
     ["validation.jsonl, line 2", "'godd'", "did you mean 'good'"]),
    ("label that is missing", TRAIN, example_task("classification/transformer", "unlabeled"),
     ["train.jsonl, line 2", "'label'", "did you mean 'lable'"]),
    ("pair with a side missing", TRAIN, example_task("translation/transformer", "pairs"),
     ["train.jsonl, line 2", "'de'", "config.data.target_field"]),
    ("as many tags as words, but not in one line", TRAIN, example_task("tagging/transformer", "tags"),
     ["train.jsonl, line 2", "2 tokens", "3 tags"]),
    ("step that would move answers", TRAIN,
     [*example_task("qa/extractive", "squad"), "--config.data.cleaning=('whitespace',)"], ["'whitespace'", "answers"]),
    ("unknown augmentation", TRAIN,
     [*example_task("classification/transformer", "unseen"), "--config.data.augmentation=('word_drop',)"],
     ["did you mean 'word_dropout'"]),
    ("start from what is no run", TRAIN, [*GOOD, NEW, "--config.init_from={files}"],
     ["config.init_from", "config.json"]),
    ("vectors that are none", TRAIN, [*GOOD, NEW, "--config.init_vectors={files}/good.txt"], ["good.txt, line 1"]),
    ("adapters of nothing", TRAIN, [*GOOD, NEW, "--config.adapter.rank=2", "--config.adapter.targets=nothing"],
     ["config.adapter.targets", "names no matrix"]),
    ("predict without a text", PREDICT, ["--workdir={run}"], ["--text", "--input"]),
    ("predict a text and a file", PREDICT, ["--workdir={run}", "--text=a", "--input=b"], ["not both"]),
    ("predict into a folder that is not there", PREDICT, ["--workdir={run}", "--text=a", "--output={files}/no/x.jsonl"],
     ["there is no folder"]),
    ("option of decoding that the task does not read", PREDICT, ["--workdir={run}", "--text=a", "--num_samples=3"],
     ["--num_samples has no effect", "code_generation"]),
    ("predict into a folder", PREDICT, ["--workdir={run}", "--text=a", "--output={files}"], ["is a folder"]),
    ("predict over the rows themselves", PREDICT,
     ["--workdir={run}", "--input={files}/good.jsonl", "--output={files}/../files/good.jsonl"], ["is the --input"]),
    ("predict a file that is not there", PREDICT, ["--workdir={run}", "--input={files}/no.csv"], ["no such file"]),
    ("chat with what is no dialogue", CHAT, ["--workdir={run}"], ["language_modeling, not dialogue"]),
    ("baselines of no data", BASELINES, ["--task=classification"], ["--data_path is missing"]),
    ("evaluate without a run", EVALUATE, [], ["--workdir is missing"]),
    ("evaluate what is no run", EVALUATE, ["--workdir={files}"], ["config.json"]),
    ("a type that is none of those", "convert", ["--to_hf={new}", "--workdir={files}", "--dtype=bf16"],
     ["--dtype=bf16: value should be one of"]),
    ("evaluate a folder that is not there", EVALUATE, [NEW], ["no such folder"]),
    ("split that the data lacks", EVALUATE, ["--workdir={run}", "--split=test"], ["test", "validation"]),
    ("split that does not exist", EVALUATE, ["--workdir={run}", "--split=dev"], ["dev", "validation"]),
    ("checkpoint that does not exist", EVALUATE, ["--workdir={run}", "--checkpoint=77"], ["77", "2"]),
    ("checkpoint that is no word", EVALUATE, ["--workdir={run}", "--checkpoint=newest"], ["newest", "latest"]),
    ("checkpoints all damaged", EVALUATE, ["--workdir={damaged}"], ["damaged"]),
    ("checkpoint of another model", EVALUATE,
     ["--workdir={foreign}"], ["another model", "embedding", "[25, 16]", "[25, 32]"]),
    ("tokenizer of another run", EVALUATE, ["--workdir={swapped}"], ["tokenizer.json", "not the tokenizer"]),
    ("run without checkpoints", EVALUATE, ["--workdir={bare}"], ["no checkpoint"]),
    ("damaged config.json", EVALUATE, ["--workdir={torn}"], ["config.json"]),
    ("prompt with characters never seen", GENERATE, ["--workdir={run}", "--prompt=日本"], ["日"]),
    ("empty prompt", GENERATE, ["--workdir={run}", "--prompt="], ["empty"]),
    ("negative temperature", GENERATE, ["--workdir={run}", "--prompt=a", "--temperature=-1"], ["temperature"]),
    ("top_k of zero", GENERATE, ["--workdir={run}", "--prompt=a", "--top_k=0"], ["top_k"]),
    ("top_p above one", GENERATE, ["--workdir={run}", "--prompt=a", "--top_p=1.5"], ["top_p"]),
    ("prompt ids that are no numbers", GENERATE, ["--workdir={run}", "--prompt_ids=1,b"], ["'b'"]),
    ("prompt ids outside of the vocabulary", GENERATE, ["--workdir={run}", "--prompt_ids=1,9999"], ["9999"]),
    ("two prompts", GENERATE, ["--workdir={run}", "--prompt=a", "--prompt_ids=1"], ["give one"]),
    ("draws of a beam", GENERATE, ["--workdir={run}", "--prompt=a", "--beam_size=2", "--top_k=3"],
     ["--top_k does not go with --beam_size"]),
    ("length penalty without a beam", GENERATE, ["--workdir={run}", "--prompt=a", "--length_penalty=1"],
     ["no effect without --beam_size"]),
    ("draft that is no run", GENERATE, ["--workdir={run}", "--prompt=a", "--draft={files}"],
     ["--draft=", "config.json"]),
    ("seed that is too large", GENERATE, ["--workdir={run}", "--prompt=a", "--seed=9223372036854775808"], ["--seed="]),
    ("constraint that cannot be read", GENERATE, ["--workdir={run}", "--prompt=a", "--regex=("],
     ["not a regular expression"]),
    ("interactive with a prompt", GENERATE, ["--workdir={run}", "--prompt=a", "--interactive"], ["--interactive"]),
    ("serve what is no run", SERVE, ["--workdir={files}", "--port=0"], ["config.json"]),
    ("serve at an address of another machine", SERVE, ["--workdir={run}", "--host=192.0.2.1", "--port=0"],
     ["192.0.2.1"]),
    ("no new tokens", GENERATE, ["--workdir={run}", "--prompt=a", "--max_new_tokens=0"], ["at least 1"]),
]
assert len({case[0] for case in CASES}) == len(CASES) >= 30

WRONG_FIELD = """from purelm.config import Config, ModelConfig, as_flag
def get_config():
    return as_flag(Config(model=
        ModelConfig(num_layer=3)))
"""


def program(name: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(ROOT / "experiments" / f"{name}.py"), *arguments], cwd=ROOT, text=True,
                          capture_output=True, timeout=120)


def write_examples(files: pathlib.Path) -> None:
    """Folders of examples, each wrong in one line."""
    good, bad = {"text": "fine film", "label": "good"}, {"text": "poor film", "label": "bad"}
    pair, tagged = {"en": "a b", "de": "c d"}, {"tokens": ["a", "b"], "tags": ["O", "O"]}
    asked = {"id": "1", "context": "a b c", "question": "b?", "answers": [{"text": "b", "start": 2}]}
    folders = {
        "unseen": ([good, bad], [good, good | {"label": "godd"}]),
        "unlabeled": ([good, {"text": "x", "lable": "good"}], [good]),
        "pairs": ([pair, {"en": "only this"}], [pair]),
        "tags": ([tagged, tagged | {"tags": ["O", "O", "O"]}], [tagged]),
        "squad": ([asked], [asked])}
    for name, splits in folders.items():
        (files / name).mkdir()
        for split, rows in zip(("train", "validation"), splits):
            (files / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Good and bad files, and a small run with three broken copies of it."""
    root = tmp_path_factory.mktemp("places")
    files = root / "files"
    (files / "nothing").mkdir(parents=True)
    text = "".join(chr(97 + (i * i + i // 7) % 26) + (" " if i % 5 == 0 else "") for i in range(1500)) + "\n"
    (files / "good.txt").write_text(text)
    (files / "other.txt").write_text(text[::-1])
    (files / "short.txt").write_text("ab ab")
    (files / "empty.txt").write_text("")
    (files / "binary.txt").write_bytes(b"\x7fELF\x00\x01" * 100)
    (files / "latin1.txt").write_bytes(text.encode() + "café".encode("latin-1") + text.encode())
    (files / "cut.txt.gz").write_bytes(gzip.compress(text.encode())[:-20])
    (files / "good.jsonl").write_text(json.dumps({"text": text}) + "\n")
    (files / "bad.jsonl").write_text(json.dumps({"text": text}) + "\n{not json\n")
    (files / "broken.py").write_text("def get_config():\n    return (\n")
    (files / "wrong_field.py").write_text(WRONG_FIELD)
    (files / "returns.py").write_text("def get_config():\n    return {}\n")
    (files / "empty.py").write_text("")
    (files / "imports.py").write_text("import nothing_such\n")
    (files / "wide.json").write_text(json.dumps({"model": {"width": "wide"}}))
    (files / "rule.json").write_text(json.dumps({"optimizer": {"decay_rules": [["a"]]}}))
    write_examples(files)
    names = {"configs": ROOT / "configs", "files": files, "run": root / "run", "huge": root / "huge"}
    done = program(TRAIN, *[a.format(**names) for a in [*GOOD, "--workdir={run}"]])
    assert done.returncode == 0, done.stderr
    for name in ("damaged", "foreign", "bare", "torn", "swapped"):
        shutil.copytree(root / "run", root / name)
        names[name] = root / name
    for path in (root / "damaged" / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])
    config = json.loads((root / "foreign" / "config.json").read_text())
    config["model"]["width"] = 32
    (root / "foreign" / "config.json").write_text(json.dumps(config))
    shutil.rmtree(root / "bare" / "checkpoints")
    (root / "torn" / "config.json").write_text("{")
    CharacterTokenizer.train([text + "!"], False).save(root / "swapped" / "tokenizer.json")
    return names


def listing(root: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else b"" for p in sorted(root.rglob("*"))}


@pytest.mark.parametrize("name, program_name, arguments, said", CASES, ids=[case[0] for case in CASES])
def test_a_mistake_gets_one_line_and_leaves_nothing(name, program_name, arguments, said, places, tmp_path):
    before = listing(places["run"])
    new = tmp_path / "new"
    done = program(program_name, *[a.format(**places, new=new) for a in arguments])
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1 and done.stderr.splitlines()[-1] == lines[0], done.stderr
    assert "Traceback" not in done.stderr
    for part in said:
        assert part in lines[0]
    assert not new.exists()
    assert listing(places["run"]) == before


@pytest.mark.skipif(os.geteuid() == 0 and not pathlib.Path("/dev/full").exists(), reason="root may write anywhere")
def test_an_unwritable_run_folder_is_named(places):
    done = program(TRAIN, *[a.format(**places) for a in [*GOOD, "--workdir=/proc/run"]])
    assert done.returncode == 2 and "--workdir=/proc/run" in done.stderr and "Traceback" not in done.stderr


def test_a_second_training_in_the_same_folder_is_refused(places):
    from purelm.training.run_folder import RunFolder, held

    pytest.importorskip("fcntl")
    before = listing(places["run"])
    with held(RunFolder(places["run"])):
        done = program(TRAIN, *[a.format(**places) for a in [*GOOD, "--workdir={run}"]])
    assert done.returncode == 2 and "another training" in done.stderr and "Traceback" not in done.stderr
    assert listing(places["run"]) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of the size of files")
def test_a_full_disk_is_named_and_the_same_command_goes_on_when_there_is_room(places, tmp_path):
    """A limit of the size of files stands in for the disk: the parameters do not fit, the rest does."""
    arguments = [a.format(**places) for a in [*GOOD, "--config.model.width=128", f"--workdir={tmp_path}/run"]]
    limited = ("import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
               "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])")
    command = [sys.executable, "-c", limited, str(ROOT / "experiments" / "train.py"), *arguments]
    done = subprocess.run(command, text=True, capture_output=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: cannot write checkpoint 1 to") and "there is no good checkpoint" in last
    assert [path for path in (tmp_path / "run" / "checkpoints").iterdir()] == []
    assert program(TRAIN, *arguments).returncode == 0
