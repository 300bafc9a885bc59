"""The page at /: one file, which may load nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import HTMLResponse, Response

_FILE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Page:
    """The page, and what its own script and style are known by."""

    html: str
    policy: str

    @classmethod
    def read(cls) -> Page:
        """Read the page of this package."""
        html = _FILE.read_text(encoding="utf-8")
        rules = {
            "default-src": "'none'",
            "script-src": _hash("script", html),
            "style-src": _hash("style", html),
            "img-src": "data: blob:",
            "media-src": "blob:",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        return cls(html, "; ".join(f"{name} {value}" for name, value in rules.items()))

    def response(self) -> Response:
        """The page with its policy."""
        return HTMLResponse(self.html, headers={"Content-Security-Policy": self.policy})


def _hash(tag: str, html: str) -> str:
    """The source expression for the one element of this name (Content Security Policy, level 3)."""
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
