"""A small own TFDS set, written as array_record without TensorFlow and read by its name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from purelm.config import DataConfig
from purelm.data.sources import make_source
from purelm.errors import UserError

pytest.importorskip("tensorflow_datasets")

BUILDER = '''
import sys
import numpy as np
import tensorflow_datasets as tfds

class SmallTexts(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(
            {"text": tfds.features.Text(), "label": np.int64}))
    def _split_generators(self, manager):
        counts = {"train": 40, "validation": 3, "test": 2}
        return {split: self._generate_examples(count) for split, count in counts.items()}
    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"text": f"text {i} of {count} \u6c49", "label": i}
'''
WRITE = BUILDER + "SmallTexts(data_dir=sys.argv[1], file_format='array_record').download_and_prepare(" \
                  "file_format='array_record')\n"
# In a fresh process: every module of purelm.data, a set by name, batches of it; then TensorFlow must not be there.
READ = BUILDER + '''
import importlib, json, os, pkgutil
import purelm.data
for module in pkgutil.walk_packages(purelm.data.__path__, "purelm.data."):
    importlib.import_module(module.name)
from purelm.config import Config, DataConfig, ModelConfig
config = Config(model=ModelConfig(context_length=16), data=DataConfig(
    tfds_name="small_texts", tfds_dir=sys.argv[1], tokenizer="bpe", tokenizer_vocabulary_size=300,
    cache_dir=os.path.join(sys.argv[1], "cache")))
prepared = purelm.data.prepare(config)
again = purelm.data.prepare(config)
assert again.fingerprint == prepared.fingerprint
next(purelm.data.training_batches(prepared.splits["train"], config=config, batch_size=2, start_step=0))
print(json.dumps([{name: split.num_documents for name, split in prepared.splits.items()},
                  prepared.tokenizer.decode(prepared.splits["test"].tokens), "tensorflow" in sys.modules]))
'''


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    subprocess.run([sys.executable, "-c", WRITE, str(folder)], check=True, capture_output=True)
    return folder


def test_a_set_is_read_with_its_own_splits_and_without_tensorflow(data_dir):
    import json
    done = subprocess.run([sys.executable, "-c", READ, str(data_dir)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts, text, tensorflow = json.loads(done.stdout.splitlines()[-1])
    assert counts == {"train": 40, "validation": 3, "test": 2} and tensorflow is False
    assert sorted(text.split("<|endoftext|>")) == ["", "", "text 0 of 2 \u6c49", "text 1 of 2 \u6c49"]


def identity(**fields):
    class NoIndex:
        def read_record(self, kind, key):
            return None

        def write_record(self, kind, key, record):
            pass
    return make_source(DataConfig(**fields)).identity(NoIndex())


@pytest.mark.parametrize("name,parts", [
    ("imdb_review", ["imdb_reviews", "did you mean"]),
    ("no_such_thing_at_all", ["no set 'no_such_thing_at_all'"]),
    ("lm1b", ["not prepared", "purelm[prepare]", "tfds_dir"]),
    ("wmt14_translate/de-en", ["not prepared"]),  # reddens if its module is not imported first
    ("wmt14/de-en", ["did you mean 'wmt14_translate'"]),
    ("imdb_reviews/nonsense", ["nonsense"]),
])
def test_sets_that_cannot_be_read_say_why_in_one_line(tmp_path, name, parts):
    with pytest.raises(UserError) as caught:
        identity(tfds_name=name, tfds_dir=str(tmp_path))
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in [name, *parts]), message
    assert not list(tmp_path.iterdir())


def test_a_later_start_does_not_import_tfds(data_dir, tmp_path):
    code = BUILDER + """
from purelm.config import DataConfig
from purelm.data.cache import Cache
from purelm.data.sources import make_source
for name in ("text", "label", "txt"):
    source = make_source(DataConfig(tfds_name="small_texts", tfds_dir=sys.argv[1], text_field=name))
    source.identity(Cache(sys.argv[2]))
    try:
        print(len(list(source.documents())))
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(data_dir), str(tmp_path)], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[-3] == "45" and "UserError" in lines[-2] and "not text" in lines[-2] and "'txt'" in lines[-1]
    later = f"""
import sys
from purelm.config import DataConfig
from purelm.data.cache import Cache
from purelm.data.sources import make_source
source = make_source(DataConfig(tfds_name="small_texts", tfds_dir={str(data_dir)!r}))
print(source.identity(Cache({str(tmp_path)!r}))["tfds"], "tensorflow_datasets" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", later], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["small_texts/1.0.0", "False"]


LABELED = '''
import sys
import numpy as np
import tensorflow_datasets as tfds

class SmallRows(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        classes = tfds.features.ClassLabel(names=["neg", "pos"])
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
            "text": tfds.features.Text(), "label": classes, "id": np.int64,
            "tokens": tfds.features.Sequence(tfds.features.Text()), "tags": tfds.features.Sequence(classes),
            "context": tfds.features.Text(), "question": tfds.features.Text(), "answers": tfds.features.Sequence(
                {"text": tfds.features.Text(), "answer_start": np.int32})}))
    def _split_generators(self, manager):
        return {split: self._generate_examples(split, count) for split, count in {"train": 6, "test": 2}.items()}
    def _generate_examples(self, split, count):
        for i in range(count):
            yield i, {"text": f"t{i} \u6c49", "label": -1 if split == "test" else i % 2, "id": i, "tokens": ["a", "b"],
                      "tags": [0, 1], "context": f"c {i}", "question": "q",
                      "answers": [{"text": str(i), "answer_start": 2}]}
'''
READ_ROWS = LABELED + '''
import json
from purelm.config import DataConfig
from purelm.data.formats import FORMATS
from purelm.data.sources import make_source
from purelm.errors import UserError
data = DataConfig(tfds_name="small_rows", tfds_dir=sys.argv[1])
for name in ("labels", "tags", "squad"):
    rows = list(make_source(data).rows(data, name))
    print(json.dumps([row.split for row in rows]))
    print(json.dumps(FORMATS[name](rows[-1].fields, data, rows[-1].where, answered=True)))
try:
    data = DataConfig(tfds_name="small_rows", tfds_dir=sys.argv[1], label_field="lable")
    list(make_source(data).rows(data, "labels"))
except UserError as error:
    print(error)
'''


def test_rows_of_a_set_have_the_names_of_classes(tmp_path):
    import json
    write = LABELED + "SmallRows(data_dir=sys.argv[1], file_format='array_record').download_and_prepare(" \
                      "file_format='array_record')\n"
    subprocess.run([sys.executable, "-c", write, str(tmp_path)], check=True, capture_output=True)
    done = subprocess.run([sys.executable, "-c", READ_ROWS, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, error = done.stdout.splitlines()[-7:]
    label_splits, labels, tag_splits, tags, _, squad = map(json.loads, lines)
    where = labels.pop("where")
    assert where.startswith("split 'train', example ") and labels["label"] in ("neg", "pos")
    assert labels["text"].endswith("\u6c49") and tags["tokens"] == ["a", "b"] and tags["tags"] == ["neg", "pos"]
    assert squad["answers"][0]["text"] == squad["id"] and squad["answers"][0]["start"] == 2
    assert label_splits == ["train"] * 6 and tag_splits == ["test"] * 2 + ["train"] * 6  # a test split without labels
    assert "no feature 'lable' (config.data.label_field); did you mean 'label'?" in error
    assert "split 'test' has no 'label'" in done.stderr
