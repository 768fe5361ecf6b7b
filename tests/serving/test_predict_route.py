"""Runs that give answers, not continuations: /v1/predict, and a dialogue's chat."""

import httpx
import openai
import pytest
from running import LIMITS, running, train_tiny

from purelm.evaluation.answers import answer_new
from purelm.evaluation.dialogue import reply
from purelm.training.load import load_run


def test_classes_are_those_of_predict(tmp_path):
    """Reddens when rows are encoded otherwise than predict.py does, or their order is lost."""
    workdir = train_tiny(tmp_path, task="classification", model={"architecture": "encoder"},
                         rows=[{"text": f"{word} {number}", "label": word} for number in range(20)
                               for word in ("good", "bad")])
    texts = ["good 1", "bad 2", "neither"]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    wanted = answer_new(workdir, text=None, path=str(tmp_path / "texts.txt"))
    with running(workdir) as found, httpx.Client(base_url=found.url, timeout=60) as http:
        about = http.get("/v1/models").json()["data"][0]["purelm"]
        assert about["can"] == ["predict", "attention"] and about["labels"] == ["bad", "good"]
        answer = http.post("/v1/predict", json={"input": texts}).json()
        for number, (row, want) in enumerate(zip(answer["data"], wanted)):
            assert row["index"] == number and row["label"] == want["label"]
            assert row["probability"] == pytest.approx(want["probability"], abs=1e-5)
        assert answer["object"] == "list" and answer["usage"]["prompt_tokens"] == sum(map(len, texts))
        rows = http.post("/v1/predict", json={"input": [{"text": text} for text in texts]}).json()
        assert rows["data"] == answer["data"]
        wrong = http.post("/v1/predict", json={"input": ["good", {"words": "x"}]})
        assert wrong.status_code == 400 and "row 1" in wrong.text and "'text'" in wrong.text
        refused = http.post("/v1/completions", json={"prompt": "x"})
        assert refused.status_code == 400 and refused.json()["error"]["code"] == "unsupported_model"
        many = http.post("/v1/predict", json={"input": ["x"] * (LIMITS.rows + 1)})
        assert many.status_code == 400 and many.json()["error"]["param"] == "input"
        weights = http.post("/v1/attention", json={"text": "good", "layer": 0}).json()["weights"]
        assert all(sum(row) == pytest.approx(1, abs=1e-3) and all(row) for row in weights)


@pytest.mark.slow
def test_texts_are_those_of_predict(tmp_path):
    workdir = train_tiny(tmp_path, task="sequence_to_sequence", model={"architecture": "encoder_decoder"},
                         rows=[{"en": f"one {number}", "de": f"two {number}"} for number in range(40)])
    wanted = answer_new(workdir, text="one 3", path=None, decoding={"max_new_tokens": 8})
    run = load_run(workdir)
    assert run.config.decoding.max_new_tokens > 8  # What is asked below is the run's own length.
    with running(workdir) as found, httpx.Client(base_url=found.url, timeout=60) as http:
        answer = http.post("/v1/predict", json={"input": "one 3"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"][0]["text"].startswith(wanted[0]["text"][:4])


@pytest.mark.slow
def test_a_dialogue_speaks_its_own_format(tmp_path):
    """Reddens when the prompt is not what the run was trained on, or the reply is not cut as predict.py cuts it."""
    rows = [{"turns": [f"what is {number}?", f"it is {number}."]} for number in range(30)]
    workdir = train_tiny(tmp_path, task="dialogue", rows=rows, steps=4)
    turns = [{"speaker": "user", "text": "what is 1?"}, {"speaker": "assistant", "text": "1."},
             {"speaker": "user", "text": "and 2?"}]
    run = load_run(workdir)
    wanted = reply(run, turns, seed=0, temperature=0.0)
    messages = [{"role": turn["speaker"], "content": turn["text"]} for turn in turns]
    with running(workdir) as found:
        with openai.OpenAI(base_url=f"{found.url}/v1", api_key="none", max_retries=0) as client:
            said = client.chat.completions.create(model="tiny", messages=messages, temperature=0)
            assert said.choices[0].message.content == wanted
            about = client.models.retrieve("tiny").purelm
            assert about["can"] == ["chat", "predict", "attention"] and about["chat_format"]["template"] == "dialogue"
            with pytest.raises(openai.BadRequestError, match="system"):
                client.chat.completions.create(model="tiny", messages=[{"role": "system", "content": "x"}, *messages])
            with pytest.raises(openai.BadRequestError, match="cannot be asked for completions"):
                client.completions.create(model="tiny", prompt="x")
