"""The typed client against a real server and a generator that only repeats what it was told."""

import contextlib
import subprocess
import sys
from concurrent import futures

import numpy as np
import pytest
import tensorflow as tf

from tfllm import contract
from tfllm.contract import Generation, Score
from tfllm.errors import UserError
from tfllm.serving import Client, Code, ServedModel, Server, ServingError
from tfllm.serving.metadata import TensorInfo, VersionStatus

GENERATE = contract.GENERATOR_SIGNATURES[contract.GENERATE]


def rows(field):
    return tf.TensorSpec([None, *field.shape], field.dtype, name=field.name)


DEFAULTS = [tf.constant([field.default], field.dtype) for field in contract.SAMPLING]


class Echo(tf.Module):
    """The contract of a generator: the text tells what it was asked for."""

    @tf.function(input_signature=[rows(field) for field in GENERATE.inputs])
    def generate(  # noqa: PLR0913 - the inputs of a signature
        self,
        prompt,
        max_new_tokens=DEFAULTS[0],
        temperature=DEFAULTS[1],
        top_k=DEFAULTS[2],
        top_p=DEFAULTS[3],
        min_p=DEFAULTS[4],
        repetition_penalty=DEFAULTS[5],
        presence_penalty=DEFAULTS[6],
        frequency_penalty=DEFAULTS[7],
        seed=DEFAULTS[8],
        stop=DEFAULTS[9],
    ):
        numbers = (
            max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty,
            frequency_penalty, seed,
        )  # fmt: skip
        told = [
            tf.strings.as_string(n, precision=2 if n.dtype == tf.float32 else -1) for n in numbers
        ]
        stops = tf.strings.reduce_join(stop, axis=1, separator=",")
        is_empty = tf.equal(prompt, "")
        return {
            "text": tf.strings.join([prompt, *told, stops], separator="|"),
            "finish_reason": tf.where(is_empty, "error: empty prompt", "stop"),
            "num_tokens": max_new_tokens,
            "logprob": -temperature,
        }

    @tf.function(
        input_signature=[
            rows(field) for field in GENERATE.inputs if field.name not in contract.LATER_SAMPLING
        ]
    )
    def older(self, prompt, max_new_tokens, *others):
        """`generate` as an earlier version exported it."""
        logprob = -others[0]
        reason = tf.fill(tf.shape(prompt), contract.STOP)
        texts = {"text": prompt, "finish_reason": reason}
        return texts | {"num_tokens": max_new_tokens, "logprob": logprob}

    @tf.function(input_signature=[rows(GENERATE.inputs[0])])
    def plain(self, prompt):
        return {"text": prompt}

    @tf.function(
        input_signature=[
            rows(field) for field in contract.GENERATOR_SIGNATURES[contract.SCORE].inputs
        ]
    )
    def score(self, prompt, completion):
        return {
            "logprob": -tf.cast(tf.strings.length(completion), tf.float32),
            "num_tokens": tf.strings.length(prompt),
            "is_greedy": tf.equal(prompt, completion),
            "error": tf.where(tf.equal(completion, ""), "nothing to score", ""),
        }

    @tf.function(input_signature=score.input_signature)
    def half_score(self, prompt, completion):
        length = tf.strings.length(tf.strings.join([prompt, completion]))
        return {"logprob": -tf.cast(length, tf.float32), "num_tokens": length}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def tokenize(self, text):
        ids = tf.strings.unicode_decode(text, "UTF-8")
        return {
            "token_ids": ids.to_tensor(default_value=contract.PADDING),
            "num_tokens": tf.cast(ids.row_lengths(), tf.int32),
        }

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name="token_ids")])
    def detokenize(self, token_ids):
        ids = tf.RaggedTensor.from_tensor(token_ids, padding=contract.PADDING)
        return {"text": tf.strings.unicode_encode(ids, "UTF-8")}


