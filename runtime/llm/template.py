"""A model's chat template: Jinja from a file that came with the model, so run in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class TemplateFault(Exception):  # noqa: N818 - translated by the caller, who knows the file
    """The template cannot be compiled, was stopped by the sandbox, or failed; the message says which."""


class _Sandbox(ImmutableSandboxedEnvironment):
    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        # Jinja's own answer is an undefined value, which prints as nothing: an attack would look like an empty prompt.
        raise SecurityError(f"access to attribute {attribute!r} of a {type(obj).__name__}")


class ChatTemplate:
    """Compiled template with the conveniences that Hugging Face's templates rely on."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.globals["raise_exception"] = _refuse
        self._special_tokens = dict(special_tokens)
        try:
            self._template: Template = environment.from_string(source)
        except TemplateError as e:
            raise TemplateFault(f"is not valid Jinja ({_line(e)})") from e

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt for `messages` (Hugging Face's form), up to where the answer begins; raises TemplateFault."""
        try:
            return self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=True, **self._special_tokens
            )
        except SecurityError as e:
            raise TemplateFault(f"tries what a template must not ({_line(e)})") from e
        # The template is a program of someone else's: it can fail in every way that Python can.
        except Exception as e:
            raise TemplateFault(f"fails ({type(e).__name__}: {_line(e)})") from e


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
