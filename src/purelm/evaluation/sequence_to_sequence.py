"""Sequence to sequence: the texts a model writes, and what the metrics in config.task.metrics say of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from purelm.config import Config
from purelm.config.applies import check_decoding
from purelm.errors import UserError
from purelm.evaluation import text_metrics
from purelm.evaluation.candidates import choose_sentences
from purelm.inference.prompts import plain_text
from purelm.inference.sequence_to_sequence import Answer, answer
from purelm.tasks.sequence_to_sequence import FORMAT, encode_sources, pair_of
from purelm.training.load import LoadedRun

Example = Mapping[str, Any]
Prediction = dict[str, Any]


def predict(run: LoadedRun, examples: Sequence[Example], *, batch_size: int,
            progress: Callable[[str], None] | None = None) -> list[Prediction]:
    """For each example {"text", "log_probability" (nats), "probability", "finished"}.

    The probability is that of the whole text and its end under the model. `finished` is False where
    decoding.max_new_tokens cut the text off. Decodes as run.config.decoding says; with its `candidates` the text is a
    sentence of the source, and the probability that of this sentence among them (see candidates.choose_sentences); with
    its `num_best` above 1 there is also `best`, a list of so many such answers, of which the first is this one.
    """
    check_decoding(run.config)
    if run.config.decoding.candidates == "sentences":
        return [{**choice._asdict(), "finished": True}
                for choice in choose_sentences(run, examples, batch_size=batch_size, progress=progress)]
    tokenizer = run.tokenizer
    sources, _ = encode_sources(run.config, tokenizer, [pair_of(run.config, example)["source"] for example in examples])
    answers = answer(run.config, run.params, sources, batch_size=batch_size, special=tokenizer.special,
                     vocabulary_size=tokenizer.vocabulary_size, progress=progress)
    if run.config.decoding.num_best == 1:
        return [_row(tokenizer, found) for found in answers]
    return [{**_row(tokenizer, found), "best": [_row(tokenizer, one) for one in found.best]} for found in answers]


def _row(tokenizer: Any, found: Answer) -> Prediction:
    return {"text": plain_text(tokenizer, found.ids_T).strip(), "log_probability": found.log_probability,
            "probability": math.exp(found.log_probability), "finished": found.finished}


def score(run: LoadedRun, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The metrics of config.task.metrics over all examples, and under "components" over each part of a mixture.

    Raises UserError where there is nothing to score, or an example has no target.
    """
    return measure(run.config, examples, [prediction["text"] for prediction in predictions])


def measure(config: Config, examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Any]:
    """`score` of texts, whoever wrote them."""
    if not examples:
        raise UserError("there are no examples to score; give a split or a file with some")
    pairs = [pair_of(config, example) for example in examples]
    for pair in pairs:
        if not pair["targets"]:
            raise UserError(f"{pair['where']}: has no target to score against; give field "
                            f"'{config.data.target_field}' (config.data.target_field)")
    references = [pair["targets"] for pair in pairs]
    result = _measure(config, texts, references)
    if "component" in pairs[0]:
        components = [pair["component"] for pair in pairs]
        result["components"] = {
            name: _measure(config, _of(name, components, texts), _of(name, components, references))
            for name in dict.fromkeys(components)}
    return result


def _of(name: str, components: Sequence[str], values: Sequence[Any]) -> list[Any]:
    return [value for component, value in zip(components, values) if component == name]


def _measure(config: Config, texts: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    metrics = {
        "bleu": lambda: text_metrics.bleu(texts, references, tokenizer=config.task.bleu_tokenizer),
        "chrf": lambda: text_metrics.chrf(texts, references),
        "rouge": lambda: text_metrics.rouge(texts, references),
        "squad": lambda: text_metrics.squad(texts, references),
    }
    result: dict[str, Any] = {"examples": len(texts)}
    for name in config.task.metrics:
        result |= metrics[name]()
    return result


def input_format(config: Config) -> str:
    """The format of rows that have no answer yet."""
    return FORMAT if config.data.format == "auto" else config.data.format


def example_of_text(config: Config, text: str) -> Prediction:
    """The example, without an answer, that a bare text means: a source; of the format squad "question ||| context".

    Raises UserError for a format whose rows are no texts.
    """
    name, where = input_format(config), {"where": "--text"}
    if name == FORMAT:
        return {**where, "source": config.data.prompt + text, "targets": None}
    if name == "labels":
        return {**where, "text": text, "pair": None, "label": None}
    question, bar, context = text.partition("|||")
    if name != "squad" or not bar:
        wanted = "\"question ||| context\"" if name == "squad" else "--input with JSON lines"
        raise UserError(f"--text: the run's data has the format {name}; give {wanted}")
    return {**where, "id": "--text", "question": question.strip(), "context": context.strip(), "answers": None}