@pytest.fixture(scope="module")
def server(tmp_path_factory, vec_versions):
    folder = tmp_path_factory.mktemp("served")
    echo = Echo()
    signatures = {
        name: getattr(echo, name)
        for name in (contract.GENERATE, contract.SCORE, contract.TOKENIZE, contract.DETOKENIZE)
    }
    signatures[contract.SERVING_DEFAULT] = echo.plain
    tf.saved_model.save(echo, str(folder / "echo" / "1"), signatures=signatures)
    tf.saved_model.save(
        echo,
        str(folder / "plain" / "1"),
        signatures={"generate": echo.plain, "score": echo.half_score},
    )
    tf.saved_model.save(echo, str(folder / "older" / "1"), signatures={"generate": echo.older})
    (folder / "empty" / "1").mkdir(parents=True)
    models = {name: folder / name for name in ("echo", "plain", "older", "empty")}
    models["vec"] = ServedModel(str(vec_versions), latest=2)
    with Server(models, port=0) as server:
        for model, version in (("echo", 1), ("plain", 1), ("older", 1), ("vec", 2)):
            with Client(f"127.0.0.1:{server.port}", model, version=version) as client:
                client.wait_until_available(120)
        yield server


@pytest.fixture(scope="module")
def connect(server):
    """Makes clients of the server's models."""
    with contextlib.ExitStack() as open_clients:
        yield lambda model, **options: open_clients.enter_context(
            Client(f"127.0.0.1:{server.port}", model, timeout_s=120, **options)
        )


@pytest.fixture(scope="module")
def echo(connect):
    return connect("echo")


def test_one_prompt_gives_one_generation_with_the_contracts_defaults(echo):
    assert echo.generate("né") == Generation(
        "né|64|0.00|0|1.00|0.00|1.00|0.00|0.00|0|,,,", "stop", 64, 0.0
    )


def test_prompts_give_a_list_and_settings_go_to_every_row_or_row_by_row(echo):
    generations = echo.generate(
        ["a", "b"],
        max_new_tokens=[3, 4],
        temperature=0.5,
        top_k=[5, 6],
        top_p=1,
        min_p=(0.25, 0.5),
        repetition_penalty=2,
        presence_penalty=[0.5, -1],
        frequency_penalty=0.75,
        seed=[-(2**63), 2**63 - 1],
        stop=["\n", "END"],
    )

    low, high = -(2**63), 2**63 - 1
    assert [g.text for g in generations] == [
        f"a|3|0.50|5|1.00|0.25|2.00|0.50|0.75|{low}|\n,END,,",
        f"b|4|0.50|6|1.00|0.50|2.00|-1.00|0.75|{high}|\n,END,,",
    ]
    assert [(g.num_tokens, g.logprob) for g in generations] == [(3, -0.5), (4, -0.5)]
    assert [type(value) for value in generations[0]] == [str, str, int, float]


def test_an_export_of_an_earlier_version_goes_on_without_what_it_has_not_got(connect):
    older = connect("older")
    assert older.generate("a", temperature=0.5) == Generation("a", "stop", 64, -0.5)
    assert older.generate(["a", "b"], presence_penalty=0, frequency_penalty=[0.0, 0.0])[1][0] == "b"
    words = "older was exported by an earlier version of tfllm and has no presence_penalty: export "
    with pytest.raises(UserError, match=words):
        older.generate(["a", "b"], presence_penalty=[0.0, 0.5])


def test_one_str_is_one_stop_string(echo):
    assert echo.generate("a", stop="END").text.endswith("|END,,,")


def test_what_is_wrong_with_a_row_is_returned_and_not_raised(echo):
    assert [g.finish_reason for g in echo.generate(["", "a"])] == ["error: empty prompt", "stop"]
    assert echo.score("a", "") == Score(0.0, 1, False, "nothing to score")


def test_no_prompts_give_no_generations(echo):
    assert echo.generate([]) == []
    assert echo.score([], []) == []
    assert echo.tokenize([]) == []


def test_score_is_typed(echo):
    assert echo.score("ab", "ab") == Score(-2.0, 2, True, "")
    assert echo.score(["a", "b"], ["abc", "b"]) == [
        Score(-3.0, 1, False, ""),
        Score(-1.0, 1, True, ""),
    ]
    assert [type(value) for value in echo.score("a", "b")] == [float, int, bool, str]


