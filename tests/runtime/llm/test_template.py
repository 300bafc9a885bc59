import pytest

from storm_edge.runtime.llm.template import ChatTemplate, TemplateFault

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
