"""What `generate`, `score`, `tokenize` and `detokenize` take, and what they say to the rest."""

import numpy as np
import pytest

from tfllm.errors import UserError


def test_one_prompt_gives_one_answer_and_a_list_a_list(gpt):
    one = gpt.generate("one two")
    assert gpt.generate(["one two"]) == gpt.generate(("one two",)) == [one]
    assert one.text == " three four five six seven eight nine ten"


def test_no_prompts_give_no_answers(gpt):
    assert gpt.generate([]) == gpt.score([], []) == gpt.tokenize([]) == []
    with pytest.raises(UserError, match="could be one text or a list of none"):
        gpt.detokenize([])


def test_a_list_is_one_value_per_prompt(gpt):
    both = gpt.generate(["one two", "你"], max_new_tokens=[2, 60], stop=[[], ["今天"]])
    assert [row.num_tokens for row in both] == [2, 7]
    assert both[1].text == "好，世界。"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": 3}, "prompt must be a str or a list of them, got int"),
        ({"prompt": b"one"}, "prompt must be a str or a list of them, got bytes"),
        ({"prompt": ["one", None]}, "prompt must hold str: number 1 is NoneType"),
        ({"prompt": "\ud800"}, "prompt must be valid Unicode: number 0"),
        ({"temperature": "hot"}, "temperature must be a number, got 'hot'"),
        ({"temperature": True}, "temperature must be a number, got True"),
        ({"top_k": 2.5}, "top_k must be a whole number, got 2.5"),
        ({"seed": 2**63}, "seed must fit in int64, got 9223372036854775808"),
        ({"max_new_tokens": 2**31}, "max_new_tokens must fit in int32"),
        ({"max_new_tokens": [1, 2]}, "max_new_tokens has 2 values for 1 rows"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "At most 4 stop strings, got 5"),
        ({"stop": [1]}, "stop must hold str: number 0 is int"),
    ],
)
def test_a_wrong_argument_of_generate_is_named(gpt, arguments, words):
    with pytest.raises(UserError, match=words):
        gpt.generate(**{"prompt": "one"} | arguments)


def test_as_many_completions_as_prompts(gpt):
    with pytest.raises(UserError, match="One row needs one of each, got 2 prompt, 1 completion"):
        gpt.score(["a", "b"], ["c"])
    with pytest.raises(UserError, match="completion must be a str or a list of them, got int"):
        gpt.score(["a"], 1)


def test_numbers_of_numpy_are_numbers(gpt):
    rows = gpt.generate(
        ["one"], temperature=np.float32(0), top_k=np.int64(1), max_new_tokens=[np.int32(2)]
    )
    assert rows[0].num_tokens == 2


def test_tokens_are_those_of_the_tokenizer_and_come_back(gpt, tokenizer, texts):
    ids = gpt.tokenize([*texts, ""])
    assert ids == tokenizer.encode_batch([*texts, ""])
    assert gpt.detokenize(ids) == [*texts, ""]


def test_control_tokens_and_padding_have_no_text(gpt, tokenizer):
    ids = tokenizer.encode("a cat")
    assert gpt.detokenize([[tokenizer.bos_id, *ids, tokenizer.eos_id, -1, 10**6]]) == ["a cat"]


def test_a_model_without_a_preprocessor_says_so(new_model):
    model = new_model("gpt", preprocessor=False, num_layers=1, hidden_dim=8)
    for ask in (
        lambda: model.generate("one"),
        lambda: model.score(["one"], ["two"]),
        lambda: model.tokenize(["one"]),
        lambda: model.detokenize([[1]]),
    ):
        with pytest.raises(UserError, match="has no preprocessor, so it cannot read or write text"):
            ask()


def test_one_text_gives_one_answer_and_a_list_a_list(gpt):
    assert gpt.score(["a cat"], [" is"]) == [gpt.score("a cat", " is")]
    ids = gpt.tokenize("a cat")
    assert gpt.tokenize(["a cat"]) == [ids]
    assert gpt.detokenize([ids]) == [gpt.detokenize(ids)] == ["a cat"]