def test_tokens_go_there_and_back(echo):
    assert echo.tokenize("né") == [110, 233]
    assert echo.tokenize(["abc", "", "中"]) == [[97, 98, 99], [], [20013]]
    assert echo.detokenize([110, 233]) == "né"
    assert echo.detokenize([[97, 98], [], [20013]]) == ["ab", "", "中"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: c.generate(b"x"), "prompt must be a str or a list of them, got bytes"),
        (lambda c: c.generate(["a", 3]), "prompt must hold str: number 1 is int"),
        (lambda c: c.generate("\ud800"), "prompt must be valid Unicode"),
        (lambda c: c.generate("a", max_new_tokens=1.5), "max_new_tokens must be a whole number"),
        (lambda c: c.generate(["a", "b"], top_k=[1]), "top_k has 1 values for 2 rows"),
        (lambda c: c.generate("a", stop=list("abcde")), "At most 4 stop strings, got 5"),
        (lambda c: c.score(["a"], ["b", "c"]), "One row needs one of each, got 1 prompt, 2 compl"),
        (lambda c: c.tokenize(3), "text must be a str or a list of them, got int"),
        (lambda c: c.detokenize([]), "token_ids must not be empty"),
        (lambda c: c.detokenize([1.5]), "token_ids must be whole numbers of 32 bits"),
        (lambda c: c.detokenize([2**31]), "token_ids must be whole numbers of 32 bits"),
        (lambda c: c.detokenize([True]), "token_ids must be whole numbers of 32 bits"),
        (lambda c: c.detokenize([[[1], [2, 3]]]), "token_ids must be whole numbers of 32 bits"),
    ],
)
def test_arguments_that_cannot_be_sent_are_refused_before_sending(call, words):
    with Client("127.0.0.1:1", "echo") as nowhere, pytest.raises(UserError, match=words):
        call(nowhere)


def test_a_model_that_is_no_export_of_ours_is_named(connect):
    with pytest.raises(ServingError, match=r"input size does not match signature"):
        connect("plain").generate("a")
    with pytest.raises(UserError, match=r"signature score has no output error, is_greedy\. Use pr"):
        connect("plain").score("a", "b")


def test_predict_sends_arrays_as_they_are_and_lists_as_the_signature_has_them(connect):
    vec = connect("vec")

    answer = vec.predict({"x": [[1, 2]], "n": [5]}, output_filter=["y", "s"])

    assert answer["y"].tolist() == [[3, 6]]
    assert answer["y"].dtype == np.float32
    assert answer["s"].tolist() == [b"5"]
    with pytest.raises(ServingError, match="Expects arg"):
        vec.predict({"x": np.array([[1, 2]]), "n": [5]})
    with pytest.raises(UserError, match=r"n must hold int32 values: got \[0.5\]"):
        vec.predict({"x": [[1, 2]], "n": [0.5]})


def test_predict_takes_strings_in_every_form(connect):
    vec = connect("vec")

    for text in (["é"], ["é".encode()], np.array(["é"]), np.array(["é"], object)):
        assert vec.predict({"text": text}, "opt")["o"].tolist() == ["é|1.0|7".encode()]
    with pytest.raises(UserError, match="text is not Unicode text: surrogates not allowed"):
        vec.predict({"text": ["\ud800"]}, "opt")
    with pytest.raises(UserError, match="text must hold str or bytes: got int"):
        vec.predict({"text": [1]}, "opt")


def test_a_client_may_ask_for_one_version(connect):
    x, n = np.ones([1, 2], np.float32), np.array([1], np.int32)

    assert connect("vec", version=2).predict({"x": x, "n": n})["y"].tolist() == [[2, 2]]
    assert connect("vec", version=2).metadata().version == 2


def test_metadata_tell_inputs_outputs_and_defaults(connect):
    metadata = connect("vec").metadata()

    assert (metadata.name, metadata.version) == ("vec", 3)
    assert sorted(metadata.signatures) == ["opt", "serving_default"]
    default, opt = metadata.signatures["serving_default"], metadata.signatures["opt"]
    assert default.inputs["x"] == TensorInfo("float32", (None, 2), None)
    assert default.outputs["s"] == TensorInfo("string", (None,), None)
    assert opt.inputs["seed"].default.tolist() == [7]


def test_status_lists_versions(connect):
    assert connect("vec").status() == [
        VersionStatus(3, "AVAILABLE", Code.OK, ""),
        VersionStatus(2, "AVAILABLE", Code.OK, ""),
    ]


