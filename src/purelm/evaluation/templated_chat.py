"""Replies of a language model whose tokenizer came with a chat template."""

from __future__ import annotations

from purelm.config.applies import change_decoding
from purelm.evaluation.continuations import continue_prompts
from purelm.evaluation.dialogue import reply_room
from purelm.inference import configured_sampler
from purelm.inference.chat_prompts import Messages, chat_prompt
from purelm.inference.prompts import plain_text
from purelm.training.load import LoadedRun


def reply(run: LoadedRun, messages: Messages, *, seed: int, temperature: float | None = None) -> str:
    """What the assistant says after `messages` (each with "role" and "content"), drawn as config.decoding says;
    `temperature` is in place of its own. Raises UserError for what the template refuses."""
    changes = {} if temperature is None else {"temperature": temperature}
    config, tokenizer = change_decoding(run.config, changes), run.tokenizer
    longest = config.decoding.max_new_tokens
    prompt_T = chat_prompt(tokenizer, messages, reply_room(config.model.context_length, longest))
    found, = continue_prompts(
        config.model, run.params, [prompt_T], max_new_tokens=longest, sampler=configured_sampler(config.decoding),
        seed=seed, stop_id=tokenizer.special.stop, vocabulary_size=tokenizer.vocabulary_size, batch_size=1)
    return plain_text(tokenizer, found.ids_T).strip()
