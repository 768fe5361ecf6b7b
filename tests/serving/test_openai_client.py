"""The real client of OpenAI against a real server."""

import jax
import numpy as np
import openai
import pytest
from running import running

from purelm.inference import Sampler, generate


def streamed(parts):
    """(text by choice, finish reasons by choice) of a stream."""
    texts, reasons = {}, {}
    for part in parts:
        for choice in part.choices:
            content = choice.text if hasattr(choice, "text") else choice.delta.content
            texts[choice.index] = texts.get(choice.index, "") + (content or "")
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    return texts, reasons


def test_models(client, server):
    assert [model.id for model in client.models.list()] == ["tiny"]
    about = client.models.retrieve("tiny").purelm
    assert about["can"] == ["completions", "chat", "predict", "attention"] and about["context_length"] == 64
    assert about["vocabulary_size"] == 257 and about["labels"] is None and about["step"] == 1
    with pytest.raises(openai.NotFoundError, match="did you mean 'tiny'"):
        client.models.retrieve("tinny")


def test_choices_are_the_rows_that_generate_writes(client, server):
    """Reddens when a choice's index or seed does not reach the draw."""
    answer = client.completions.create(model="tiny", prompt=[1, 2, 3], n=3, max_tokens=12, seed=5, temperature=0.8,
                                       top_p=0.9, extra_body={"top_k": 40, "return_token_ids": True})
    config = server.served.config.model
    wanted = generate(config, server.served.params, np.tile([1, 2, 3], (3, 1)), max_new_tokens=12,
                      sampler=Sampler(0.8, top_k=40, top_p=0.9), key=jax.random.key(5), stop_id=256,
                      vocabulary_size=257)
    assert [choice.purelm["token_ids"] for choice in answer.choices] == [
        ids[:length].tolist() for ids, length in zip(wanted.ids_BT, wanted.lengths_B)]
    assert answer.usage.prompt_tokens == 3 and answer.usage.completion_tokens == wanted.lengths_B.sum()
    assert answer.usage.total_tokens == 3 + answer.usage.completion_tokens and answer.purelm == {"seed": 5}
    assert {choice.finish_reason for choice in answer.choices} <= {"length", "stop"}
    assert answer.system_fingerprint.startswith("purelm-1-") and answer.id.startswith("cmpl-")


def test_a_stream_says_what_the_whole_says_and_another_seed_another(client):
    """Reddens when streaming draws, cuts or counts otherwise."""
    options = {"model": "tiny", "prompt": "User: é", "n": 2, "max_tokens": 40, "stop": ["a", "🙂", "~~"]}
    whole = client.completions.create(**options, seed=11)
    parts = list(client.completions.create(**options, seed=11, stream=True, stream_options={"include_usage": True}))
    texts, reasons = streamed(parts)
    assert texts == {choice.index: choice.text for choice in whole.choices}
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    assert parts[-1].usage.total_tokens == whole.usage.total_tokens and not parts[-1].choices
    assert client.completions.create(**options, seed=12).choices[0].text != whole.choices[0].text


def test_a_drawn_seed_is_told_and_gives_the_answer_again(client):
    first = client.completions.create(model="tiny", prompt="x", max_tokens=12)
    again = client.completions.create(model="tiny", prompt="x", max_tokens=12, seed=first.purelm["seed"])
    assert first.choices[0].text == again.choices[0].text
    other = client.completions.create(model="tiny", prompt="x", max_tokens=12)
    assert other.purelm["seed"] != first.purelm["seed"]


def test_several_prompts_are_each_as_alone_and_echo_shows_them(client):
    both = client.completions.create(model="tiny", prompt=["ab", "c"], n=2, max_tokens=6, seed=1, echo=True)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    alone = client.completions.create(model="tiny", prompt="c", n=2, max_tokens=6, seed=1)
    assert [choice.text for choice in both.choices[2:]] == ["c" + choice.text for choice in alone.choices]
    assert both.usage.prompt_tokens == 3 + 2  # Each begins with the end of text.


