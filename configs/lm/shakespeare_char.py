r"""Characters of Shakespeare (nanoGPT's shakespeare_char), 1.1 MB of plays: first 90 % to train on, rest to validate.

Recipes (the argument after the colon):
  cpu   nanoGPT's for a laptop: 4 layers x 128, context 64, batch 12, 2,000 steps of AdamW. Its README says 1.88, an
        estimate from 20 batches; on the whole validation part its own code ends at 1.898. The learning rate here falls
        from 4e-3 to zero; nanoGPT's own (--config.optimizer.learning_rate=1e-3 --config.optimizer.final_fraction=0.1)
        gives 1.894.
  gpu   nanoGPT's for one GPU: 6 layers x 384, context 256, dropout 0.2, 5,000 steps. Its README says 1.4697 (best).
  fast  ours, at the size of cpu: purelm_fast and Muon, 220 steps.

Measured (2 cores, whole validation part): docs/results/language_models.md.
Command: python experiments/train.py --config=configs/lm/shakespeare_char.py:cpu --workdir=runs/shakespeare \
             --config.data.path=input.txt
"""

from purelm.config import Config, DataConfig, OptimizerConfig, TrainingConfig, as_flag, choose, presets

DATA = DataConfig(path="input.txt", tokenizer="characters", end_of_text=False, packing="stream", split="contiguous",
                  validation_fraction=0.1, test_fraction=0.0, cleaning=())


def cpu() -> Config:
    """nanoGPT's README, "I only have a macbook", but for the learning rate."""
    return Config(
        model=presets.nanogpt_cpu(),
        data=DATA,
        optimizer=OptimizerConfig(name="adamw", learning_rate=4e-3, schedule="cosine", warmup="100",
                                  beta2=0.99, weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_steps=2000, batch_size=12, log_every="10", evaluate_every="250",
                                checkpoint_every="250"))


def gpu() -> Config:
    """nanoGPT's config/train_shakespeare_char.py."""
    return Config(
        model=presets.nanogpt_gpu(),
        data=DATA,
        optimizer=OptimizerConfig(name="adamw", learning_rate=1e-3, schedule="cosine", warmup="100",
                                  final_fraction=0.1, beta2=0.99, weight_decay=0.1, clip_norm=1.0),
        training=TrainingConfig(num_steps=5000, batch_size=64, log_every="10", evaluate_every="250",
                                checkpoint_every="250"))


def fast() -> Config:
    """purelm_fast at the size of `cpu`."""
    return Config(
        model=presets.purelm_fast(),
        data=DATA,
        optimizer=OptimizerConfig(name="muon", learning_rate=0.0177, schedule="wsd", warmup="5", decay="70%", beta1=0.8,
                                  beta2=0.95, momentum=0.9, nesterov=True, adam_learning_rate=0.02,
                                  learning_rate_rules=(("embedding/embedding", 0.088), (".*", 1.0))),
        training=TrainingConfig(num_steps=220, batch_size=16, log_every="10", evaluate_every="220",
                                checkpoint_every="220"))


def get_config(recipe: str = "cpu"):
    return as_flag(choose({"cpu": cpu, "gpu": gpu, "fast": fast}, recipe)())
