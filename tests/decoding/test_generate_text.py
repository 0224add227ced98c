"""Texts of two models that know them by heart: the cached loop against simpler ways."""

import numpy as np
import pytest
import tensorflow as tf

from tfllm import contract

PROMPTS = [
    "one two",
    "",
    "你好，世界",
    "the cat sat on the mat and the dog",
    "smile 🙂",
    "zebra",
    "i",
]


def test_greedy_text_equals_a_loop_that_reads_everything_again_for_each_token(
    model, naive_generate
):
    limits = [64, 64, 64, 64, 64, 7, 1]
    answers = model.generate(PROMPTS, max_new_tokens=limits)
    tokenizer = model.preprocessor.tokenizer
    for prompt, limit, answer in zip(PROMPTS, limits, answers, strict=True):
        ids, logprob = naive_generate(model, prompt, limit)
        assert answer.text == tokenizer.decode(ids)
        assert answer.num_tokens == len(ids)
        assert answer.finish_reason == ("stop" if ids[-1] == tokenizer.eos_id else "length")
        assert answer.logprob == pytest.approx(logprob, abs=1e-4 * len(ids))


# Prompt and settings of rows that fail, that end early and that go on, greedy and sampled.
ROWS = [
    {"prompt": "one two"},
    {"prompt": "", "temperature": 1.0, "seed": 1},
    {"prompt": "x" * 200},
    {"prompt": "你好，世界", "temperature": 0.8, "top_p": 0.9, "seed": 5, "max_new_tokens": 9},
    {"prompt": "the cat sat on the mat and the dog sat"},
    {"prompt": "a cat", "temperature": float("nan")},
    {"prompt": "smile", "temperature": 1.5, "top_k": 20, "seed": 3, "repetition_penalty": 1.2},
    {"prompt": "zebra 🙂", "temperature": 2.0, "min_p": 0.01, "seed": -9, "max_new_tokens": 40},
    {"prompt": "red green", "max_new_tokens": 0},
    {"prompt": "a dog", "presence_penalty": 2.0, "frequency_penalty": 0.5},
    {"prompt": "party", "temperature": 1.5, "seed": 4, "frequency_penalty": -1.0},
    {"prompt": "why not", "temperature": 1.0, "seed": 2**62, "max_new_tokens": 64},
]


def ask(model, rows):
    """`model.generate` of these rows in one batch."""
    fields = {field.name: field.default for field in contract.SAMPLING if field.name != "stop"}
    settings = {name: [row.get(name, off) for row in rows] for name, off in fields.items()}
    return model.generate([row["prompt"] for row in rows], **settings)


def assert_same(answers, expected):
    for got, wanted in zip(answers, expected, strict=True):
        assert got._replace(logprob=0) == wanted._replace(logprob=0)
        assert got.logprob == pytest.approx(wanted.logprob, abs=1e-4 * max(1, wanted.num_tokens))


def test_a_row_gives_the_same_text_alone_and_in_any_batch(model):
    together = ask(model, ROWS)
    reasons = [answer.finish_reason.split(":")[0] for answer in together]
    assert reasons[2] == reasons[5] == "error"
    assert {"stop", "length"} <= set(reasons)
    assert_same(ask(model, ROWS[::-1]), together[::-1])
    assert_same(ask(model, ROWS[3:7]), together[3:7])
    for row, answer in zip(ROWS, together, strict=True):
        assert_same(ask(model, [row]), [answer])


def test_the_same_seed_gives_the_same_text_and_others_give_others(model):
    def sample(*seeds):
        return [
            answer.text
            for answer in model.generate(
                ["if"] * len(seeds), temperature=3.0, max_new_tokens=8, seed=list(seeds)
            )
        ]

    assert sample(7) == sample(7)
    texts = sample(*range(20))
    assert texts[7:8] == sample(7)
    assert len(set(texts)) > 15


@pytest.mark.parametrize("penalty", [1e9, 4.0, 0.2])
def test_a_repetition_penalty_counts_the_prompt_and_all_that_was_generated(
    model, naive_generate, penalty
):
    prompts = ["red green", "a cat", ""]
    answers = model.generate(prompts, repetition_penalty=penalty, max_new_tokens=20)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids, logprob = naive_generate(model, prompt, 20, penalty)
        assert answer.text == model.preprocessor.tokenizer.decode(ids)
        assert answer.logprob == pytest.approx(logprob, abs=1e-4 * len(ids))
    assert answers != model.generate(prompts, max_new_tokens=20)


@pytest.mark.parametrize(("presence", "frequency"), [(2.0, 0.0), (-2.0, 2.0), (0.5, 0.75)])
def test_presence_and_frequency_count_what_was_written_and_not_the_prompt(
    model, naive_generate, presence, frequency
):
    prompts = ["red green red green", "a cat", ""]
    settings = {"presence_penalty": presence, "frequency_penalty": frequency}
    answers = model.generate(prompts, **settings, max_new_tokens=30)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids, logprob = naive_generate(model, prompt, 30, **settings)
        assert answer.text == model.preprocessor.tokenizer.decode(ids)
        assert answer.logprob == pytest.approx(logprob, abs=1e-4 * len(ids))
    assert answers != model.generate(prompts, max_new_tokens=30)


