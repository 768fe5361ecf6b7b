"""Chats with a run whose tokenizer has a chat template: on the server, in a terminal, and from evaluation."""

from __future__ import annotations

import pytest

from purelm.evaluation import templated_chat
from purelm.inference.sampling import Sampler
from purelm.serving import terminal
from purelm.serving.terminal import CHAT_HELP, Session, Settings, help_of
from purelm.training.load import load_run

TEMPLATE = ("{% for message in messages %}{% if message.role == 'bad' %}{{ raise_exception('roles take turns') }}"
            "{% endif %}{{ message.role }}={{ message.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant={% endif %}")
MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]
PROMPT = "system=be brief\nuser=why?\nassistant="


@pytest.fixture
def templated(server, monkeypatch):
    monkeypatch.setattr(server.served.run.tokenizer, "chat_template", TEMPLATE)


def test_messages_go_through_the_template(http, templated):
    # Reddens where the transcript's form or stop strings are still used, or a start is put before the template's own.
    body = {"messages": MESSAGES, "max_tokens": 3, "seed": 4, "return_token_ids": True}
    answer = http.post("/v1/chat/completions", json=body).json()
    assert bytes(answer["choices"][0]["purelm"]["prompt_token_ids"]).decode() == PROMPT
    about = http.get("/v1/models").json()["data"][0]["purelm"]
    assert about["chat_format"] == {"template": "tokenizer", "source": TEMPLATE, "stop": ["<|endoftext|>"]}
    other = {"messages": [{"role": "narrator", "content": "x"}], "max_tokens": 1, "return_token_ids": True}
    answer = http.post("/v1/chat/completions", json=other).json()
    assert bytes(answer["choices"][0]["purelm"]["prompt_token_ids"]).decode() == "narrator=x\nassistant="


def test_what_a_template_refuses_names_the_messages(http, templated):
    found = http.post("/v1/chat/completions", json={"messages": [{"role": "bad", "content": "x"}]})
    assert found.status_code == 400
    error = found.json()["error"]
    assert error["param"] == "messages" and "roles take turns" in error["message"]


def test_without_a_template_roles_are_known_ones(http):
    found = http.post("/v1/chat/completions", json={"messages": [{"role": "narrator", "content": "x"}]})
    assert found.status_code == 400 and found.json()["error"]["param"] == "messages[0].role"


@pytest.fixture(scope="module")
def run(language_run):
    loaded = load_run(language_run)
    loaded.tokenizer.chat_template = TEMPLATE
    return loaded


def test_a_terminal_takes_turns(run, monkeypatch):
    # Reddens where an answer is not among what is said next, /again answers its own answer, or /reset keeps anything.
    monkeypatch.setattr(terminal, "_CHUNK", 16)
    pieces = []
    session = Session(run, Settings(Sampler(temperature=0.8), max_new_tokens=8, seed=3), pieces.append)
    seen, submit = [], session._engine.submit

    def watched(request, on_event):
        seen.append(bytes(request.prompt_ids).decode(errors="replace"))
        return submit(request, on_event)

    monkeypatch.setattr(session._engine, "submit", watched)
    session.answer("hi")
    first = session._messages[-1]
    assert first == {"role": "assistant", "content": "".join(pieces).strip()}
    session.answer("/again")
    assert seen == ["user=hi\nassistant="] * 2 and len(session._messages) == 2 and session._messages[-1] != first
    session.answer("so?")
    assert seen[2].endswith("\nuser=so?\nassistant=")
    session.answer("/reset")
    session.answer("bye")
    assert seen[3] == "user=bye\nassistant="
    assert help_of(run) == CHAT_HELP


def test_a_long_chat_is_answered_by_its_latest_turns(run):
    # Prompt and reply are longer than the context together, so that two messages are left out.
    messages = [{"role": "user", "content": "x" * 60}, {"role": "assistant", "content": "y"}, *MESSAGES[1:]]
    reply = templated_chat.reply(run, messages, seed=2, temperature=0.7)
    assert reply and len(reply) <= run.config.decoding.max_new_tokens
    assert templated_chat.reply(run, messages[2:], seed=2, temperature=0.7) == reply
