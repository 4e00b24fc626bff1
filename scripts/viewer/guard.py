"""Who may ask: nobody but a browser on this machine that was given the link.

Any page on the web can make a browser send requests to this machine, and can give this machine a
name of its own (DNS rebinding). So the host's name, the method, the asking page and a secret are
checked before anything else is done.
"""

import hmac
from urllib.parse import parse_qs, quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OWN_PAGES = ("none", "same-origin")  # typed or opened by the user, or asked by our own page
# OpenSeadragon adds this one rule to the page, which hides an outline on touch screens.
_ITS_STYLE = "'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' {_ITS_STYLE}; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """Lets a request through to the application, or answers it itself.

    Args:
        app: what is guarded.
        token: the secret in the link.
        port: where the server listens, on the loopback interface.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app = app
        self._token = token
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        # Cookies know no ports: two viewers on one machine need two names.
        self._cookie = f"tnet-view-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; anything but HTTP is closed."""
        if scope["type"] != "http":
            await send({"type": f"{scope['type']}.close"})
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._refusal(scope) or self._welcome(scope)
        await (answer or self._app)(scope, receive, sealed)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return why a request is not even listened to."""
        headers = Headers(scope=scope)
        if headers.get("host", "").lower() not in self._hosts:
            return _text(400, "this host name is not the viewer's")
        if scope["method"] not in ("GET", "HEAD"):
            return _text(405, "the viewer only shows: GET and HEAD", allow="GET, HEAD")
        if headers.get("sec-fetch-site", "none") not in _OWN_PAGES:
            return _text(403, "another page may not ask the viewer; open the link in a new tab")
        return None

    def _welcome(self, scope: Scope) -> Response | None:
        """Turn the link's secret into a cookie; refuse who has neither."""
        query = scope["query_string"].decode("latin-1")
        tokens = parse_qs(query).get("token", [])
        if any(self._is_token(token) for token in tokens):
            return self._with_cookie(scope["path"])
        if self._is_token(self._sent_cookie(scope)):
            return None
        return _text(401, "open the link that tnet view printed; it holds the key to this viewer")

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), self._token.encode())

    def _sent_cookie(self, scope: Scope) -> str:
        return cookie_parser(Headers(scope=scope).get("cookie", "")).get(self._cookie, "")

    def _with_cookie(self, path: str) -> Response:
        # Two slashes at the start would name another host.
        place = "/" + quote(path.lstrip("/"))
        answer = Response(status_code=303, headers={"location": place})
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
        return answer


def _text(status: int, sentence: str, **headers: str) -> Response:
    return PlainTextResponse(f"{sentence}\n", status, headers)
