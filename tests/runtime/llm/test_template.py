"""Templates, with what runs them: the sandbox and the child process."""

import hashlib
import subprocess
import sys
import time

import pytest

from storm_edge.demo.tokenizer import CHAT_TEMPLATE as DEMO_TEMPLATE
from storm_edge.export.checkpoint.tokenizer import CHAT_TEMPLATE as INIT_TEMPLATE
from storm_edge.runtime.llm.template import KNOWN, ChatTemplate
from storm_edge.runtime.llm.template_limits import TemplateFault, TemplateLimitFault

MESSAGES = [{"role": "user", "content": "hello"}]


def _render(source, **tokens):
    return ChatTemplate(source, tokens).render(MESSAGES)


def test_a_template_sees_messages_tokens_and_that_an_answer_is_wanted():
    source = "{% for m in messages %}{{ m.role }}:{{ m['content'] }}{{ eos_token }}{% endfor %}"
    source += "{% if add_generation_prompt %}>{% endif %}"
    assert _render(source, eos_token="|") == "user:hello|>"


def test_what_templates_of_transformers_rely_on_works():
    assert _render("{% if tools %}x{% endif %}\n  {% for m in messages %}y{% break %}{% endfor %}") == "y"


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ ''|attr('__class__') }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ raise_exception.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_an_attacking_template_is_refused(attack):
    with pytest.raises(TemplateFault) as caught:
        _render(attack)
    assert "\n" not in str(caught.value)


def test_broken_templates_say_how_they_are_broken():
    with pytest.raises(TemplateFault, match="is not valid Jinja"):
        _render("{% if %}")
    with pytest.raises(TemplateFault, match=r"fails \(TemplateError: no system role"):
        _render("{{ raise_exception('no system role') }}")
    with pytest.raises(TemplateFault, match=r"fails \(ZeroDivisionError"):
        _render("{{ 1 / 0 }}")


@pytest.mark.parametrize(
    "attack",
    [
        "{{ 'a' * 2000000000 }}",
        "{{ 7 ** 99999999 }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ lipsum(n=1000000) }}",
        "{% set ns = namespace(x='a') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x[0] }}",
        "{% set a = ['x', 'x'] %}" + 40 * "{% set a = [a, a] %}" + "{{ a }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'a'|center(10**9) }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ range(99999)|batch(1000000000, 'x')|list|length }}",
        "{{ 'a\n'|indent(10**9) }}",
        "{{ messages|tojson(indent=1000000000) }}",
        "{{ ('a' * 1000000)|replace('a', 'b' * 100000) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
        "x" * 1000000,
    ],
)
def test_a_template_that_wants_much_time_or_memory_is_refused(attack):
    begun = time.monotonic()
    with pytest.raises(TemplateLimitFault, match=r"takes more than|writes more than|more than the") as caught:
        _render(attack)
    assert time.monotonic() - begun < 20  # a second of processor time, on a machine that has other things to do
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "attack",
    [
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{{ " + "(" * 9000 + " }}",
        "{{ 1 " + "+ 1" * 9000 + " }}",
    ],
)
def test_a_template_nested_too_deeply_is_refused(attack):
    with pytest.raises(TemplateFault, match="RecursionError"):
        _render(attack)


def test_an_error_of_a_templates_own_making_is_short():
    with pytest.raises(TemplateFault) as caught:
        _render("{{ raise_exception('x' * 10000000) }}")
    assert len(str(caught.value)) < 300


def test_a_template_takes_little_memory_and_one_second_from_the_machine():
    script = (
        "import resource, sys\n"
        "from storm_edge.runtime.llm.template_limits import TemplateFault\n"
        "from storm_edge.runtime.llm.template import ChatTemplate\n"
        "for attack in ('{{ [0] * 500000000 }}', '{{ (range(99999)|list * 99)|sort|map(\"string\")|list }}',\n"
        "    '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}'):\n"
        "    try:\n"
        "        ChatTemplate(attack, {}).render([])\n"
        "        sys.exit('not refused')\n"
        "    except TemplateFault:\n"
        "        pass\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_maxrss, used.ru_utime + used.ru_stime)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    kilobytes, seconds = map(float, done.stdout.split())
    assert kilobytes < 200 * 1024
    assert seconds < 3 * 2


def test_templates_of_storm_init_and_the_demo_are_known_and_need_no_child(monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    for source in (INIT_TEMPLATE, DEMO_TEMPLATE):
        assert hashlib.sha256(source.encode()).hexdigest() in KNOWN
        assert "hello" in _render(source)
    assert len(KNOWN) == 2


def test_equal_shapes_of_a_conversation_are_rendered_once(monkeypatch):
    template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", {})
    assert template.render(MESSAGES) == "hello"
    monkeypatch.setattr(subprocess, "run", None)
    assert template.render(MESSAGES) == "hello"


def test_a_child_takes_no_modules_from_the_folder_it_is_started_in(tmp_path, monkeypatch):
    (tmp_path / "jinja2.py").write_text("raise SystemExit('taken')")
    (tmp_path / "json.py").write_text("raise SystemExit('taken')")
    monkeypatch.chdir(tmp_path)
    assert _render("{{ messages[0].content }}") == "hello"
