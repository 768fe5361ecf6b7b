r"""A pair for speculative decoding (src/purelm/inference/speculative.py): a wide target, and a draft of the same tokens.

Recipes (the argument after the colon), both purelm_fast on Python's standard library with the tokenizer of
python_stdlib.py, so that the draft's ids mean what the target's do:
  target  4 layers x 768, 31 M parameters: more than a processor's cache holds, so that a step is bound by memory.
          Trained as briefly as makes sense, on 0.2 M tokens.
  draft   2 layers x 128, 0.9 M parameters.

Command: python experiments/train.py --config=configs/lm/speculative.py:target --workdir=runs/target
         python experiments/train.py --config=configs/lm/speculative.py:draft --workdir=runs/draft
"""

from purelm.config import Config, DataConfig, OptimizerConfig, TrainingConfig, as_flag, choose, presets


def _recipe(num_steps: int, batch_size: int, optimizer: OptimizerConfig, **shape) -> Config:
    return Config(
        model=presets.purelm_fast(context_length=256, **shape),
        data=DataConfig(source="python_stdlib", tokenizer="bpe", tokenizer_vocabulary_size=2048),
        optimizer=optimizer,
        training=TrainingConfig(num_steps=num_steps, batch_size=batch_size, log_every="20", evaluate_every="100%",
                                checkpoint_every="100%"))


def target() -> Config:
    optimizer = OptimizerConfig(name="adamw", learning_rate=1e-3, schedule="cosine", warmup="20", beta2=0.95,
                                weight_decay=0.1, clip_norm=1.0)
    return _recipe(400, 2, optimizer, num_layers=4, num_heads=6, width=768, feed_forward_width=2048,
                   initialization_stddev=0.018)


def draft() -> Config:
    optimizer = OptimizerConfig(name="adamw", learning_rate=4e-3, schedule="cosine", warmup="20", beta2=0.95,
                                weight_decay=0.1, clip_norm=1.0)
    return _recipe(800, 4, optimizer, num_layers=2, num_heads=1, width=128, feed_forward_width=352)


def get_config(recipe: str):
    return as_flag(choose({"target": target, "draft": draft}, recipe)())
