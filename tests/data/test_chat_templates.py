"""Chat templates: what transformers makes of them, and templates that mean harm."""

from __future__ import annotations

import time

import published_tokenizers as published
import pytest

from purelm.data import chat_templates
from purelm.data.chat_templates import render_chat
from purelm.data.tokenizers import ByteTokenizer
from purelm.data.tokenizers.importing import import_tokenizer
from purelm.errors import UserError

# Written here, with the features that published templates of each design use.
CHATML = """{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
LLAMA3 = """{{- bos_token }}
{%- set date = strftime_now("%Y") if strftime_now is defined else "2024" %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- else %}{%- set system = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nYear " + date + "\\n" + system + eos_token }}
{%- if tools is not none %}{% for tool in tools %}{{ tool | tojson(indent=2) }}{% endfor %}{% endif %}
{%- for message in messages if message.role != "ignored" %}
    {{- '<|start_header_id|>' ~ message['role'] ~ '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim ~ '<|eot_id|>' }}
{%- endfor %}
{% if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{% endif %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate\\nuser/assistant') }}
{% endif %}
  {% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
<start_of_turn>{{ role }}
{{ message['content'] | trim }}<end_of_turn>
{% endfor %}
{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""
MISTRAL = """{%- set ns = namespace(index=0, last='') %}{{ bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}{%- set ns.last = message.content + '\\n\\n' %}{%- continue %}{%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' + ns.last + message['content'] + ' [/INST]' }}{% set ns.last = '' %}
    {%- elif message['role'] == 'assistant' %}
        {%- generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
    {%- if ns.index > 50 %}{% break %}{% endif %}
{%- endfor %}"""
QWEN = """{%- macro show(message, last) -%}
<|im_start|>{{ message.role }}{% if last %}!{% endif %}

{{ message.get('content', '') }}<|im_end|>
{% endmacro -%}
{%- if tools %}{{ '# Tools' }}{% for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}{% endif -%}
{%- for message in messages[::1] %}{{ show(message, loop.last) }}
{%- if message.tool_calls %}{% for call in message.tool_calls %}{{ call.function | tojson }}{% endfor %}{% endif %}
{%- endfor %}{{ messages | map(attribute='role') | unique | join(',') }}{{ "%s-%d" | format("a", 3) }}
{%- if messages[-1].content is string and messages[-1]['content'].startswith('h') %}{{ 'h'.upper() }}{% endif %}"""
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL, "qwen": QWEN}

CHATS = [
    [{"role": "user", "content": "hi  <b>&\"you\"</b> 你好 \U0001f600 "}],
    [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two\n"},
     {"role": "user", "content": "three"}],
    [{"role": "system", "content": " Be kind. "}, {"role": "user", "content": "x", "tool_calls": None}],
    [{"role": "assistant", "content": "first"}],
]
TOOLS = [{"type": "function", "function": {"name": "f<>", "description": "é 'x'", "parameters": {"b": 1, "a": [None]}}}]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Our tokenizer and transformers' of the same files."""
    import transformers

    folder = published.llama3(tmp_path_factory.mktemp("chat"))
    return (import_tokenizer(folder, "language_modeling", "llama", {}),
            transformers.AutoTokenizer.from_pretrained(folder, tokenizer_class="PreTrainedTokenizerFast"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_are_transformers(pair, name):
    """Reddens where blocks are trimmed otherwise, JSON escaped, or a variable left out."""
    ours, theirs = pair
    ours.chat_template = theirs.chat_template = TEMPLATES[name]
    refused = 0
    for chat in CHATS:
        for tools in (None, TOOLS):
            for generation in (True, False):
                try:
                    expected = theirs.apply_chat_template(chat, tools=tools, tokenize=False,
                                                          add_generation_prompt=generation)
                except Exception as error:  # jinja2's TemplateError.
                    with pytest.raises(UserError) as caught:
                        render_chat(ours, chat, generation, variables={"tools": tools})
                    assert str(error).replace("\n", " ") in str(caught.value) and "\n" not in str(caught.value)
                    refused += 1
                    continue
                text = render_chat(ours, chat, generation, variables={"tools": tools})
                assert text == expected
                if generation and tools is None:
                    assert ours.encode_with_specials(text).tolist() == theirs.apply_chat_template(
                        chat, add_generation_prompt=True).input_ids
    assert refused == (8 if name == "gemma" else 0)


def render(template, messages=({"role": "user", "content": "hello"},)):
    tokenizer = ByteTokenizer(True)
    tokenizer.chat_template = template
    return render_chat(tokenizer, list(messages))


@pytest.mark.parametrize("template", [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages[0].__class__.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ raise_exception.__globals__['sys'].exit(3) }}",
    "{{ ''['__class__']['__base__'] }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(namespace) }}{{ namespace.__init__.__globals__['x'] }}",
    "{{ (messages | map(attribute='__class__') | list)[0].__name__.__len__() }}",
    "{{ self.__init__.__globals__['__builtins__'] }}",
    "{% for key in strftime_now.__code__.co_consts %}{{ key }}{% endfor %}",
    "{{ messages.append(1) }}", "{{ messages[0].update(role='x') }}", "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}", "{{ undefined_function() }}", "{{ messages[7].role }}", "{{ 1 // 0 }}", "{{ 'a' + 1 }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{% for message in messages %}", "{{ 1 2 }}",
])
def test_escapes_and_errors_are_told_in_one_line(template):
    with pytest.raises(UserError, match="^the chat template ") as caught:
        render(template)
    assert "\n" not in str(caught.value)
    assert render("{{ messages[0].content }}") == "hello"


@pytest.mark.parametrize("template", ["{{ ''.__class__ }}", "{{ lipsum.__globals__ }}", "{{ messages.__class__ }}",
                                      "{{ messages | attr('__class__') }}", "{{ '{0.__class__}'.format(messages) }}"])
def test_what_is_out_of_reach_shows_as_nothing(template):
    try:
        assert render(template) == ""
    except UserError as error:
        assert "unsafe" in str(error)


@pytest.mark.parametrize("template, message", [
    ("{{ range(10 ** 9) | list }}", "Range too big"),
    ("{{ 'a' * 10 ** 10 }}", "too much memory"),
    ("{% set x = namespace(s='aaaaaaaa') %}{% for a in range(60) %}{% set x.s = x.s ~ x.s %}{% endfor %}{{ x.s }}",
     "too much memory"),
    ("{% for a in range(90000) %}{{ 'a' * 1000 }}{% endfor %}", "writes more than 4000000 characters"),
    ("{{ '%1000000000d' % 1 }}", "too much memory"),
])
def test_what_takes_too_much_is_stopped(template, message):
    with pytest.raises(UserError, match=message):
        render(template)
    assert render("{{ messages[0].content }}") == "hello"


def test_what_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(chat_templates, "_MAX_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(UserError, match="takes more than"):
        render("{% set r = range(100000) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}")
    assert time.monotonic() - start < 3
    assert render("{{ messages[0].content }}") == "hello"


def test_a_template_keeps_nothing_for_the_next():
    assert render("{% set secret = 5 %}{{ secret }}") == "5" and render("{{ secret }}") == ""


def test_without_a_template_or_messages():
    with pytest.raises(UserError, match="has no chat_template"):
        render(None)
    with pytest.raises(UserError, match="no messages"):
        render("x", messages=())
    with pytest.raises(UserError, match="must be JSON"):
        render("x", messages=[{"role": object()}])


def test_without_jinja(monkeypatch):
    monkeypatch.setattr(chat_templates.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs jinja2: pip install -e '.\[interop\]'"):
        render("x")
