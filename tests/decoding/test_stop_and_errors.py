"""Where a text ends, and what is said of a row that cannot be answered."""

import pytest
import tensorflow as tf

from tfllm import contract

KNOWN = " 🙂 wave 👋 party 🎉 done"  # what follows "smile"


def test_the_model_s_own_end_stops_the_text_and_counts_as_a_token(gpt, tokenizer):
    answer = gpt.generate("smile")
    assert answer.text == KNOWN
    assert answer.finish_reason == "stop"
    assert answer.num_tokens == len(tokenizer.encode(KNOWN)) + 1


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["wave"], " 🙂 "),  # begins and ends within tokens
        ([" wave"], " 🙂"),
        (["👋"], " 🙂 wave "),  # four byte tokens
        (["e 👋 p"], " 🙂 wav"),
        (["party", "wave", "zebra"], " 🙂 "),  # the earliest of several
        (["ave", "wave 👋"], " 🙂 w"),  # the one that is complete first
        ([KNOWN], ""),
        ([" "], ""),
        (["DONE"], KNOWN),
        (["done!"], KNOWN),
    ],
)
def test_a_text_ends_before_its_first_stop_string(gpt, stop, text):
    answer = gpt.generate("smile", stop=stop)
    assert answer.text == text
    assert answer.finish_reason == "stop"


def test_stops_of_chinese_belong_to_their_row(gpt):
    answers = gpt.generate(["你好", "你好", "one"], stop=[["天气"], [], ["天气", "six"]])
    assert [answer.text for answer in answers] == [
        "，世界。今天",
        "，世界。今天天气很好，我们去公园。",
        " two three four five ",
    ]


def test_a_stop_ends_the_work_as_well(gpt, tokenizer):
    assert gpt.generate("smile", stop=["🙂"]).num_tokens == len(tokenizer.encode(" 🙂"))


def test_the_longest_stop_is_256_bytes(gpt):
    answers = gpt.generate(["one"] * 2, stop=[["x" * 256], ["", "é" * 128 + "x"]])
    assert answers[0].finish_reason == "stop"
    assert answers[1].finish_reason == "error: a stop string is longer than 256 bytes"


def test_an_emoji_cut_in_two_by_the_limit_is_shown_as_a_replacement_character(gpt):
    answer = gpt.generate("smile", max_new_tokens=2)
    assert answer.text == " \ufffd"
    assert answer.finish_reason == "length"


BAD = [
    ({"max_new_tokens": -1}, "max_new_tokens must be at least 0, got -1"),
    ({"temperature": float("nan")}, "temperature must be finite and at least 0, got nan"),
    ({"temperature": float("inf")}, "temperature must be finite and at least 0, got inf"),
    ({"temperature": -0.5}, "temperature must be finite and at least 0, got -0.5"),
    ({"top_k": -1}, "top_k must be at least 0, got -1"),
    ({"top_p": 2.0}, "top_p must be from 0 to 1, got 2"),
    ({"top_p": -0.5}, "top_p must be from 0 to 1, got -0.5"),
    ({"top_p": float("nan")}, "top_p must be from 0 to 1, got nan"),
    ({"min_p": 1.5}, "min_p must be from 0 to 1, got 1.5"),
    ({"min_p": float("nan")}, "min_p must be from 0 to 1, got nan"),
    ({"repetition_penalty": 0.0}, "repetition_penalty must be finite and above 0, got 0"),
    ({"repetition_penalty": -1.0}, "repetition_penalty must be finite and above 0, got -1"),
    (
        {"repetition_penalty": float("inf")},
        "repetition_penalty must be finite and above 0, got inf",
    ),
    ({"presence_penalty": 2.5}, "presence_penalty must be from -2 to 2, got 2.5"),
    ({"presence_penalty": float("nan")}, "presence_penalty must be from -2 to 2, got nan"),
    ({"frequency_penalty": -2.5}, "frequency_penalty must be from -2 to 2, got -2.5"),
    ({"frequency_penalty": float("-inf")}, "frequency_penalty must be from -2 to 2, got -inf"),
]


def test_each_wrong_setting_is_an_error_of_its_row_and_of_no_other(gpt):
    good = [{"temperature": 1.0, "seed": 3}, {}]
    rows = [good[0], *(settings for settings, _ in BAD), good[1]]
    names = [field.name for field in contract.SAMPLING if field.name != "stop"]
    off = {field.name: field.default for field in contract.SAMPLING}
    columns = {name: [row.get(name, off[name]) for row in rows] for name in names}
    answers = gpt.generate(["one two"] * len(rows), **columns)
    for answer, (_, words) in zip(answers[1:-1], BAD, strict=True):
        assert answer.finish_reason.startswith(f"error: {words}")
        assert answer[0::2] == ("", 0)
        assert answer.logprob == 0
    alone = [gpt.generate("one two", **settings) for settings in good]
    assert [answers[0].text, answers[-1].text] == [answer.text for answer in alone]


def test_the_first_of_several_errors_is_told(gpt):
    answer = gpt.generate("x" * 100, temperature=-1, max_new_tokens=-1)
    assert answer.finish_reason.startswith("error: the prompt is too long: ")


def test_what_the_settings_may_be_at_their_edges(gpt):
    settings = [
        {"temperature": 3.4e38},
        {"temperature": 1e-45},
        {"temperature": 1.0, "top_k": 2**31 - 1, "top_p": 0.0},
        {"temperature": 1.0, "min_p": 1.0},
        {"repetition_penalty": 1e-37},
        {"repetition_penalty": 3.4e38},
        {"presence_penalty": 2.0, "frequency_penalty": 2.0},
        {"presence_penalty": -2.0, "frequency_penalty": -2.0},
    ]
    off = {field.name: field.default for field in contract.SAMPLING}
    names = (
        "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty",
        "frequency_penalty",
    )  # fmt: skip
    columns = {name: [row.get(name, off[name]) for row in settings] for name in names}
    answers = gpt.generate(["one two"] * len(settings), max_new_tokens=4, **columns)
    assert {answer.finish_reason for answer in answers} <= {"stop", "length"}
    best = gpt.generate("one two", max_new_tokens=4).text
    assert [answer.text for answer in answers[1:4]] == [best] * 3


def test_bytes_that_are_no_text_are_answered_in_valid_utf8(gpt):
    text = gpt.text()
    defaults = {
        field.name: tf.constant([field.default], field.dtype) for field in contract.SAMPLING
    }
    prompts = tf.constant([b"\xff\xfe smile", b"\xe4\xbd", b"one two", b"smile"])
    stop = tf.constant([[b"\xff", b"", b"", b"\xf0\x9f"]])
    out = text.generate(prompts, **defaults | {"max_new_tokens": tf.constant([6]), "stop": stop})
    texts = [t.decode("utf-8") for t in out["text"].numpy()]
    assert texts[2] == gpt.generate("one two", max_new_tokens=6).text
    assert texts[3] == gpt.generate("smile", max_new_tokens=6).text  # half an emoji stops nothing
    assert text.score(prompts, prompts[::-1])["error"].numpy().tolist() == [b""] * 4
