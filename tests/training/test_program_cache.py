"""A second start finds the compiled step in the persistent cache, so the program must not depend on the process."""

import os
import subprocess
import sys

PROGRAM = """
import hashlib
from purelm.config import *
from purelm.training.parallel import make_engine
config = finalize(Config(
    model=ModelConfig(num_layers=1, width=16, num_heads=2, context_length=8, residual_dropout=0.1),
    optimizer=OptimizerConfig(name="muon", momentum=0.9, weight_decay=0.1, clip_norm=1.0),
    training=TrainingConfig(num_steps=10, batch_size=4, accumulation_steps=2, ema_decay=0.9)),
    vocabulary_size=11, tokens_per_epoch=1000)
print(hashlib.sha256(make_engine(config).lower_train_step().as_text().encode()).hexdigest())
"""


def test_the_step_is_the_same_program_whatever_the_order_of_hashes():
    """Reddens when a set or a dictionary of hashed keys decides the order of operations."""
    found = {subprocess.run([sys.executable, "-c", PROGRAM], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
                            capture_output=True, text=True, timeout=120).stdout for seed in ("1", "2", "3")}
    assert len(found) == 1
