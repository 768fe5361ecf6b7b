"""What goes wrong with a request, in the shape of OpenAI's API."""

from __future__ import annotations

from typing import Any

# "type" of an error by its status.
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error",
          405: "invalid_request_error", 408: "timeout_error", 413: "invalid_request_error",
          415: "invalid_request_error", 429: "rate_limit_error", 500: "server_error", 503: "overloaded_error",
          504: "timeout_error"}
# Of a message, in characters.
_LONGEST = 1000


class ApiError(Exception):
    """An answer that is an error.

    status: of HTTP. message: one line. param: the field of the body that is wrong. code: a name for programs.
    headers: to add to the response.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None,
                 headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code = status, _short(" ".join(message.split())), code
        self.param = None if param is None else _short(param)
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """{"error": {"message", "type", "param", "code"}}."""
        kind = _TYPES[self.status] if self.status in _TYPES else _TYPES[400 if self.status < 500 else 500]
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def _short(text: str) -> str:
    """The text as an answer can hold it: a name or value of the client's may be very long, or half a surrogate pair."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST else text[:_LONGEST - 3] + "..."


def wrong(param: str | None, message: str, *, code: str | None = None) -> ApiError:
    """A field that the client has to put right; a message that begins with its name does not say it twice."""
    if param is not None:
        message = f"{param}: {message.removeprefix(f'{param}: ').removeprefix(f'{param} ')}"
    return ApiError(400, message, param=param, code=code)


def busy(message: str) -> ApiError:
    """Too much is waiting already."""
    return ApiError(429, f"{message}; try again in a moment", code="queue_full", headers={"Retry-After": "1"})


def stopping() -> ApiError:
    """The server goes away."""
    return ApiError(503, "the server is stopping; what it was asked is not finished", code="server_stopping",
                    headers={"Retry-After": "10"})
