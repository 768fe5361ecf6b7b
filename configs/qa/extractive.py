r"""Extractive question answering by a Transformer encoder (Devlin et al. 2019, section 4.2), from scratch.

Recipes (the argument after the colon), each beside a sliding window without a network (Rajpurkar et al. 2016, section
5.1; experiments/baselines.py) on the same questions:
  squad  SQuAD v1.1 (Rajpurkar et al. 2016), 11,877 of its 87,599 training questions, all 10,570 for validation: the
         sliding window has exact match 10.7 and F1 21.5; this 28.4 and 38.9. Published, with
         the whole training set: F1 77 with pretrained word vectors (BiDAF), 51 by logistic regression.
  cmrc   CMRC 2018 (Cui et al. 2019), Chinese. Its training set is not at hand: of the 3,219 questions of its validation
         file, a tenth by paragraph is held out, and the rest is learned from.

Tokens of the paragraph that belong to a word of the question are marked (model.token_types=3; DrQA: Chen et al. 2017).
Measured: docs/results/systems.md. squad takes 17 minutes on one core; cmrc, cut to 300 of its steps, 9 on two.
Command: python experiments/train.py --config=configs/qa/extractive.py:squad --workdir=runs/qa \
             --config.data.path=squad_v1
         python experiments/evaluate.py --workdir=runs/qa --split=validation --checkpoint=best
"""

import dataclasses

from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TaskConfig, TrainingConfig, as_flag, choose


def squad() -> Config:
    """Pre-RMSNorm, RoPE, QK-norm and SwiGLU, with Muon."""
    return Config(
        model=ModelConfig(architecture="encoder", num_layers=3, width=128, num_heads=4, context_length=256,
                          token_types=3, feed_forward="swiglu", feed_forward_width=256, positions="rope",
                          rope_base=1000.0, norm="rms_norm", norm_epsilon=1e-6, qk_norm=True, bias=False,
                          embedding_norm=True, zero_outputs=True, initialization="gpt2",
                          initialization_stddev=0.044, embedding_dropout=0.1, residual_dropout=0.1,
                          classifier_dropout=0.1),
        task=TaskConfig(name="extractive_qa", window_overlap=64, longest_answer=20),
        data=DataConfig(tfds_name="squad", tokenizer="bpe", tokenizer_vocabulary_size=8000),
        optimizer=OptimizerConfig(name="muon", learning_rate=0.01, adam_learning_rate=0.003, schedule="wsd",
                                  warmup="50", decay="60%", beta1=0.9, beta2=0.98, momentum=0.95, nesterov=True,
                                  clip_norm=1.0),
        training=TrainingConfig(num_epochs=4, batch_size=32, log_every="20", evaluate_every="1 epochs",
                                evaluate_batches=60, checkpoint_every="1 epochs"))


def cmrc() -> Config:
    """Characters, and longer answers."""
    config = squad()
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, context_length=384),
        task=dataclasses.replace(config.task, longest_answer=40),
        data=DataConfig(path="cmrc2018/validation.jsonl.gz", tokenizer="characters", validation_fraction=0.1,
                        test_fraction=0.0),
        training=dataclasses.replace(config.training, num_epochs=6, evaluate_batches=None))


def get_config(recipe: str = "squad"):
    return as_flag(choose({"squad": squad, "cmrc": cmrc}, recipe)())
