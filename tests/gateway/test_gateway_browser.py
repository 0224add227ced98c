"""The page in a real browser, before a real server."""

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import browser

pytestmark = pytest.mark.skipif(
    browser.chromium() is None,
    reason="needs a Chromium: apt-get install chromium-headless-shell",
)

PROMPT = "the cat"
CHAT = "document.querySelector('input[value=chat]')"
IS_OVER = "document.querySelector('.facts, .failed') && document.querySelector('#stop').disabled"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser.tab(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@pytest.fixture
def page(tab, running):
    tab.complaints.clear()
    tab.open(f"{running.url}/")
    tab.wait_for("document.querySelector('#model').value === 'gpt'")
    yield tab
    assert tab.complaints == []


def choose(page, mode="completion", **settings):
    page.run(f"document.querySelector('input[value={mode}]').click()")
    for name, value in settings.items():
        page.run(f"document.getElementById({name!r}).value = {value!r}")
    page.run("document.querySelector('#prompt').focus()")


def send(page, prompt):
    page.type(prompt)
    page.press("Enter", "\r")


def texts_of(page, selector):
    return page.run(
        f"return [...document.querySelectorAll({selector!r})].map((each) => each.textContent)"
    )


def test_a_model_without_a_chat_template_is_not_asked_for_chats(tab, start_gateway, server):
    address = f"127.0.0.1:{server.port}"
    tab.complaints.clear()
    tab.open(f"{start_gateway((address, 'gpt'), (address, 'plain')).url}/")
    tab.wait_for("document.querySelector('#model').value === 'gpt'")
    is_shown = "!document.querySelector('#no-chat').hidden"
    assert tab.run(f"return [{is_shown}, {CHAT}.checked, {CHAT}.disabled]") == [False, True, False]
    choose_model = "const m = document.querySelector('#model'); m.value = '{}';"
    choose_model += "m.dispatchEvent(new Event('change'))"
    tab.run(choose_model.format("plain"))
    assert tab.run(f"return [{is_shown}, {CHAT}.checked, {CHAT}.disabled]") == [True, False, True]
    assert tab.run("return document.querySelector('#system-line').hidden")
    tab.run("document.querySelector('[name=probabilities]').checked = false")
    tab.run("document.querySelector('#prompt').focus()")
    send(tab, "hi")
    tab.wait_for(IS_OVER)
    assert texts_of(tab, ".answer")[0].startswith("hihi|")
    tab.run(choose_model.format("gpt"))
    assert tab.run(f"return [{is_shown}, {CHAT}.disabled]") == [False, False]
    assert tab.complaints == []


def test_enter_writes_the_text_of_generate(page, client):
    choose(page, temperature="0", max_tokens="12")
    send(page, PROMPT)
    page.wait_for(IS_OVER)
    right = client.generate([PROMPT], max_new_tokens=12, temperature=0)[0].text
    assert texts_of(page, ".answer") == [PROMPT + right]
    assert "".join(texts_of(page, ".token")) == right
    assert "12 tokens" in texts_of(page, ".facts")[0]


def test_bytes_that_are_no_characters_are_shown_as_generate_says_them(page, client):
    choose(page, temperature="2", seed="5", max_tokens="40")
    send(page, PROMPT)
    page.wait_for(IS_OVER)
    right = client.generate([PROMPT], max_new_tokens=40, temperature=2, seed=5)[0].text
    assert "\ufffd" in right
    assert texts_of(page, ".answer") == [PROMPT + right]


def test_a_token_that_is_pointed_at_tells_its_alternatives(page):
    choose(page, temperature="0", max_tokens="6")
    send(page, PROMPT)
    page.wait_for(IS_OVER)
    page.point_at(".token")
    page.wait_for("!document.querySelector('#tooltip').hidden")
    assert "%" in texts_of(page, "#tooltip caption")[0]
    assert len(texts_of(page, "#tooltip tr")) == 5
    assert len(texts_of(page, "#tooltip tr.chosen")) == 1


def test_arrow_keys_go_through_the_tokens(page):
    choose(page, temperature="0", max_tokens="6")
    send(page, PROMPT)
    page.wait_for(IS_OVER)
    tokens = texts_of(page, ".token")
    page.run("document.querySelector('#answers').focus()")
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert page.run("return document.activeElement.textContent") == tokens[1]
    assert not page.run("return document.querySelector('#tooltip').hidden")
    page.press("Escape")
    assert page.run("return document.querySelector('#tooltip').hidden")


def test_without_probabilities_the_text_is_there_all_the_same(page, client):
    choose(page, temperature="0", max_tokens="12")
    page.run("document.querySelector('[name=probabilities]').click()")
    send(page, PROMPT)
    page.wait_for(IS_OVER)
    right = client.generate([PROMPT], max_new_tokens=12, temperature=0)[0].text
    assert texts_of(page, ".answer") == [PROMPT + right]
    assert texts_of(page, ".token") == []


def test_a_chat_remembers_what_was_said(page):
    choose(page, "chat", temperature="0", max_tokens="8")
    page.run(
        "globalThis.asked = []; const real = fetch;"
        "fetch = (path, more) => { if (more?.body) asked.push(JSON.parse(more.body));"
        " return real(path, more); };"
    )
    for number, prompt in enumerate(["one", "two"], 1):
        send(page, prompt)
        page.wait_for(
            f"document.querySelectorAll('.facts, .failed').length === {number}"
            " && document.querySelector('#stop').disabled"
        )
    said = page.run("return asked[1].messages")
    first = texts_of(page, ".answer")[0]
    assert [message["content"] for message in said] == ["one", first, "two"]
    assert [message["role"] for message in said] == ["user", "assistant", "user"]


def test_settings_are_sent_as_they_are_filled_in(page):
    fields = {"temperature": "0.5", "top_p": "0.9", "top_k": "7", "min_p": "0.01"}
    fields |= {"repetition_penalty": "1.1", "seed": "3", "max_tokens": "4"}
    fields |= {"presence_penalty": "-0.5", "frequency_penalty": "0.25"}
    choose(page, **fields, stop_strings="\\n\nend")
    page.run(
        "const real = fetch; fetch = (path, more) => {"
        " if (more?.body) globalThis.asked = JSON.parse(more.body); return real(path, more); };"
    )
    send(page, PROMPT)
    page.wait_for(IS_OVER)
    asked = page.run("return asked")
    assert {name: float(value) for name, value in fields.items()}.items() <= asked.items()
    assert asked["stop"] == ["\n", "end"]


def test_what_is_refused_is_told_and_can_be_tried_again(page):
    choose(page)
    send(page, "x" * 2000)
    page.wait_for(IS_OVER)
    assert "too long" in texts_of(page, ".failed")[0]
    assert page.run("return document.querySelector('#prompt').value") == "x" * 2000


def test_markup_in_a_text_is_text(page):
    choose(page, max_tokens="2")
    send(page, "<img src=x onerror=alert(1)><b>")
    page.wait_for(IS_OVER)
    assert texts_of(page, ".given") == ["<img src=x onerror=alert(1)><b>"]
    assert texts_of(page, "#answers img, #answers b") == []


def test_markup_cannot_be_made_at_all(tab, running):
    tab.open(f"{running.url}/")
    refused = "try { document.body.innerHTML = '<b>x</b>'; } catch (error) { return error.name; }"
    assert tab.run(refused) == "TypeError"


def test_escape_stops_and_gives_the_slot_back(page):
    choose(page, temperature="1")
    # The answer is stopped as soon as a token of it is seen.
    page.run(
        "new MutationObserver((_, observer) => { if (document.querySelector('.token')) {"
        " observer.disconnect(); document.dispatchEvent(new KeyboardEvent('keydown',"
        " {key: 'Escape', bubbles: true})); } }).observe(document.querySelector('#answers'),"
        " {childList: true, subtree: true})"
    )
    send(page, PROMPT)
    page.wait_for(IS_OVER)
    assert texts_of(page, ".facts")[0].startswith("stopped")
    page.wait_for("(await (await fetch('/metrics')).text()).match(/:running_texts{.*} 0$/m)")


def test_plots_show_what_was_written(page):
    choose(page, max_tokens="8")
    send(page, PROMPT)
    page.wait_for("/\\d/.test(document.querySelector('figure').textContent.split('–').join(''))")
    page.wait_for("document.querySelectorAll('figure path[d*=M]').length >= 3")
    assert texts_of(page, "figcaption b") == [
        "Tokens per second",
        "Texts",
        "First token after",
        "Between tokens",
    ]


def test_tokens_are_told_alike_by_chats_and_completions(page):
    best = {"token": "\ufffd", "bytes": [0xF0, 0x9F], "logprob": -1}
    chat = {"delta": {"content": "x"}, "logprobs": {"content": [{**best, "top_logprobs": [best]}]}}
    name = "bytes:\\xf0\\x9f"
    logprobs = {"tokens": [name], "token_logprobs": [-1], "top_logprobs": [{name: -1}]}
    completion = {"text": "x", "logprobs": logprobs}
    told = [
        page.run(
            "const { piece } = await import('/page/choices.js');"
            f"return piece({json.dumps({'choices': [choice]})})"
        )
        for choice in (chat, completion)
    ]
    token = {"bytes": "\xf0\x9f", "logprob": -1}
    right = {"text": "x", "tokens": [{**token, "alternatives": [token]}], "finishReason": ""}
    assert told == [right, right]


STREAM = (
    'data: {"a": 1}\r\n\r\n: nothing\rdata: one\r\ndata:two 你🙂\r\revent: x\ndata\n\ndata: cut'
)


def test_events_are_the_same_wherever_the_stream_is_cut(page):
    found = page.run(
        "const { EventParser } = await import('/page/events.js');"
        f"const text = {STREAM!r}; const found = new Set();"
        "for (let a = 0; a <= text.length; a++) for (let b = a; b <= text.length; b++) {"
        "  const parser = new EventParser();"
        "  const parts = [text.slice(0, a), text.slice(a, b), text.slice(b)];"
        "  found.add(JSON.stringify(parts.flatMap((part) => parser.push(part))));"
        "} return [...found]"
    )
    assert found == ['["{\\"a\\": 1}","one\\ntwo 你🙂",""]']


@pytest.mark.parametrize(
    ("pieces", "stretches"),
    [
        ([("ab", ["a", "b"])], ["a:a", "b:b"]),
        ([("", ["a"]), ("ab", ["b"])], ["a:a", "b:b"]),
        ([("", ["\xf0\x9f"]), ("🙂!", ["\x99\x82", "!"])], ["🙂:\xf0\x9f|\x99\x82", "!:!"]),
        ([("the cat", [" the", " cat"])], ["the: the", " cat: cat"]),
        ([("a", ["a", "<end>"])], ["a:a"]),
        ([("a", ["<begin>", "a"])], ["a:a"]),
        ([("plain", []), ("b", ["b"])], ["plain:", "b:b"]),
        ([("ab", ["abc"])], ["ab:abc"]),
    ],
    ids=["alone", "held", "parts", "space", "end", "begin", "plain", "stopped"],
)
def test_text_is_cut_where_its_tokens_are(page, pieces, stretches):
    found = page.run(
        "const { Alignment } = await import('/page/alignment.js');"
        "const alignment = new Alignment(); const found = [];"
        f"for (const [text, tokens] of {[list(piece) for piece in pieces]!r})"
        "  found.push(...alignment.add(text, tokens.map((bytes) => ({ bytes }))));"
        "found.push(...alignment.end());"
        "return found.map(({ text, tokens }) =>"
        "  `${text}:${tokens.map(({ bytes }) => bytes).join('|')}`);"
    )
    assert found == stretches


def test_a_quantile_is_that_of_what_was_added_between_two_readings(page):
    found = page.run(
        "const { samples, buckets, quantile, total } = await import('/page/prometheus.js');"
        "const read = (a, b, c) => samples(`# TYPE t histogram\\n"
        't_bucket{m="x\\\\"y",le="1"} ${a}\\nt_bucket{m="x\\\\"y",le="2"} ${b}\\n'
        't_bucket{m="x\\\\"y",le="+Inf"} ${c}\\nt_bucket{m="z",le="1"} 99\\n`);'
        "const labels = { m: 'x\"y' };"
        "const [old, now] = [read(5, 5, 5), read(5, 15, 15)].map((r) => buckets(r, 't', labels));"
        "return [quantile(0.5, old, now), quantile(0.5, now, now), quantile(0.5, now, old),"
        "  total(read(5, 5, 5), 't_bucket', { m: 'z' }), total([], 't', {})];"
    )
    assert found == [1.5, None, None, 99, None]
