"""One HTTP call: the key goes to the configured server only, and never into an error text."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from email.message import Message
from typing import IO, Any, NamedTuple

MAX_BODY_BYTES = 10_000_000
RETRY_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
"""The same call may succeed later."""
REFUSED_STATUS = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 405})
"""The address or the key is wrong: no call will succeed."""


class Answer(NamedTuple):
    """What came back: a body, or a reason; ``status`` is 0 when no server answered."""

    status: int
    body: Any
    reason: str
    retry_after_s: float

    @property
    def may_retry(self) -> bool:
        """True when the same call may succeed later."""
        return self.body is None and (self.status in RETRY_STATUS or self.status in (0, 200))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another server: treat it as an error."""

    def redirect_request(
        self,
        req: urllib.request.Request,  # noqa: ARG002 - the base class names them
        fp: IO[bytes],  # noqa: ARG002
        code: int,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        headers: http.client.HTTPMessage,  # noqa: ARG002
        newurl: str,  # noqa: ARG002
    ) -> None:
        """Follow nothing."""
        return


_opener = urllib.request.build_opener(_NoRedirect)


def post_json(url: str, payload: object, *, key: str, timeout_s: float) -> Answer:
    """Send JSON and read JSON; every failure becomes a reason, without the key."""
    request = urllib.request.Request(
        url,
        data=json.dumps(payload).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "traitmill"},
        method="POST",
    )
    if key:
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    try:
        with _opener.open(request, timeout=timeout_s) as response:
            text = response.read(MAX_BODY_BYTES)
    except urllib.error.HTTPError as error:
        said = redact(error.read(2000).decode(errors="replace"), key)
        reason = f"HTTP {error.code} {error.reason}: {' '.join(said.split())[:300]}"
        return Answer(error.code, None, reason, _retry_after_s(error.headers))
    except TimeoutError:
        return Answer(0, None, f"no answer within {timeout_s:g} s", 0.0)
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        return Answer(0, None, redact(f"{type(error).__name__}: {cause}", key), 0.0)
    try:
        return Answer(200, json.loads(text), "", 0.0)
    except ValueError:
        return Answer(200, None, "the answer is not JSON", 0.0)


def why_silent(url: str, *, timeout_s: float) -> str | None:
    """Why nobody answers there; None when somebody does, were it with a refusal."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "traitmill"})
        _opener.open(request, timeout=timeout_s).close()
    except (http.client.InvalidURL, ValueError):  # their text may repeat a password in the address
        return "not an address that can be called"
    except (urllib.error.HTTPError, http.client.HTTPException):
        return None
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except OSError as error:
        return str(error.reason if isinstance(error, urllib.error.URLError) else error)
    return None


def redact(text: str, key: str) -> str:
    """The text without the key."""
    return text.replace(key, "[redacted]") if key else text


def _retry_after_s(headers: Message) -> float:
    """Seconds the server asks to wait; 0 when it names none, or a date."""
    value = headers.get("Retry-After", "")
    return min(float(value), 60.0) if value.isdigit() else 0.0
