"""Jinja's sandbox with the conveniences of Hugging Face's templates. It bounds the output, not time and memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from storm_edge.runtime.llm.template_limits import LARGEST_OUTPUT, MEMORY, TemplateFault, TemplateLimitFault


class _Generation(Extension):
    """What transformers' templates write around an answer, to know it again in training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        # Jinja's own answer is an undefined value, which prints as nothing: an attack would look like an empty prompt.
        raise SecurityError(f"access to attribute {attribute!r} of a {type(obj).__name__}")


def render(source: str, special_tokens: Mapping[str, str], messages: Sequence[Mapping[str, Any]]) -> str:
    """Compile a template and run it on `messages`, up to where the answer begins; raises TemplateFault."""
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
    environment.globals["raise_exception"] = _refuse
    try:
        pieces = environment.from_string(source).generate(
            messages=messages, tools=None, documents=None, add_generation_prompt=True, **special_tokens
        )
        return _joined(pieces)
    except TemplateFault:
        raise
    except MemoryError as e:
        raise TemplateLimitFault(f"takes more than {MEMORY >> 20} MiB") from e
    except SecurityError as e:
        raise TemplateFault(f"tries what a template must not ({_line(e)})") from e
    except TemplateSyntaxError as e:
        raise TemplateFault(f"is not valid Jinja ({_line(e)})") from e
    # The template is a program of someone else's: it can fail in every way that Python can.
    except Exception as e:
        raise TemplateFault(f"fails ({type(e).__name__}: {_line(e)})") from e


def _joined(pieces: Iterator[str]) -> str:
    kept, length = [], 0
    for piece in pieces:
        kept.append(piece)
        length += len(piece)
        if length > LARGEST_OUTPUT:
            raise TemplateLimitFault(f"writes more than {LARGEST_OUTPUT} characters")
    return "".join(kept)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _line(error: Exception) -> str:
    """The error's message in one line; the message may be the template's own, so it is cut."""
    words = " ".join(str(error)[:2000].split())
    return words if len(words) <= 200 else words[:200] + "..."