@pytest.mark.parametrize(
    ("model", "version", "signature", "code", "words"),
    [
        ("vec", None, "zzz", Code.FAILED_PRECONDITION, "vec has: opt, serving_default."),
        ("vec", 9, "opt", Code.NOT_FOUND, r"the versions: 3 \(AVAILABLE\), 2 \(AVAILABLE\)."),
        (
            "nope",
            None,
            "opt",
            Code.NOT_FOUND,
            r"Latest\(nope\)\. The server at .* knows no version",
        ),
    ],
)
def test_an_error_says_what_there_is_instead(connect, model, version, signature, code, words):
    client = connect(model, version=version)

    with pytest.raises(ServingError, match=words) as refused:
        client.predict({"text": np.array(["a"])}, signature)
    assert refused.value.code == code


def test_waiting_for_a_model_that_failed_says_why(connect):
    with pytest.raises(ServingError, match="version 1 of empty failed to load: Specified") as why:
        connect("empty").wait_until_available(120)
    assert why.value.code == Code.NOT_FOUND


@pytest.mark.parametrize(
    ("model", "version", "words"),
    [
        ("nope", None, "nope is not available after 0.5 s: Could not find any versions"),
        ("vec", 9, "vec is not available after 0.5 s: the server has not seen version 9"),
    ],
)
def test_waiting_gives_up_saying_what_it_saw(connect, model, version, words):
    client = connect(model, version=version)
    with contextlib.suppress(ServingError):  # the first call opens the connection
        client.status()
    with pytest.raises(ServingError, match=words) as refused:
        client.wait_until_available(0.5)
    assert refused.value.code == Code.DEADLINE_EXCEEDED


def test_no_server_is_said_with_the_address():
    with (
        Client("127.0.0.1:1", "gpt", retries=0) as client,
        pytest.raises(ServingError, match="127.0.0.1:1 cannot answer: ") as refused,
    ):
        client.status()
    assert refused.value.code == Code.UNAVAILABLE


def test_a_call_is_repeated_while_no_server_answers(tmp_path):
    (tmp_path / "vec").mkdir()
    first = Server({"vec": tmp_path / "vec"}, port=0).start()
    first.stop()

    with (
        Client(f"127.0.0.1:{first.port}", "vec", retries=50) as client,
        futures.ThreadPoolExecutor(1) as thread,
    ):
        asking = thread.submit(client.status)
        with Server({"vec": tmp_path / "vec"}, port=first.port):
            assert "Could not find any versions of model vec" in str(asking.exception(120))


def test_a_closed_client_says_so():
    client = Client("127.0.0.1:1", "gpt")
    client.close()

    with pytest.raises(ServingError, match="the client is closed"):
        client.status()


@pytest.mark.parametrize(
    "address",
    [
        "localhost:8500",
        "[::1]:8500",
        "10.0.0.7:1",
        "a.b-c.org:65535",
        "http://[::1]:8501",
        "https://localhost:443",
    ],
)
def test_addresses_of_this_form_are_taken(address):
    Client(address, "gpt").close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://localhost:8501/v1", "without a path"),
        ("ftp://localhost:8501", "must have the form host:port"),
        ("localhost", "must have the form host:port"),
        ("localhost:", "must have the form host:port"),
        ("localhost:99999", "must have the form host:port"),
        ("::1:8500", "must have the form host:port"),
        ("localhost:8500/gpt", "must have the form host:port"),
    ],
)
def test_addresses_of_another_form_are_refused(address, words):
    with pytest.raises(UserError, match=words):
        Client(address, "gpt")


def test_one_client_serves_many_threads(echo):
    with futures.ThreadPoolExecutor(8) as threads:
        texts = [g.text for g in threads.map(echo.generate, [f"p{i}" for i in range(50)])]

    assert [text.split("|")[0] for text in texts] == [f"p{i}" for i in range(50)]


def test_a_large_answer_is_received(echo):
    prompt = "x" * 6_000_000

    assert len(echo.generate(prompt).text) > len(prompt)


CLIENT_ONLY = """
import sys
from tfllm.serving import Client
loaded = [m for m in sys.modules if m in (
    "tensorflow_text", "tfllm.serving.server", "tfllm.serving.versions", "tfllm.models")]
sys.exit(str(loaded) if loaded else 0)
"""


def test_importing_the_client_loads_no_server():
    subprocess.run([sys.executable, "-c", CLIENT_ONLY], check=True, timeout=60)


def test_a_name_that_is_not_there_is_an_attribute_error():
    import tfllm.serving

    with pytest.raises(AttributeError, match="has no attribute 'Sever'"):
        tfllm.serving.Sever  # noqa: B018
