r"""Replies in a dialogue by a small decoder: the assistant's turns are learned, each from all the turns before it.

Recipes (the argument after the colon):
  sgd     English task dialogues (Schema-Guided Dialogue, Rastogi et al. 2020, arXiv 1909.05855): 2,559 of them to train
          on, replies of the test set greedily written. To beat: always the most frequent reply (BLEU 1.0, chrF 6.4),
          and the reply to the most similar turn of training (BLEU 4.3, chrF 17.8) (experiments/baselines.py).
  kdconv  Chinese dialogues about facts (KdConv, Zhou et al. 2020, arXiv 2004.04100). Of its 450 for validation most are
          trained on, as the training set is not at hand: evaluate on its test file by --data_path.

Measured: BLEU 6.0, chrF 20.6 (sgd; docs/results/systems.md). Takes 13 minutes on one core.
Command: python experiments/train.py --config=configs/dialogue/transformer.py --workdir=runs/dialogue \
             --config.data.path=sgd_dialogues
         python experiments/evaluate.py --workdir=runs/dialogue --split=test
         python experiments/chat.py --workdir=runs/dialogue
"""

from purelm.config import (
    Config,
    DataConfig,
    DecodingConfig,
    OptimizerConfig,
    TaskConfig,
    TrainingConfig,
    as_flag,
    choose,
    presets,
)

OPTIMIZER = OptimizerConfig(name="muon", learning_rate=0.01, schedule="wsd", warmup="10", decay="80%", beta1=0.8,
                            beta2=0.95, momentum=0.9, nesterov=True, adam_learning_rate=0.01, weight_decay=0.1,
                            learning_rate_rules=(("embedding/embedding", 0.1), (".*", 1.0)))


def sgd() -> Config:
    return Config(
        model=presets.purelm_fast(context_length=512, width=192, num_heads=3, feed_forward_width=512,
                                  residual_dropout=0.1),
        task=TaskConfig(name="dialogue"),
        data=DataConfig(path="sgd_dialogues", tokenizer="bpe", tokenizer_vocabulary_size=2048),
        optimizer=OPTIMIZER,
        training=TrainingConfig(num_epochs=3, batch_size=16, log_every="20", evaluate_every="1 epochs",
                                checkpoint_every="1 epochs"),
        decoding=DecodingConfig(max_new_tokens=64))


def kdconv() -> Config:
    return Config(
        model=presets.purelm_fast(context_length=512, width=192, num_heads=3, feed_forward_width=512,
                                  residual_dropout=0.2),
        task=TaskConfig(name="dialogue", bleu_tokenizer="zh"),
        data=DataConfig(path="kdconv_zh/validation.jsonl.gz", tokenizer="bpe", tokenizer_vocabulary_size=4096,
                        validation_fraction=0.1, test_fraction=0.0),
        optimizer=OPTIMIZER,
        training=TrainingConfig(num_epochs=20, batch_size=8, log_every="20", evaluate_every="2 epochs",
                                checkpoint_every="2 epochs"),
        decoding=DecodingConfig(max_new_tokens=64))


def get_config(recipe: str = "sgd"):
    return as_flag(choose({"sgd": sgd, "kdconv": kdconv}, recipe)())
