"""Dialogue: the replies, and how near they are to those that were given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from purelm.config import Config, DecodingConfig
from purelm.config.applies import change_decoding
from purelm.evaluation.continuations import Progress, continue_prompts
from purelm.tasks import dialogue as task
from purelm.training.load import LoadedRun

Turns = Sequence[Mapping[str, str]]


def input_format(config: Config) -> str:
    """The format of new rows."""
    return task.RECIPE.format


def example_of_text(config: Config, text: str) -> dict[str, Any]:
    """What --text means: the first turn of a user."""
    return {"where": "--text", "turns": [{"speaker": "user", "text": text}]}


def replies_wanted(turns: Turns) -> list[int]:
    """The numbers of the turns that the assistant is to say: all of its own, and the one after a last user's turn."""
    wanted = [number for number, turn in enumerate(turns) if turn["speaker"] == "assistant"]
    return wanted if turns and turns[-1]["speaker"] == "assistant" else [*wanted, len(turns)]


def predict(run: LoadedRun, examples: Sequence[Mapping[str, Any]], *, batch_size: int,
            progress: Progress | None = None) -> list[dict[str, Any]]:
    """The assistant's turns of each dialogue, each after the turns that were really said before it.

    Args:
      examples: of the format turns.
      batch_size: replies written at once.
      progress: called with a line now and then.

    Returns:
      `replies`, a list of {"turn" (its number in the dialogue, from 0), "text", "log_probability" (nats, of the reply
      and its end), "ended" (false where decoding.max_new_tokens cut it)}; and `text`, `log_probability` and
      `probability` of the last of them.
    """
    asked = [(number, turn) for number, example in enumerate(examples) for turn in replies_wanted(example["turns"])]
    written = _write(run, [examples[number]["turns"][:turn] for number, turn in asked], batch_size=batch_size,
                     progress=progress, seed=run.config.seed, decoding=run.config.decoding)
    predictions: list[dict[str, Any]] = [{"replies": []} for _ in examples]
    for (number, turn), reply in zip(asked, written):
        predictions[number]["replies"].append({"turn": turn, **reply})
    for prediction in predictions:
        last = prediction["replies"][-1]
        prediction["text"], prediction["log_probability"] = last["text"], last["log_probability"]
        prediction["probability"] = math.exp(last["log_probability"])
    return predictions


def reply(run: LoadedRun, turns: Turns, *, seed: int, temperature: float | None = None) -> str:
    """What the assistant says after `turns`, drawn as config.decoding says; `temperature` is in place of its own."""
    changes = {} if temperature is None else {"temperature": temperature}
    decoding = change_decoding(run.config, changes).decoding
    return _write(run, [turns], batch_size=1, progress=None, seed=seed, decoding=decoding)[0]["text"]


def reply_room(context_length: int, max_new_tokens: int) -> int:
    """Tokens of the prompt: the reply fits the context after it, so that the window never slides over the template; but
    at least half of the context is for what was said."""
    return max(context_length + 1 - max_new_tokens, context_length - context_length // 2)


def _write(run: LoadedRun, histories: Sequence[Turns], *, batch_size: int, progress: Progress | None, seed: int,
           decoding: DecodingConfig) -> list[dict[str, Any]]:
    from purelm.inference import configured_sampler

    config, tokenizer = run.config, run.tokenizer
    longest = decoding.max_new_tokens
    room = reply_room(config.model.context_length, longest)
    found = continue_prompts(
        config.model, run.params, [task.prompt_ids(tokenizer, turns, room) for turns in histories],
        max_new_tokens=longest, sampler=configured_sampler(decoding), seed=seed, stop_id=tokenizer.special.stop,
        vocabulary_size=tokenizer.vocabulary_size + len(task.ROLES), batch_size=batch_size, progress=progress,
        what="replies")
    # A mark of a role is never learned as a reply's token, but nothing forbids a bad model to write one.
    return [{"text": tokenizer.decode(one.ids_T[one.ids_T < tokenizer.vocabulary_size]).strip(),
             "log_probability": one.log_probability, "ended": one.stopped} for one in found]


def score(run: LoadedRun, examples: Sequence[Mapping[str, Any]],
          predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """sacreBLEU's corpus metrics of all replies that the split holds; see `reply_scores`. The token perplexity of the
    split, over the same replies, is exp of its loss."""
    answers, references = [], []
    for example, prediction in zip(examples, predictions):
        for answer in prediction["replies"]:
            if answer["turn"] < len(example["turns"]):
                answers.append(answer["text"])
                references.append(example["turns"][answer["turn"]]["text"])
    return reply_scores(answers, references, run.config.task.bleu_tokenizer)


def reply_scores(answers: Sequence[str], references: Sequence[str], tokenizer: str) -> dict[str, Any]:
    """`bleu` and `chrf` (sacreBLEU: Post 2018) of the answers, and their signatures; `distinct_1` and `distinct_2`, the
    different words and pairs of words of all answers over their number (Li et al. 2016, arXiv 1510.03055, section
    5.1), words as sacreBLEU's `tokenizer` cuts them; `exact`, the part that is the reference to the letter;
    `length_ratio`, words of the answers over those of the references; and `replies`, how many.
    """
    from sacrebleu.metrics import BLEU, CHRF

    bleu, chrf = BLEU(tokenize=tokenizer), CHRF()
    found = bleu.corpus_score(list(answers), [list(references)])
    words = [bleu.tokenizer(answer).split() for answer in answers]
    return {"bleu": found.score, "chrf": chrf.corpus_score(list(answers), [list(references)]).score,
            **{f"distinct_{size}": distinct(words, size) for size in (1, 2)},
            "exact": sum(map(str.__eq__, answers, references)) / len(references),
            "length_ratio": found.ratio, "replies": len(references),
            "bleu_signature": str(bleu.get_signature()), "chrf_signature": str(chrf.get_signature())}


def distinct(texts: Sequence[Sequence[str]], size: int) -> float:
    """Different n-grams of `size` words over all n-grams; 0 where there is none (Li et al. 2016)."""
    grams = [tuple(words[start:start + size]) for words in texts for start in range(len(words) - size + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
