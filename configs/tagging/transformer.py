r"""Named entities by a Transformer encoder from scratch: WNUT-17's emerging names (Derczynski et al. 2017).

Most entities of its test split are in no other text, so that a list of names is of little use: each word's most
frequent tag of training (experiments/baselines.py: 6.0 %) is the number to beat, in F1 of whole entities (seqeval).
Entities are learned long after the loss is least, so that the last checkpoint is taken, not the best by loss.

Measured: F1 8.6 (docs/results/systems.md). Takes 4 minutes on one core.
Command: python experiments/train.py --config=configs/tagging/transformer.py --workdir=runs/tagging \
             --config.data.path=FOLDER
         python experiments/evaluate.py --workdir=runs/tagging --split=test
"""

from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TaskConfig, TrainingConfig, as_flag


def get_config():
    return as_flag(Config(
        model=ModelConfig(architecture="encoder", num_layers=2, width=128, num_heads=4, feed_forward_width=256,
                          context_length=128, positions="rope", embedding_dropout=0.2, residual_dropout=0.1,
                          classifier_dropout=0.3),
        task=TaskConfig(name="tagging"),
        data=DataConfig(path="wnut17", tokenizer="bpe", tokenizer_vocabulary_size=2048,
                        cleaning=("unicode_nfc", "control_characters")),
        optimizer=OptimizerConfig(name="adamw", learning_rate=2e-3, schedule="linear", warmup="5%", clip_norm=1.0,
                                  weight_decay=0.05),
        training=TrainingConfig(num_epochs=12, batch_size=32, log_every="20", evaluate_every="1 epochs",
                                checkpoint_every="1 epochs")))
