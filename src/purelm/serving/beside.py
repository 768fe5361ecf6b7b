"""Work beside the engine: in a thread, one of a kind at a time, within the limits of waiting and time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.requests import Request

from purelm.serving.errors import ApiError, busy, stopping
from purelm.serving.event_stream import run_unless_gone
from purelm.serving.served import Served

_Result = TypeVar("_Result")


async def compute(request: Request, work: Callable[[], _Result], *, turn: asyncio.Lock) -> _Result | None:
    """What `work` gives, done when it has the `turn`; None where the client went away first.

    Raises ApiError 429 where too many wait, 503 where the server stops, 504 where the time is over.
    """
    served: Served = request.app.state.served
    if served.waiting >= served.limits.waiting:
        raise busy("too many requests are waiting")
    served.waiting += 1
    try:
        async with asyncio.timeout(served.limits.seconds):
            return await run_unless_gone(_unless_ending(served, _in_turn(turn, work)), request.receive)
    except TimeoutError as error:
        raise ApiError(504, "the answer was not finished within the time that a request may take",
                       code="deadline") from error
    finally:
        served.waiting -= 1


async def _unless_ending(served: Served, work: Any) -> Any:
    working, ending = asyncio.ensure_future(work), asyncio.ensure_future(served.ending.wait())
    try:
        await asyncio.wait((working, ending), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise stopping()
    finally:
        working.cancel()
        ending.cancel()
        await asyncio.gather(working, ending, return_exceptions=True)


async def _in_turn(turn: asyncio.Lock, work: Callable[[], _Result]) -> _Result:
    await turn.acquire()
    # Released when the thread is done, as it cannot be stopped where nobody waits for it any more.
    running = in_thread(work)
    running.add_done_callback(lambda done: (turn.release(), done.exception()))
    return await asyncio.shield(running)


def in_thread(work: Callable[[], _Result]) -> asyncio.Future[_Result]:
    """The result of `work`, computed by a thread that nothing waits for when the process ends."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:  # Of any kind: whoever waits is to get it.
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, future, result, failure)

    threading.Thread(target=run, daemon=True).start()
    return future


def _settle(future: asyncio.Future[Any], result: Any, failure: Exception | None) -> None:
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
