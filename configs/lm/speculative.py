r"""A pair for speculative decoding (src/purelm/inference/speculative.py): a wide target and a draft of the same tokens.

Recipes (the argument after the colon), both purelm_fast and Muon on Shakespeare's characters, as in
shakespeare_char.py, so that the draft's ids mean what the target's do:
  target  4 layers x 768, 28 M parameters: more than a processor's cache holds, so that a step is bound by memory.
  draft   2 layers x 128, 0.4 M parameters.

Measured (2 cores shared with other programs, whole validation part, one seed): target 1.738 in 18 minutes, draft 1.762
in one or two; what is gained: docs/results/decoding.md.
Command: python experiments/train.py --config=configs/lm/speculative.py:target --workdir=runs/target \
             --config.data.path=input.txt
         python experiments/train.py --config=configs/lm/speculative.py:draft --workdir=runs/draft \
             --config.data.path=input.txt
"""

from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig, as_flag, choose, presets


def _recipe(model: ModelConfig, num_steps: int, batch_size: int, *, matrices: float, vectors: float) -> Config:
    return Config(
        model=model,
        data=DataConfig(path="input.txt", tokenizer="characters", end_of_text=False, packing="stream",
                        split="contiguous", validation_fraction=0.1, test_fraction=0.0, cleaning=()),
        optimizer=OptimizerConfig(name="muon", learning_rate=matrices, schedule="wsd", warmup="5", decay="70%",
                                  beta1=0.8, beta2=0.95, momentum=0.9, nesterov=True, adam_learning_rate=vectors,
                                  learning_rate_rules=(("embedding/embedding", 0.088), (".*", 1.0))),
        training=TrainingConfig(num_steps=num_steps, batch_size=batch_size, log_every="10", evaluate_every="100%",
                                checkpoint_every="100%"))


def target() -> Config:
    """Rates fall with the width."""
    model = presets.purelm_fast(context_length=256, num_heads=6, width=768, feed_forward_width=2048,
                                initialization_stddev=0.018)
    return _recipe(model, 240, 4, matrices=0.004, vectors=0.005)


def draft() -> Config:
    model = presets.purelm_fast(context_length=256, num_layers=2)
    return _recipe(model, 400, 4, matrices=0.0177, vectors=0.02)


def get_config(recipe: str):
    return as_flag(choose({"target": target, "draft": draft}, recipe)())
