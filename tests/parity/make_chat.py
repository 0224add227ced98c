"""Writes what transformers renders of conversations: `python THIS FILE.json`.

The templates are written for this file, in the formats that models of these families read.
"""

import json
import sys
from pathlib import Path

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

TEMPLATES = {
    "chatml": {
        "template": """\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}
        {{- message['content'] + '<|im_end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message['content'] + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
        "bos_token": "",
        "eos_token": "<|im_end|>",
        "special_tokens": ["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
    },
    "llama3": {
        "template": """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {%- if message.role == "assistant" %}
        {%- generation %}
        {{- message['content'] | trim + '<|eot_id|>' }}
        {%- endgeneration %}
    {%- elif message.extra is defined and message.extra is mapping %}
        {{- message.extra | tojson(indent=2) + '<|eot_id|>' }}
    {%- else %}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if tools is not none %}{{ raise_exception('no tools here') }}{% endif %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "special_tokens": [
            "<|begin_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
        ],
    },
    "gemma": {
        "template": """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
{{ raise_exception('System role not supported') }}{% endif %}\
{% for message in messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate') }}{% endif %}\
{% if message['role'] == 'assistant' %}{{ '<start_of_turn>model\\n' }}\
{% generation %}{{ message['content'] | trim + '<end_of_turn>\\n' }}{% endgeneration %}\
{% else %}{{ '<start_of_turn>' + message['role'] + '\\n' + message['content'] | trim \
+ '<end_of_turn>\\n' }}{% endif %}\
{% endfor %}\
{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}""",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "special_tokens": ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
    },
    "mistral": {
        "template": """\
{%- set ns = namespace(users=0) %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message["role"] == "user" %}
        {%- set ns.users = ns.users + 1 %}
        {{- "[INST] " + message["content"] + " [/INST]" }}
    {%- elif message["role"] == "assistant" %}
        {%- generation %}{{- " " + message["content"] | trim + eos_token }}{%- endgeneration %}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
""",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "special_tokens": ["<s>", "</s>", "[INST]", "[/INST]"],
    },
}

CONVERSATIONS = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}],
    [
        {"role": "user", "content": "  What is 2 + 2?\n"},
        {"role": "assistant", "content": " It is 4.\n\nReally."},
        {"role": "user", "content": "你好 🙂"},
        {"role": "assistant", "content": "世界"},
    ],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<b>Why?</b>"},
        {"role": "assistant", "content": "Because."},
        {"role": "user", "content": "No."},
    ],
    [
        {"role": "user", "content": "", "extra": {"ü": [1, "<"], "b": None}},
        {"role": "assistant", "content": "a"},
    ],
]


def parts(template, conversation):
    """What transformers says: rendered, rendered for an answer, the texts of the assistant."""
    variables = {name: template[name] for name in ("bos_token", "eos_token")}

    def render(**options):
        return render_jinja_template(
            [conversation], chat_template=template["template"], **variables, **options
        )

    try:
        (whole,), (spans,) = render(return_assistant_tokens_mask=True)
        (asked,), _ = render(add_generation_prompt=True)
    except jinja2.TemplateError as error:
        return {"error": str(error)}
    return {"whole": whole, "asked": asked, "written": [whole[a:b] for a, b in spans]}


if __name__ == "__main__":
    cases = {
        name: {
            **template,
            "rendered": [parts(template, conversation) for conversation in CONVERSATIONS],
        }
        for name, template in TEMPLATES.items()
    }
    text = json.dumps(
        {"conversations": CONVERSATIONS, "templates": cases}, ensure_ascii=False, indent=1
    )
    Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
