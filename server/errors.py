"""What clients are told, in the shape of OpenAI's errors. No message names a path of this machine.

{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from storm_edge.runtime.errors import BusyError, StormError, UsageError, VideoError

log = logging.getLogger(__name__)

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}


@dataclass(eq=False)
class RequestError(Exception):
    """A request that is not answered, and why."""

    status: int
    message: str
    code: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The error as a response of its own."""
        return json_response(self.body(), self.status, self.headers)


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON in ASCII, so that text which is no valid Unicode can be sent back too."""
    return Response(json.dumps(content), status, headers, "application/json")


def told(error: BaseException) -> RequestError:
    """What a client is told of an error; one that is the server's own fault is logged, and told in general words."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, BusyError):
        return RequestError(429, str(error), "queue_full", headers={"Retry-After": "1"})
    if isinstance(error, VideoError):
        return RequestError(400, str(error), "video_unreadable")
    if isinstance(error, UsageError):
        return RequestError(400, str(error), "invalid_value")
    log.error("a request failed: %s", error, exc_info=not isinstance(error, StormError))
    return RequestError(500, "the engine failed at this request; the server's log says how.", "engine_failed")
