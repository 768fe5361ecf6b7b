"""What trivial systems reach on a test split, so that a network's number can be read."""

import dataclasses
import json

from absl import flags

from purelm import cli

TASKS = ("classification", "tagging", "sequence_to_sequence", "extractive_qa", "dialogue")
USAGE = """
Measure a task's trivial systems on a whole test split: TF-IDF and logistic regression, the most frequent tag of a word,
a copied first sentence, a sliding window, the most frequent reply.

  python experiments/baselines.py --task=classification --data_path=FOLDER
  python experiments/baselines.py --config=configs/tagging/transformer.py --config.data.path=FOLDER

Prints one JSON object. FOLDER has train and test files as a run's has; all of train is trained on.
"""

cli.define_config_flag()
TASK = flags.DEFINE_enum("task", None, TASKS, "the task, where no --config says it; its fields have their defaults")
DATA_PATH = flags.DEFINE_string("data_path", None, "the data, where no --config.data.path says it")
ANALYZER = flags.DEFINE_enum("analyzer", "auto", ["auto", "word", "char"], "classification: what is counted; auto is "
                             "one and two words, or of Chinese one to three characters")


def main() -> None:
    from purelm.errors import UserError
    from purelm.evaluation.baselines import baseline_of
    from purelm.tasks import task_of

    config = _config()
    prepared = task_of(config).prepare(config)
    # The published test part of SQuAD is its validation file.
    missing = [name for name in ("train", "test") if name not in prepared.splits]
    if missing and not (config.task.name == "extractive_qa" and "validation" in prepared.splits):
        raise UserError(f"{config.data.path}: the data has no {missing[0]} split; it has {', '.join(prepared.splits)}")
    examples = {name: list(split.examples) for name, split in prepared.splits.items()}
    options = {"analyzer": ANALYZER.value} if config.task.name == "classification" else {}
    print(json.dumps(baseline_of(config.task.name)(examples, config, **options), ensure_ascii=False), flush=True)


def _config():
    """The config that the flags say, its data quickly tokenized and all of the training file kept."""
    from purelm.config import Config, DataConfig, TaskConfig
    from purelm.errors import UserError

    if cli.FLAGS.config is not None:
        config = cli.config_from_flags()
        if config.task.name not in TASKS:
            raise UserError(f"config.task.name={config.task.name} has no trivial system; {', '.join(TASKS)} have one")
        if TASK.value not in (None, config.task.name):
            raise UserError(f"--task={TASK.value}, but --config has the task {config.task.name}; give one of the two")
    elif TASK.value is None:
        raise UserError(f"--task is missing; give one of {', '.join(TASKS)}, or --config")
    else:
        config = Config(task=TaskConfig(name=TASK.value), data=DataConfig())
    data = dataclasses.replace(config.data, tokenizer="bytes", tokenizer_path=None, end_of_text=True)
    if config.task.name != "extractive_qa":
        data = dataclasses.replace(data, validation_fraction=0.0)
    if DATA_PATH.value is not None:
        data = dataclasses.replace(data, path=DATA_PATH.value, source="auto", tfds_name=None)
    if data.path is None and data.tfds_name is None:
        raise UserError("--data_path is missing; give a folder with train and test files")
    return dataclasses.replace(config, data=data)


if __name__ == "__main__":
    cli.run(main, USAGE)
