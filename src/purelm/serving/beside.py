"""Work beside the engine: in a thread, one at a time, within the limits of waiting and time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request

from purelm.serving.errors import ApiError, busy, stopping
from purelm.serving.event_stream import run_unless_gone
from purelm.serving.served import Served

_Result = TypeVar("_Result")


async def compute(request: Request, work: Callable[[], _Result]) -> _Result | None:
    """What `work` gives; None where the client went away before it began, or while it ran.

    Raises ApiError 429 where too many wait, 503 where the server stops, 504 where the time is over.
    """
    served: Served = request.app.state.served
    if served.waiting >= served.limits.waiting:
        raise busy("too many requests are waiting")
    served.waiting += 1
    try:
        async with asyncio.timeout(served.limits.seconds):
            return await run_unless_gone(_in_turn(served, work), request.receive)
    except TimeoutError as error:
        raise ApiError(504, "the answer was not finished within the time that a request may take",
                       code="deadline") from error
    finally:
        served.waiting -= 1


async def _in_turn(served: Served, work: Callable[[], _Result]) -> _Result:
    await served.working.acquire()
    if served.stopping:
        served.working.release()
        raise stopping()
    running = asyncio.get_running_loop().run_in_executor(None, work)
    # Released when the thread is done, as it cannot be stopped where nobody waits any more.
    running.add_done_callback(lambda done: (served.working.release(), done.cancelled() or done.exception()))
    return await asyncio.shield(running)
