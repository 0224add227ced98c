"""lm-eval over gRPC on tasks made from local files, against our own evaluators."""

import json
import math

import pytest
import tensorflow as tf

lm_eval = pytest.importorskip("lm_eval")

from lm_eval.tasks import TaskManager  # noqa: E402

from tfllm import contract, evaluators  # noqa: E402
from tfllm.errors import UserError  # noqa: E402
from tfllm.lm_eval_adapter import ServedLM  # noqa: E402
from tfllm.models.text_functions import build  # noqa: E402
from tfllm.serving import Client, Server  # noqa: E402

LONG = "the cat sat on the mat and the dog sat on the log. why not? because! 你好，世界 " * 4
CHOICES = [
    {"prompt": "one two three", "choices": ["four five", "the dog"], "label": 0},
    {"prompt": "a cat is not", "choices": ["green", "a dog", "four"], "label": 2},
    {"prompt": "red green", "choices": ["blue", "why"], "label": 1},
]
TASKS = {
    "local_texts": """
        output_type: loglikelihood_rolling
        doc_to_text: ""
        doc_to_target: "{{text}}"
        metric_list: [{metric: bits_per_byte}, {metric: byte_perplexity}]
    """,
    "local_choices": """
        output_type: multiple_choice
        doc_to_text: "{{prompt}}"
        doc_to_target: label
        doc_to_choice: "{{choices}}"
        metric_list: [{metric: acc}, {metric: acc_norm}]
    """,
    "local_writing": """
        output_type: generate_until
        doc_to_text: "{{prompt}}"
        doc_to_target: "{{target}}"
        generation_kwargs: {until: [" eight", "\\n", "b", "c", "dd"], max_gen_toks: 20}
        metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
    """,
}


@pytest.fixture(scope="module")
def target(gpt, tmp_path_factory):
    """host:port/model of a served GPT."""
    base = tmp_path_factory.mktemp("served") / "gpt"
    functions = build(gpt.text())
    wanted = (contract.SCORE, contract.GENERATE, contract.TOKENIZE, contract.DETOKENIZE)
    module = tf.Module()
    module.weights = [variable.value for variable in gpt.variables]
    signatures = {name: functions[name] for name in wanted}
    tf.saved_model.save(module, str(base / "1"), signatures=signatures)
    with Server([base], port=0) as server:
        server.wait_until_available(120)
        yield f"127.0.0.1:{server.port}/gpt"


@pytest.fixture(scope="module")
def results(target, texts, gpt, tmp_path_factory):
    """What lm-eval says of each task, and the folder of its data."""
    folder = tmp_path_factory.mktemp("tasks")
    written = gpt.generate("one two three four five six", max_new_tokens=20).text
    rows = {
        "local_texts": [{"text": text} for text in [LONG, *texts]],
        "local_choices": CHOICES,
        "local_writing": [
            {"prompt": "one two three four five six", "target": written.split(" eight")[0]},
            {"prompt": "one", "target": "something else"},
        ],
    }
    for name, task in TASKS.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
        (folder / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\n"
            f"dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {folder / 'cache'}}}\n"
            "test_split: test\n" + "\n".join(line.strip() for line in task.splitlines()) + "\n"
        )
    found = lm_eval.simple_evaluate(
        model="tfllm",
        model_args=f"target={target},stride=20",
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
    )
    return found["results"], rows


def test_bits_per_byte_and_perplexity_are_ours(results, target):
    found, rows = results
    address, _, model = target.partition("/")
    texts = [row["text"] for row in rows["local_texts"]]
    with Client(address, model) as client:
        ours = evaluators.language_model(client, texts, stride=20)
    assert found["local_texts"]["bits_per_byte,none"] == pytest.approx(
        ours.metrics["bits_per_byte"], rel=1e-5
    )
    per_byte = 2 ** ours.metrics["bits_per_byte"]
    assert found["local_texts"]["byte_perplexity,none"] == pytest.approx(per_byte, rel=1e-5)
    assert math.isfinite(per_byte)


def test_accuracy_on_choices_is_ours(results, gpt):
    found, _ = results
    ours = evaluators.multiple_choice(gpt, CHOICES)
    assert ours.counts["refused"] == 0
    assert found["local_choices"]["acc,none"] == pytest.approx(ours.metrics["accuracy"])
    normalized = ours.metrics["accuracy_normalized"]
    assert found["local_choices"]["acc_norm,none"] == pytest.approx(normalized)


def test_texts_end_at_the_first_of_many_stop_strings(results):
    found, _ = results
    assert found["local_writing"]["exact_match,none"] == 0.5


class Request:
    def __init__(self, *args):
        self.args = args


def test_log_likelihoods_are_those_of_score_whatever_the_batch(gpt):
    model = ServedLM(gpt, batch_size=2)
    pairs = [("", "one two"), ("one two", " three"), ("one two ", "three"), ("a cat", " is not")]
    found = model.loglikelihood([Request(*pair) for pair in pairs])
    scores = [gpt.score("", "one two"), *gpt.score(["one two"] * 2 + ["a cat"],
                                                   [" three"] * 2 + [" is not"])]  # fmt: skip
    assert [logprob for logprob, _ in found] == pytest.approx(
        [score.logprob for score in scores], abs=1e-4
    )
    assert [greedy for _, greedy in found] == [score.is_greedy for score in scores]


def test_a_context_that_is_too_long_loses_its_beginning(gpt, caplog):
    model = ServedLM(gpt)
    ((logprob, _),) = model.loglikelihood([Request(LONG, " why")])
    ids = gpt.tokenize(LONG.rstrip())
    room = model.context_length - len(gpt.tokenize("  why"))
    kept = gpt.detokenize(ids[-room:])
    assert LONG.rstrip().endswith(kept)
    assert logprob == pytest.approx(gpt.score(kept, "  why").logprob, abs=1e-3)
    assert "1 of 1 contexts were too long" in caplog.text
    (text,) = model.generate_until([Request(LONG, {"until": [], "max_gen_toks": 8})])
    assert len(gpt.tokenize(text)) <= 8


def test_sampling_is_asked_for_by_the_task(gpt):
    model = ServedLM(gpt, seed=3)
    asked = {"until": [], "max_gen_toks": 12, "do_sample": True, "temperature": 5.0}
    found = model.generate_until([Request("one", asked)] * 3)
    expected = gpt.generate(["one"] * 3, max_new_tokens=12, temperature=5.0, seed=[3, 4, 5])
    assert found == [answer.text for answer in expected]
    assert len(set(found)) > 1


def test_arguments_that_the_server_does_not_know_are_refused(gpt):
    with pytest.raises(UserError, match="the task also has num_beams"):
        ServedLM(gpt).generate_until([Request("one", {"until": [], "num_beams": 4})])
    with pytest.raises(UserError, match="HOST:PORT/MODEL, got 'gpt'"):
        ServedLM("gpt")
    with pytest.raises(UserError, match="refused a request: .*too long"):
        ServedLM(gpt).loglikelihood([Request("one", LONG)])
