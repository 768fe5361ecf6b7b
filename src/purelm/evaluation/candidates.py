"""An answer chosen, not written: the sentence of the source that the model finds the most probable answer.

The model that was trained to write answers is asked instead how probable it finds each sentence of the source as the
answer. Scoring given texts with a conditional model and taking the best is how lists of hypotheses are ranked again
(Yee et al. 2019, "Simple and Effective Noisy Channel Modeling for Neural Machine Translation", arXiv 1908.05731, whose
direct model this is); that they come from the source makes it an extractive summarizer. The score of a sentence of n
tokens, its end included, is that of a finished beam (Wu et al. 2016, arXiv 1609.08144, equation 14),

    log p(sentence | source) / ((5 + n) / 6)^length_penalty,

without which the shortest sentence would mostly win.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purelm.config import Config
from purelm.data.sentences import split_sentences
from purelm.errors import UserError
from purelm.evaluation.batches import in_batches
from purelm.tasks import sequence_to_sequence as task
from purelm.training.load import LoadedRun


class Choice(NamedTuple):
    """`text`: the sentence. `log_probability`: nats, of its tokens and its end together, given the source.
    `probability`: of this sentence among the candidates, the softmax of their scores."""

    text: str
    log_probability: float
    probability: float


def choose_sentences(run: LoadedRun, examples: Sequence[Mapping[str, Any]], *, batch_size: int,
                     progress: Callable[[str], None] | None = None) -> list[Choice]:
    """For each example the sentence of its source with the best score; of equal ones the first.

    Args:
      run: of the task sequence_to_sequence.
      examples: with a source or what makes one (see tasks.sequence_to_sequence.pair_of); targets are not looked at.
      batch_size: sentences at once, each with its source.
      progress: called with a line a tenth of the way.

    Candidates are the sentences of the whole source, less config.data.prompt, also where the context cuts what the
    model reads of it; but none longer than decoding.max_new_tokens, unless all are: then each is scored by its
    beginning. A source without a sentence has the empty answer.

    Raises UserError for log-probabilities that are not finite.
    """
    config = run.config
    pairs = [candidates_of(config, example) for example in examples]
    rows = task.encode(config, run.tokenizer, None, pairs, collections.Counter())
    records = [record for row in rows for record in row]
    log_probabilities = iter(sentence_log_probabilities(config, run.params, records, batch_size=batch_size,
                                                        progress=progress))
    return [_choose(config, pair["targets"], row, [next(log_probabilities) for _ in row])
            for pair, row in zip(pairs, rows)]


def candidates_of(config: Config, example: Mapping[str, Any]) -> dict[str, Any]:
    """The example as a pair whose targets are the different sentences of its source."""
    pair = task.pair_of(config, example)
    sentences = split_sentences(pair["source"].removeprefix(config.data.prompt))
    return {**pair, "targets": list(dict.fromkeys(sentences)) or [""]}


def sentence_log_probabilities(config: Config, params: Any, records: Sequence[task.Record], *, batch_size: int,
                               progress: Callable[[str], None] | None = None) -> np.ndarray:
    """Nats, float64 [records], of each record's target given its source: sums over its tokens, its end included."""
    compute = _program(config)
    found, done, tenth = np.zeros(len(records)), 0, max(len(records) // 10, 1)
    for members, batch in in_batches(config, task.make_recipe(config), records, batch_size):
        found[members] = np.asarray(compute(params, batch))[:len(members)]
        if progress is not None and done // tenth != (done + len(members)) // tenth:
            progress(f"scored {done + len(members):,} of {len(records):,} sentences")
        done += len(members)
    if not np.isfinite(found).all():
        raise UserError("the model's logits are not finite: its parameters are damaged, or its training diverged; "
                        "take an earlier checkpoint")
    return found


@functools.lru_cache(maxsize=4)
def _program(config: Config) -> Callable[[Any, Any], jax.Array]:
    """Nats of the targets of (params, batch), compiled."""
    @jax.jit
    def compute(params, batch):
        statistics = task.target_statistics(config, params, batch, None)
        return jnp.sum((statistics.target - statistics.logsumexp) * batch["weights"], axis=1)

    return compute


def _choose(config: Config, sentences: Sequence[str], records: Sequence[task.Record],
            log_probabilities: Sequence[float]) -> Choice:
    lengths = np.array([len(record["target"]) for record in records])
    scores = np.array(log_probabilities) / ((5 + lengths) / 6) ** config.decoding.length_penalty
    whole = np.array([record["target"][-1] == record["end"] for record in records])
    if whole.any():
        scores[~whole] = -np.inf
    best = int(np.argmax(scores))
    probabilities = np.exp(scores - scores[best])
    return Choice(sentences[best], float(log_probabilities[best]), float(1 / probabilities.sum()))