def test_stop_strings_end_an_answer_before_them(client):
    options = {"model": "tiny", "prompt": "x", "max_tokens": 40, "seed": 3, "extra_body": {"regex": "[a-z]{40}"}}
    free = client.completions.create(**options).choices[0].text
    stop = free[10:13]
    cut = client.completions.create(**options, stop=stop).choices[0]
    assert cut.text == free[:free.index(stop)] and cut.finish_reason == "stop"


def test_log_probabilities_of_both_routes(client):
    found = client.completions.create(model="tiny", prompt="x", max_tokens=8, seed=2, logprobs=3).choices[0].logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.text_offset) <= 8
    for token, value, top in zip(found.tokens, found.token_logprobs, found.top_logprobs):
        assert top[token] == value and 3 <= len(top) <= 4 and max(top.values()) <= 0
    streaming = client.completions.create(model="tiny", prompt="x", max_tokens=8, seed=2, logprobs=3, stream=True)
    pieces = [choice.logprobs for part in streaming for choice in part.choices if choice.logprobs]
    assert sum((piece.token_logprobs for piece in pieces), []) == found.token_logprobs
    empty = client.completions.create(model="tiny", prompt="x", logprobs=3, extra_body={"regex": ""}).choices[0]
    assert empty.text == "" and empty.logprobs.tokens == []
    message = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=8, seed=2, logprobs=True, top_logprobs=2)
    entries = message.choices[0].logprobs.content
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in entries)
    assert b"".join(bytes(entry.bytes) for entry in entries).decode(errors="replace").strip() == (
        message.choices[0].message.content)


def test_chat_is_a_transcript_that_ends_where_the_other_side_would_speak(client, server):
    """Reddens when the template or its stop strings change unsaid."""
    messages = [{"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                {"role": "assistant", "content": "Hello."},
                {"role": "user", "content": "what is 1?"}]
    options = {"model": "tiny", "max_tokens": 30, "seed": 4}
    said = client.chat.completions.create(**options, messages=messages)
    prompt = "Be brief.\n\nUser: hi\nAssistant: Hello.\nUser: what is 1?\nAssistant:"
    plain = client.completions.create(**options, prompt=prompt, stop=["\nUser:", "\nAssistant:"])
    assert said.choices[0].message.content == plain.choices[0].text.strip()
    assert said.usage.prompt_tokens == plain.usage.prompt_tokens == len(prompt) + 1
    texts, reasons = streamed(client.chat.completions.create(**options, messages=messages, stream=True))
    assert texts == {0: said.choices[0].message.content} and reasons == {0: said.choices[0].finish_reason}


def test_constraints_hold(client):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
              "additionalProperties": False}
    message = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hi"}], seed=1, max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}).choices[0]
    assert message.message.content.replace(" ", "") in ('{"a":true}', '{"a":false}')
    code = client.completions.create(model="tiny", prompt="x", max_tokens=20, extra_body={"regex": "[0-9]{4}é"})
    assert code.choices[0].text[:4].isdecimal() and code.choices[0].text[4:] == "é"
    assert code.choices[0].finish_reason == "stop"


def test_errors_are_the_clients_own(client):
    with pytest.raises(openai.BadRequestError, match="temperature") as caught:
        client.completions.create(model="tiny", prompt="x", temperature=3)
    assert caught.value.param == "temperature" and caught.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="other", prompt="x")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="tools: are not served"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}],
                                       tools=[{"type": "function", "function": {"name": "f"}}])


def test_an_api_key_is_asked_for_where_there_is_one(language_run):
    """Reddens when a route beside the page and the watching is open."""
    with running(language_run, api_key="secret") as found:
        with openai.OpenAI(base_url=f"{found.url}/v1", api_key="secret", max_retries=0) as right:
            assert right.completions.create(model="tiny", prompt="x", max_tokens=2).choices
        with openai.OpenAI(base_url=f"{found.url}/v1", api_key="Secret", max_retries=0) as other:
            for ask in (other.models.list, lambda: other.completions.create(model="tiny", prompt="x")):
                with pytest.raises(openai.AuthenticationError):
                    ask()
            assert other._client.get(f"{found.url}/health").status_code == 200