def test_a_logprob_is_the_score_of_the_same_tokens(model, naive_generate, tokenizer):
    prompts = ["one two", "the cat", "你好", "你好，世界", "red green blue", "the"]
    answers = model.generate(prompts, max_new_tokens=5)
    scores = model.score(prompts, [answer.text for answer in answers])
    compared = 0
    for prompt, answer, score in zip(prompts, answers, scores, strict=True):
        # A text may be cut into other tokens than those that it was generated from.
        if tokenizer.encode(answer.text) == naive_generate(model, prompt, 5)[0]:
            compared += 1
            assert score.logprob == pytest.approx(answer.logprob, abs=5e-4)
            assert score._replace(logprob=0) == (0, 5, True, "")
    assert compared >= 3


def test_a_penalty_or_a_temperature_does_not_change_what_logprob_means(model):
    # Both rows choose the best tokens.
    plain, sampled = model.generate(
        ["one two"] * 2, temperature=[0.0, 5.0], top_k=[0, 1], max_new_tokens=9
    )
    assert_same([sampled], [plain])


def test_a_score_is_the_sum_over_the_completion_s_tokens(model, tokenizer):
    prompts, completions = ["a cat is", "", "你"], [" not a cat", "one", "好，世界。"]
    for prompt, completion, score in zip(
        prompts, completions, model.score(prompts, completions), strict=True
    ):
        before = [tokenizer.bos_id, *tokenizer.encode(prompt)]
        after = tokenizer.encode(completion)
        ids = np.array([before + after], "int32")
        x = {
            "token_ids": ids,
            "segment_ids": np.ones_like(ids),
            "positions": np.arange(ids.shape[1])[None],
        }
        logprobs = tf.nn.log_softmax(model(x))[0, len(before) - 1 : -1].numpy()
        expected = logprobs[range(len(after)), after].sum()
        assert score.logprob == pytest.approx(expected, abs=1e-4 * len(after))
        assert score.num_tokens == len(after)
        assert score.is_greedy == (logprobs.argmax(-1) == after).all()


def test_an_empty_completion_scores_nothing(model):
    assert model.score(["a cat", ""], ["", ""]) == [contract.Score(0.0, 0, True, "")] * 2


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_the_context_is_filled_to_the_last_position_and_no_further(new_model, tokenizer, kind):
    model = new_model(kind)  # it knows no text that would be at its end
    # With the begin token: 63, 64 and 65 tokens for 64 positions.
    prompts = ["天" * count for count in (62, 63, 64)]
    assert [len(tokenizer.encode(prompt)) for prompt in prompts] == [62, 63, 64]
    answers = model.generate(prompts, max_new_tokens=9)
    assert [answer.num_tokens for answer in answers] == [2, 1, 0]
    assert answers[1].finish_reason == "length"
    too_long = "error: the prompt is too long: 65 tokens, the model takes 64"
    assert answers[2].finish_reason == too_long
    scores = model.score([*prompts, ""], ["天", "天", "天", "天" * 64])
    assert [score.num_tokens for score in scores] == [1, 1, 0, 64]
    too_long = "the prompt with its completion is too long: 66 tokens, the model takes 65"
    assert [score.error for score in scores] == ["", "", too_long, ""]
    assert scores[2].logprob == 0
    assert not scores[2].is_greedy
    alone = model.score(prompts[0], "天")
    assert scores[0].logprob == pytest.approx(alone.logprob, abs=1e-5)
    assert scores[0]._replace(logprob=0) == alone._replace(logprob=0)


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_a_context_that_is_no_round_number_is_filled_as_well(new_model, naive_generate, kind):
    model = new_model(kind, num_layers=1, hidden_dim=16, max_sequence_length=37)
    for count in (34, 36):
        ids, logprob = naive_generate(model, "天" * count)
        answer = model.generate("天" * count)
        assert answer.num_tokens == len(ids) == 37 - count
        assert answer.logprob == pytest.approx(logprob, abs=1e-3)
    assert model.score(["天" * 36], ["天"])[0].error == ""
    assert model.generate("天" * 37).finish_reason.startswith("error: the prompt is too long: 38")


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_a_model_in_mixed_precision_knows_its_texts_too(request, new_model, kind):
    exact = request.getfixturevalue(kind)
    low = new_model(kind, hidden_dim=exact.backbone.hidden_dim, dtype="mixed_bfloat16")
    low.set_weights(exact.get_weights())
    prompts = ["one two", "你好", "red"]
    found = low.generate(prompts, max_new_tokens=12)
    assert [a.text for a in found] == [a.text for a in exact.generate(prompts, max_new_tokens=12)]


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_zero_rows_give_zero_rows(new_model, kind):
    model = new_model(kind, num_layers=1, hidden_dim=8)
    text = model.text()
    signatures = {
        contract.GENERATE: text.generate,
        contract.BEAM_SEARCH: text.beam_search,
        contract.SCORE: text.score,
        contract.TOKENIZE: text.tokenize,
        contract.DETOKENIZE: text.detokenize,
    }
    for name, function in signatures.items():
        signature = contract.GENERATOR_SIGNATURES[name]
        inputs = {
            field.name: tf.zeros([0, *(n or 0 for n in field.shape)], field.dtype)
            for field in signature.inputs
        }
        outputs = function(**inputs)
        assert {key: (len(value), value.dtype.name) for key, value in outputs.items()} == {
            field.name: (0, field.dtype) for field in signature.outputs
        }
