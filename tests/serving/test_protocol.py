"""Wrong requests: each is refused with its status, and the field that is wrong is named."""

import json

import pytest

COMPLETION = {"prompt": "x", "max_tokens": 1}
CHAT = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
SCHEMA = {"type": "object", "properties": {}}

WRONG = [
    # route, what is added to a right body, the field that is named
    ("completions", {"temprature": 1}, "temprature"),
    ("completions", {"temperature": 2.1}, "temperature"),
    ("completions", {"temperature": "1"}, "temperature"),
    ("completions", {"temperature": True}, "temperature"),
    ("completions", {"temperature": 10**400}, "temperature"),
    ("completions", {"temperature": "\ud800"}, "temperature"),
    ("completions", {"n": "\ud800"}, "n"),
    ("completions", {"\ud800": 1}, "\\ud800"),
    ("completions", {"n" * 2000: 1}, "n" * 997 + "..."),
    ("completions", {"n": [[[]]]}, "n"),
    ("completions", {"top_p": 0}, "top_p"),
    ("completions", {"top_k": 1.5}, "top_k"),
    ("completions", {"min_p": -0.1}, "min_p"),
    ("completions", {"repetition_penalty": 0}, "repetition_penalty"),
    ("completions", {"frequency_penalty": 3}, "frequency_penalty"),
    ("completions", {"presence_penalty": None, "n": 0}, "n"),
    ("completions", {"n": 33}, "n"),
    ("completions", {"n": 20, "prompt": ["a", "b"]}, "n"),
    ("completions", {"best_of": 2}, "best_of"),
    ("completions", {"max_tokens": 201}, "max_tokens"),
    ("completions", {"max_tokens": 0}, "max_tokens"),
    ("completions", {"logprobs": 21}, "logprobs"),
    ("completions", {"logprobs": True}, "logprobs"),
    ("completions", {"logprobs": 1, "echo": True}, "logprobs"),
    ("completions", {"stop": [""]}, "stop"),
    ("completions", {"stop": ["a"] * 17}, "stop"),
    ("completions", {"stop": [1]}, "stop[0]"),
    ("completions", {"stop": ["a" * 4000, "b" * 97]}, "stop"),
    ("completions", {"seed": 2**63}, "seed"),
    ("completions", {"seed": 1.0}, "seed"),
    ("completions", {"stream": 1}, "stream"),
    ("completions", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("completions", {"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
    ("completions", {"logit_bias": {"a": 1}}, "logit_bias"),
    ("completions", {"logit_bias": {"257": 1}}, "logit_bias"),
    ("completions", {"logit_bias": {"1": 101}}, "logit_bias.1"),
    ("completions", {"suffix": "end"}, "suffix"),
    ("completions", {"store": True}, "store"),
    ("completions", {"prompt": None}, "prompt"),
    ("completions", {"prompt": []}, "prompt"),
    ("completions", {"prompt": 1}, "prompt"),
    ("completions", {"prompt": [1, -1]}, "prompt"),
    ("completions", {"prompt": [257]}, "prompt"),
    ("completions", {"prompt": [10**30]}, "prompt"),
    ("completions", {"prompt": [1.5]}, "prompt[0]"),
    ("completions", {"prompt": ["a", []]}, "prompt[1]"),
    ("completions", {"prompt": [[1], [True]]}, "prompt[1][0]"),
    ("completions", {"prompt": "\ud800"}, "prompt"),
    ("completions", {"prompt": "x" * 257}, "prompt"),
    ("completions", {"regex": "("}, "regex"),
    ("completions", {"regex": "a", "json_schema": SCHEMA}, "json_schema"),
    ("completions", {"json_schema": "{"}, "json_schema"),
    ("completions", {"json_schema": {"type": "integer", "minimum": 1}}, "json_schema"),
    ("completions", {"json_schema": "[" * 9_000}, "json_schema"),
    ("completions", {"messages": []}, "messages"),
    ("chat/completions", {"prompt": "x"}, "prompt"),
    ("chat/completions", {"messages": []}, "messages"),
    ("chat/completions", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("chat/completions", {"messages": [{"content": "x"}]}, "messages[0].role"),
    ("chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ("chat/completions", {"messages": [{"role": "user", "content": "x", "tool_calls": []}]},
     "messages[0].tool_calls"),
    ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
     "messages[0].content[0]"),
    ("chat/completions", {"tools": [{"type": "function"}]}, "tools"),
    ("chat/completions", {"tool_choice": "auto"}, "tool_choice"),
    ("chat/completions", {"top_logprobs": 2}, "top_logprobs"),
    ("chat/completions", {"logprobs": 2}, "logprobs"),
    ("chat/completions", {"max_completion_tokens": 2}, "max_tokens"),
    ("chat/completions", {"response_format": {"type": "json_object"}}, "response_format.type"),
    ("chat/completions", {"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    ("chat/completions", {"modalities": ["audio"]}, "modalities"),
    ("predict", {"input": []}, "input"),
    ("predict", {"input": None}, "input"),
    ("predict", {"input": ["a", 1]}, "input[1]"),
    ("predict", {"input": ["a", " "]}, "input"),
    ("predict", {"inputs": "a"}, "inputs"),
    ("attention", {"text": "x", "ids": [1]}, "ids"),
    ("attention", {"layer": 1}, "text"),
    ("attention", {"text": "x", "layer": 2}, "layer"),
    ("attention", {"text": "x", "head": "most"}, "head"),
    ("attention", {"text": "x", "head": 2}, "head"),
    ("attention", {"text": "x" * 64}, "text"),
]
RIGHT = {"completions": COMPLETION, "chat/completions": CHAT, "predict": {"input": "x"}, "attention": {}}


@pytest.mark.parametrize(("route", "change", "param"), WRONG,
                         ids=[f"{route.split('/')[0]}-{str(change)[:40]}" for route, change, _ in WRONG])
def test_a_wrong_field_is_named(http, route, change, param):
    """Reddens when a field is taken silently, or a mistake is found only by the engine."""
    content = json.dumps({**RIGHT[route], **change}).encode()  # As httpx would refuse half a surrogate pair.
    answer = http.post(f"/v1/{route}", content=content, headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert error["type"] == "invalid_request_error" and error["code"] and "\n" not in error["message"]
    assert not error["message"].startswith((f"{param}: {param} ", f"{param}: {param}:")), error


def test_a_wrong_word_gets_its_right_one(http):
    assert "did you mean 'temperature'?" in http.post("/v1/completions", json={"temprature": 1}).text


@pytest.mark.parametrize("fields", [
    {"user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "temperature": None, "top_k": -1,
     "best_of": 1, "safety_identifier": "x", "prompt_cache_key": "y"},
    {"logit_bias": {"7": 100}, "min_p": 0.1, "repetition_penalty": 1.2, "presence_penalty": 0.5, "min_tokens": 1}])
def test_what_changes_no_answer_or_is_served_is_taken(http, fields):
    answer = http.post("/v1/completions", json={**COMPLETION, **fields})
    assert answer.status_code == 200, answer.text
    if "logit_bias" in fields:
        assert answer.json()["choices"][0]["text"] == "\x07"


@pytest.mark.parametrize(("method", "path", "content", "kind", "status"), [
    ("POST", "/v1/completions", b"{", "application/json", 400),
    ("POST", "/v1/completions", b"[]", "application/json", 400),
    ("POST", "/v1/completions", b'{"prompt": NaN}', "application/json", 400),
    ("POST", "/v1/completions", b"\xff", "application/json", 400),
    ("POST", "/v1/completions", b"[" * 60_000, "application/json", 400),
    ("POST", "/v1/completions", b"9" * 5_000, "application/json", 400),
    ("POST", "/v1/completions", b'{"n": ' + b"[" * 400 + b"]" * 400 + b"}", "application/json", 400),
    ("POST", "/v1/completions", b'{"n": 1e999}', "application/json", 400),
    ("POST", "/v1/completions/", b"{}", "application/json", 404),
    ("POST", "/v1/completions", b"{}", "text/plain", 415),
    ("POST", "/v1/completions", b'{"prompt": "' + b"x" * 70_000 + b'"}', "application/json; charset=utf-8", 413),
    ("GET", "/v1/completions", None, "application/json", 405),
    ("POST", "/v1/embeddings", b"{}", "application/json", 404),
    ("GET", "/static/../app.py", None, "text/plain", 404),
    ("GET", "/static/%2e%2e%2fapp.py", None, "text/plain", 404),
    ("GET", "/static/..%5capp.py", None, "text/plain", 404),
    ("GET", "/static/index.html%00", None, "text/plain", 404)])
def test_what_is_no_request_gets_its_status_in_the_same_shape(http, method, path, content, kind, status):
    answer = http.request(method, path, content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_every_answer_has_the_headers_that_keep_a_page_safe(http):
    for path in ("/", "/health", "/v1/models", "/nothing"):
        headers = http.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"


def test_attention_is_what_each_token_reads(http, server):
    """Reddens when the padding is read, or a row is of another token."""
    ids = list(range(5))
    found = http.post("/v1/attention", json={"ids": ids, "layer": 0, "head": 1}).json()
    assert (found["layers"], found["heads"], len(found["tokens"])) == (2, 2, 5)
    for number, row in enumerate(found["weights"]):
        assert sum(row) == pytest.approx(1, abs=1e-3) and not any(row[number + 1:])
    mean = http.post("/v1/attention", json={"ids": ids, "layer": 0, "head": "mean"}).json()["weights"]
    other = http.post("/v1/attention", json={"ids": ids, "layer": 0, "head": 0}).json()["weights"]
    assert mean[4][0] == pytest.approx((found["weights"][4][0] + other[4][0]) / 2, abs=2e-4)


def test_metrics_count_what_was_asked(http):
    def value(name):
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    asked = 'purelm_requests_total{route="/v1/completions",status="200"}'
    before = {name: value(name) for name in (asked, "purelm_engine_generated_tokens_total",
                                             "purelm_time_to_first_token_seconds_count")}
    http.post("/v1/completions", json={"prompt": "x", "max_tokens": 3, "logit_bias": {"256": -100}})
    assert [value(name) - before[name] for name in before] == [1, 3, 1]
