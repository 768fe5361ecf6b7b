r"""Chinese lyrics of the Song dynasty, 21,053 poems, as a decoder language model over characters.

To beat on held-out poems: xz -9 (evaluate.py --compressors). Bits per character are bits per byte times the text's
bytes a character (2.85 here). Characters rather than BPE of as many tokens: after 150 steps 2.65 bits a byte against
2.66, and each step is quicker.

Measured: 6.04 bits a character (docs/results/systems.md). Takes under 18 minutes on 2 cores.
Command: python experiments/train.py --config=configs/lm/song_ci.py --workdir=runs/song_ci --config.data.path=song_ci
         python experiments/evaluate.py --workdir=runs/song_ci --split=test --compressors
"""

from purelm.config import Config, DataConfig, OptimizerConfig, TrainingConfig, as_flag, presets


def get_config():
    return as_flag(Config(
        model=presets.purelm_fast(context_length=128, num_layers=4, width=192, num_heads=3, feed_forward_width=512),
        data=DataConfig(path="song_ci", tokenizer="characters"),
        optimizer=OptimizerConfig(name="muon", learning_rate=0.01, schedule="wsd", warmup="10", decay="80%", beta1=0.8,
                                  beta2=0.95, momentum=0.9, nesterov=True, adam_learning_rate=0.012,
                                  learning_rate_rules=(("embedding/embedding", 0.09), (".*", 1.0))),
        training=TrainingConfig(num_steps=1500, batch_size=16, log_every="20", evaluate_every="300",
                                checkpoint_every="300")))
