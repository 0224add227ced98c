"""An export in a process that has only TensorFlow, against the live model's own methods."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tfllm import contract
from tfllm.export.check import CheckFailed, compare, run_in_fresh_process

PROMPTS = ["one two", "", "你好，世界", "the cat sat on the mat and the dog", "smile 🙂", "x" * 100]
COMPLETIONS = [" three", "你", "。今天", " sat on", " wave", "x"]
SAMPLED = {
    "max_new_tokens": [5, 20, 64, -1, 7, 9],
    "temperature": [1.0, 0.0, 0.7, 1.0, 2.0, 1.0],
    "top_k": [0, 0, 20, 0, 5, 0],
    "top_p": [0.9, 1.0, 0.8, 1.0, 1.0, 1.0],
    "min_p": [0.0, 0.0, 0.0, 0.0, 0.05, 0.0],
    "repetition_penalty": [1.0, 1.3, 1.0, 1.0, 1.1, 1.0],
    "seed": [1, 2, -(2**63), 4, 2**62, 6],
    "stop": [
        ["four", "", "", ""],
        [""] * 4,
        ["园", "气", "", ""],
        [""] * 4,
        ["a", "e", "i", "o"],
        [""] * 4,
    ],
}
ROW_COUNTS = (0, 1, 2, 3, 6)


def generate_requests():
    for count in ROW_COUNTS:
        inputs = {"prompt": PROMPTS[:count]}
        inputs |= {name: values[:count] for name, values in SAMPLED.items()}
        if not count:
            del inputs["stop"]  # an empty list has no second dimension
        yield contract.GENERATE, inputs


REQUESTS = [
    *generate_requests(),
    (contract.SERVING_DEFAULT, {"prompt": PROMPTS}),
    (contract.GENERATE, {"prompt": PROMPTS}),
    (
        contract.GENERATE,
        {"prompt": PROMPTS[:3], "max_new_tokens": [4], "stop": [["", "e", "", ""]]},
    ),
    (contract.SCORE, {"prompt": PROMPTS, "completion": COMPLETIONS}),
    (contract.SCORE, {"prompt": PROMPTS[:1], "completion": COMPLETIONS[:1]}),
    (contract.SCORE, {"prompt": [], "completion": []}),
    (contract.TOKENIZE, {"text": PROMPTS}),
    (contract.TOKENIZE, {"text": []}),
    (contract.DETOKENIZE, {"token_ids": [[260, -1, 300], [1, 2, 10**6], [-5, 262, 263]]}),
]


def warmup_records(folder):
    for record in tf.data.TFRecordDataset(str(folder / contract.WARMUP_FILE)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        yield log.predict_log.request


def plain(values):
    if isinstance(values, list):
        return [plain(value) for value in values]
    return values.decode() if isinstance(values, bytes) else values


def warmup_requests(folder):
    return [
        (
            request.model_spec.signature_name,
            {name: plain(tf.make_ndarray(t).tolist()) for name, t in request.inputs.items()},
        )
        for request in warmup_records(folder)
    ]


@pytest.fixture(scope="session")
def answers(exported):
    """All answers, of one process: of `REQUESTS`, then of the warm-up records."""
    found = run_in_fresh_process(exported, [*REQUESTS, *warmup_requests(exported)])
    return found[: len(REQUESTS)], found[len(REQUESTS) :]


def find(answers, signature, **inputs):
    """The answer to the request with these inputs and no others."""
    (place,) = (i for i, request in enumerate(REQUESTS) if request == (signature, inputs))
    return answers[0][place]


def columns(rows):
    fields = type(rows[0])._fields
    return {field: [getattr(row, field) for row in rows] for field in fields}


@pytest.mark.parametrize("place", range(len(ROW_COUNTS)), ids=map(str, ROW_COUNTS))
def test_sampled_rows_of_any_number_equal_those_of_the_live_model(model, answers, place):
    signature, inputs = REQUESTS[place]
    arguments = {name: values for name, values in inputs.items() if name != "prompt"}
    live = model.generate(inputs["prompt"], **arguments)
    if live:
        expected = columns(live)
        assert {reason.split(":")[0] for reason in expected["finish_reason"]} <= {
            "stop",
            "length",
            "error",
        }
    else:
        expected = {field.name: [] for field in contract.GENERATOR_SIGNATURES[signature].outputs}
    compare([(signature, inputs)], [expected], [answers[0][place]])


def test_what_is_left_out_has_the_contract_s_defaults(model, answers):
    expected = columns(model.generate(PROMPTS))
    assert expected["finish_reason"][-1].startswith("error: the prompt is too long")
    for signature in (contract.SERVING_DEFAULT, contract.GENERATE):
        request = (signature, {"prompt": PROMPTS})
        compare([request], [expected], [find(answers, signature, prompt=PROMPTS)])


def test_a_parameter_of_one_row_serves_all_rows(model, answers):
    _, inputs = request = REQUESTS[len(ROW_COUNTS) + 2]
    expected = columns(model.generate(inputs["prompt"], max_new_tokens=4, stop=["e"]))
    compare([request], [expected], [answers[0][len(ROW_COUNTS) + 2]])


def test_scores_equal_those_of_the_live_model(model, answers):
    inputs = {"prompt": PROMPTS, "completion": COMPLETIONS}
    expected = columns(model.score(PROMPTS, COMPLETIONS))
    assert [error != "" for error in expected["error"]] == [False] * 5 + [True]
    compare([(contract.SCORE, inputs)], [expected], [find(answers, contract.SCORE, **inputs)])
    one = {name: values[:1] for name, values in inputs.items()}
    first = {name: values[:1] for name, values in expected.items()}
    compare([(contract.SCORE, one)], [first], [find(answers, contract.SCORE, **one)])
    none = find(answers, contract.SCORE, prompt=[], completion=[])
    assert none == {name: [] for name in expected}


def test_tokens_are_padded_with_minus_one_and_come_back(model, answers):
    found = find(answers, contract.TOKENIZE, text=PROMPTS)
    ids = model.tokenize(PROMPTS)
    width = max(map(len, ids))
    assert found["num_tokens"] == [len(row) for row in ids]
    assert found["token_ids"] == [row + [-1] * (width - len(row)) for row in ids]
    token_ids = [[260, -1, 300], [1, 2, 10**6], [-5, 262, 263]]
    back = find(answers, contract.DETOKENIZE, token_ids=token_ids)
    assert back == {"text": model.detokenize(token_ids)}
    assert find(answers, contract.TOKENIZE, text=[]) == {"token_ids": [], "num_tokens": []}


def test_warm_up_covers_every_signature_with_every_input_and_runs(exported, answers):
    requests = warmup_requests(exported)
    assert len(answers[1]) == len(requests)
    assert {name for name, _ in requests} == set(contract.GENERATOR_SIGNATURES)
    for (name, inputs), answer in zip(requests, answers[1], strict=True):
        signature = contract.GENERATOR_SIGNATURES[name]
        assert set(inputs) == {field.name for field in signature.inputs}
        assert set(answer) == {field.name for field in signature.outputs}
    reasons = {r for answer in answers[1] for r in np.ravel(answer.get("finish_reason", []))}
    assert any(reason.startswith("error") for reason in reasons)
    assert "length" in reasons


def test_columns_of_different_length_fail_the_request_and_say_so(exported_gpt):
    signatures = tf.saved_model.load(str(exported_gpt)).signatures

    def ask(name, **inputs):
        fields = contract.GENERATOR_SIGNATURES[name].inputs
        given = {field.name: inputs.get(field.name, [field.default]) for field in fields}
        return signatures[name](
            **{field.name: tf.constant(given[field.name], field.dtype) for field in fields}
        )

    with pytest.raises(tf.errors.InvalidArgumentError, match="incompatible shapes"):
        ask(contract.SCORE, prompt=["a"], completion=["b", "c"])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"shapes: \[2\] vs. \[3\]"):
        ask(contract.GENERATE, prompt=["a"] * 3, seed=[1, 2])


def test_a_model_that_is_not_the_exported_one_is_told_apart(model, answers, gpt, lstm):
    other = lstm if model is gpt else gpt
    request = (contract.SERVING_DEFAULT, {"prompt": PROMPTS})
    exported = find(answers, contract.SERVING_DEFAULT, prompt=PROMPTS)
    with pytest.raises(
        CheckFailed,
        match=r"serving_default of the export differs from the live model in \w+, row \d: expec",
    ):
        compare([request], [columns(other.generate(PROMPTS))], [exported])
    near = columns(model.generate(PROMPTS))
    tokens = near["num_tokens"][0]
    near["logprob"][0] += 0.9e-4 * tokens
    compare([request], [near], [exported])
    near["logprob"][0] += 0.4e-4 * tokens
    with pytest.raises(CheckFailed, match="in logprob, row 0"):
        compare([request], [near], [exported])
