"""Many clients at once for a while: is any answer wrong, does the memory grow, is every error one of the API's?"""

from __future__ import annotations

import asyncio
import collections
import json
import pathlib
import random
import statistics
import tempfile
import time
from typing import Any

from benchmarks.first_token import random_run, serving

_DISCONNECTING, _WRONG = 0.2, 0.1
_REQUESTS = 48
# The memory is flat where its last third is at most so much above its second.
_FLAT_MIB = 16.0

WRONG: list[tuple[str, Any, int]] = [
    ("/v1/completions", {"prompt": "x", "temperature": 9}, 400), ("/v1/completions", {"promt": "x"}, 400),
    ("/v1/completions", {"prompt": "x", "model": "other"}, 404), ("/v1/completions", {"prompt": [-1]}, 400),
    ("/v1/completions", {"prompt": "x", "regex": "("}, 400), ("/v1/chat/completions", {"messages": []}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}, 400),
    ("/v1/attention", {"ids": [1], "layer": 99}, 400), ("/v1/nothing", {}, 404), ("/v1/completions", [], 400),
    ("/v1/completions", {"prompt": "x" * 2_000_000}, 413)]


def measure(seconds: float = 60.0, clients: int = 200, workdir: str | None = None) -> list[dict[str, object]]:
    """One row. `workdir` None is a run with random parameters."""
    with tempfile.TemporaryDirectory() as folder:
        with serving(workdir or random_run(pathlib.Path(folder)), "--max_waiting=1000") as server:
            return [asyncio.run(_load(server.url, server.process.pid, seconds, clients)) | {
                "server after it": "alive" if server.process.poll() is None else "dead"}]


async def _load(url: str, process_id: int, seconds: float, clients: int) -> dict[str, object]:
    import httpx

    requests = [_request(number) for number in range(_REQUESTS)]
    counts: collections.Counter[str] = collections.Counter()
    times: list[float] = []
    connections = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=connections) as client:
        wanted = [await _ask(client, *request) for request in requests]
        ends = time.monotonic() + seconds
        memory = asyncio.create_task(_watch(process_id, ends))
        await asyncio.gather(*(_client(client, number, requests, wanted, ends, counts, times)
                               for number in range(clients)))
        used = await memory
        await asyncio.sleep(0.5)
        left = (await client.get("/health")).json()
    third = len(used) // 3
    before, after = statistics.median(used[third:2 * third]), statistics.median(used[2 * third:])
    return {"clients": clients, "seconds": f"{seconds:g}", "answers, all checked": counts["right"] + counts["wrong"],
            "wrong answers": counts["wrong"], "left mid-stream": counts["left"],
            "wrong requests, refused as they should": counts["refused"],
            "untyped or unexpected errors": counts["unexpected"], "answers/s": f"{counts['right'] / seconds:.0f}",
            "median answer, s": f"{statistics.median(times):.2f}" if times else "-",
            "memory, MiB (second third, last)": f"{before:.0f}, {after:.0f}"
            + ("" if after - before <= _FLAT_MIB else " GROWS"),
            "still running after": left["running"] + left["waiting"]}


def _request(number: int) -> tuple[str, dict[str, Any]]:
    """(path, body) of a request that has one right answer."""
    generator = random.Random(number)
    body: dict[str, Any] = {"seed": number, "max_tokens": generator.randrange(4, 80),
                            "temperature": generator.choice([0, 0.7, 1]), "stream": number % 2 == 0}
    if number % 8 == 7:
        return "/v1/attention", {"ids": [generator.randrange(256) for _ in range(20)], "layer": 1, "head": "mean"}
    if number % 4 == 1:
        return "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": f"what is {number}?"}]}
    if number % 4 == 2:
        body |= {"n": 2, "logprobs": 2, "stop": ["th", "e "]}
    if number % 12 == 3:
        body |= {"regex": "[a-z ]{1,30}\\."}
    return "/v1/completions", {**body, "prompt": "the of and " * generator.randrange(1, 40) + str(number)}


async def _client(client: Any, number: int, requests: list[Any], wanted: list[Any], ends: float,
                  counts: collections.Counter[str], times: list[float]) -> None:
    import httpx

    generator = random.Random(number)
    while time.monotonic() < ends:
        kind = generator.random()
        try:
            if kind < _WRONG:
                counts["refused" if await _is_refused(client, *generator.choice(WRONG)) else "unexpected"] += 1
            elif kind < _WRONG + _DISCONNECTING:
                await _leave(client, generator)
                counts["left"] += 1
            else:
                chosen, started = generator.randrange(len(requests)), time.monotonic()
                right = await _ask(client, *requests[chosen]) == wanted[chosen]
                times.append(time.monotonic() - started)
                counts["right" if right else "wrong"] += 1
        except (OSError, ValueError, KeyError, httpx.HTTPError):
            counts["unexpected"] += 1


async def _ask(client: Any, path: str, body: dict[str, Any]) -> Any:
    """What of the answer must always be the same."""
    if not ("stream" in body and body["stream"]):
        answer = await client.post(path, json=body)
        answer.raise_for_status()
        found = answer.json()
        if "choices" not in found:
            return found["weights"]
        return {choice["index"]: ((choice["text"] if "text" in choice else choice["message"]["content"]),
                                  choice["finish_reason"]) for choice in found["choices"]}
    texts: dict[int, str] = collections.defaultdict(str)
    reasons: dict[int, str] = {}
    async with client.stream("POST", path, json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                texts[choice["index"]] += choice["text"] if "text" in choice else choice["delta"].get("content", "")
                reasons[choice["index"]] = choice["finish_reason"]
    return {index: (texts[index], reasons[index]) for index in sorted(texts)}


async def _leave(client: Any, generator: random.Random) -> None:
    """Goes away while an answer is streamed."""
    body = {"prompt": "the", "max_tokens": 500, "stream": True, "logit_bias": {"256": -100}}
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.aiter_lines()
        for _ in range(generator.randrange(1, 6)):
            await anext(lines, None)


async def _is_refused(client: Any, path: str, body: Any, status: int) -> bool:
    answer = await client.post(path, json=body)
    return answer.status_code == status and set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def _watch(process_id: int, ends: float) -> list[float]:
    """MiB that the server has in memory, five times a second."""
    page, used = 4096 / 2**20, []
    while time.monotonic() < ends:
        used.append(int(pathlib.Path(f"/proc/{process_id}/statm").read_text().split()[1]) * page)
        await asyncio.sleep(0.2)
    return used
