"""What the server counts, and the page that Prometheus reads."""

import re
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf

from tfllm.serving import Client, RestOptions, Server, ServingError, metrics, monitoring
from tfllm.serving.batching_parameters import BatchingParameters

PATH = "/monitoring/prometheus/metrics"


@pytest.fixture(scope="module")
def server(echo, vec_versions, grades, tmp_path_factory):
    folder = tmp_path_factory.mktemp("writer")
    model = Writer()
    tf.saved_model.save(model, str(folder / "1"), signatures={"generate": model.generate})
    models = {"echo": echo, "vec": vec_versions, "grades": grades, "writer": folder}
    with Server(models, port=0, rest_port=0) as server:
        server.wait_until_available(120)
        yield server


class Writer(tf.Module):
    """Tells of 3, 4, 5, … tokens."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="prompt")])
    def generate(self, prompt):
        return {"num_tokens": tf.range(tf.size(prompt)) + 3}


@pytest.fixture
def sample(server, ask):
    """The value of a line of the page, 0 if there is none."""

    def sample(line):
        page = ask(server.rest_port, "GET", PATH)[1].decode()
        found = re.search(rf"^{re.escape(line)} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    return sample


def grown(sample, line, act):
    before = sample(line)
    act()
    return sample(line) - before


def labelled(name, **labels):
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


@pytest.fixture
def predict(server, ask):
    def predict(document=None, model="echo"):
        document = {"instances": [1, 2, 3]} if document is None else document
        return ask(server.rest_port, "POST", f"/v1/models/{model}:predict", document)

    return predict


def test_requests_are_counted_by_model_and_status(sample, predict):
    ok = labelled(":tensorflow:serving:request_count", model_name="echo", status="OK")
    invalid = ok.replace("OK", "INVALID_ARGUMENT")

    assert grown(sample, ok, predict) == 1
    assert grown(sample, invalid, lambda: predict(b"{")) == 1


def test_models_that_are_not_served_share_one_label(sample, predict):
    line = labelled(":tensorflow:serving:request_count", model_name="", status="NOT_FOUND")

    assert grown(sample, line, lambda: [predict(model=f"m{i}") for i in range(3)]) == 3
    assert sample(line.replace('""', '"m1"')) == 0


@pytest.mark.parametrize(("api", "entrypoint"), [("predict", "REST"), ("Predict", "GRPC")])
def test_the_time_of_requests_is_a_histogram(server, sample, predict, api, entrypoint):
    def act():
        if entrypoint == "REST":
            predict()
            predict(b"{")  # refusals are not timed
            return
        with Client(f"127.0.0.1:{server.port}", "echo", timeout_s=120) as client:
            client.predict({"x": np.ones([1], np.float32)})

    labels = {"model_name": "echo", "API": api, "entrypoint": entrypoint}
    bucket = labelled(":tensorflow:serving:request_latency_bucket", **labels, le="+Inf")
    count = labelled(":tensorflow:serving:request_latency_count", **labels)
    total = labelled(":tensorflow:serving:request_latency_sum", **labels)

    assert grown(sample, bucket, act) == 1
    assert grown(sample, count, act) == 1
    assert 10 < grown(sample, total, act) < 20e6  # microseconds


def test_requests_over_grpc_are_counted(server, sample):
    def act():
        with (
            Client(f"127.0.0.1:{server.port}", "vec", timeout_s=120) as client,
            pytest.raises(ServingError),
        ):
            client.predict({}, "zzz")

    status = grpc.StatusCode.FAILED_PRECONDITION.name
    line = labelled(":tensorflow:serving:request_count", model_name="vec", status=status)
    assert grown(sample, line, act) == 1


def test_classify_is_counted(server, sample, ask):
    def act():
        path = "/v1/models/grades:classify"
        assert ask(server.rest_port, "POST", path, {"examples": [{}]})[0] == 200

    labels = {"model_name": "grades", "API": "classify", "entrypoint": "REST"}
    line = labelled(":tensorflow:serving:request_latency_count", **labels)
    assert grown(sample, line, act) == 1


def test_questions_are_counted_beside_requests(server, sample, ask):
    status = labelled(":tensorflow:serving:request_count", model_name="echo", status="OK")
    labels = {"model_name": "echo", "API": "", "entrypoint": "REST"}
    time = labelled(":tensorflow:serving:request_latency_count", **labels)
    malformed = labelled(
        ":tensorflow:serving:request_count", model_name="", status="INVALID_ARGUMENT"
    )

    def get(path):
        return lambda: ask(server.rest_port, "GET", path)

    for line in status, time:
        assert grown(sample, line, get("/v1/models/echo")) == 1
        assert grown(sample, line, get("/v1/models/echo/metadata")) == 1
    assert grown(sample, malformed, get("/v1/models/echo:predict")) == 1


def test_the_time_of_runs_is_a_histogram(sample, predict):
    labels = {"model_name": "echo", "API": "Predict", "runtime": "TF1"}
    line = labelled(":tensorflow:serving:runtime_latency_count", **labels)

    assert grown(sample, line, predict) == 1


def test_runs_of_graphs_are_counted(sample, predict):
    assert grown(sample, ":tensorflow:core:graph_runs{}", predict) == 1


def test_rows_are_counted_by_signature(sample, predict):
    labels = {"model_name": "echo", "signature_name": "serving_default"}

    assert grown(sample, labelled(":tfllm:serving:request_rows_sum", **labels), predict) == 3
    assert grown(sample, labelled(":tfllm:serving:request_rows_count", **labels), predict) == 1
    assert grown(sample, labelled(":tfllm:serving:time_to_answer_count", **labels), predict) == 1


def test_generated_tokens_are_counted(sample, predict):
    line = labelled(":tfllm:serving:tokens_generated", model_name="writer")
    document = {"signature_name": "generate", "instances": ["a", "b", "c"]}

    assert grown(sample, line, lambda: predict(document, "writer")) == 3 + 4 + 5


def test_batches_and_the_wait_for_them_are_counted(echo, ask):
    parameters = BatchingParameters(
        max_batch_size=4, allowed_batch_sizes=(4,), thread_pool_name="counted"
    )
    with Server({"echo": echo}, port=0, rest_port=0, batching=parameters) as server:
        server.wait_until_available(120)
        answer = ask(server.rest_port, "POST", "/v1/models/echo:predict", {"instances": [1, 2, 3]})
        page = ask(server.rest_port, "GET", PATH)[1].decode().splitlines()

    assert answer[0] == 200
    pool = {"thread_pool_name": "counted"}
    latency = ":tensorflow:serving:batching_session:queuing_latency_count"
    assert f"{labelled(latency, **pool)} 1" in page
    assert f"{labelled(':tfllm:serving:batch_rows_sum', **pool)} 3" in page
    assert f"{labelled(':tfllm:serving:batch_requests_sum', **pool)} 1" in page
    assert f"{labelled(':tfllm:serving:padding_rows', **pool)} 1" in page


def test_the_page_is_in_prometheus_text_format(server, ask, predict):
    predict()
    page = ask(server.rest_port, "GET", PATH)[1].decode()

    name, value = r"[a-zA-Z_:][a-zA-Z0-9_:]*", r"[0-9.e+]+"
    labels = r'\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*"(?:,(?!\}))?)*\}'
    kind = "(counter|gauge|histogram)"
    for line in page.splitlines():
        assert re.fullmatch(rf"# TYPE {name} {kind}|{name}{labels} {value}", line)
    assert page.endswith("\n")


@pytest.mark.parametrize("path", ["/metrics", None])
def test_the_path_of_the_metrics_can_be_chosen(echo, ask, path):
    with Server({"echo": echo}, port=0, rest_port=0, rest=RestOptions(metrics_path=path)) as server:
        assert ask(server.rest_port, "GET", PATH)[0] == 404
        assert ask(server.rest_port, "GET", "/metrics")[0] == (200 if path else 404)


# The registry by itself.


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(monitoring, "_metrics", {})


@pytest.mark.usefixtures("registry")
def test_a_histogram_counts_what_is_at_most_the_limit():
    sizes = monitoring.Histogram("/a/sizes", "kind", limits=[1, 2.5])
    for size in (0.5, 1, 2, 3):
        sizes.add('x"\\\n', value=size)

    kind = r'kind="x\"\\\n"'
    assert monitoring.page().splitlines() == [
        "# TYPE :a:sizes histogram",
        f':a:sizes_bucket{{{kind},le="1"}} 2',
        f':a:sizes_bucket{{{kind},le="2.5"}} 3',
        f':a:sizes_bucket{{{kind},le="+Inf"}} 4',
        f":a:sizes_sum{{{kind}}} 6.5",
        f":a:sizes_count{{{kind}}} 4",
    ]
    assert sizes.count('x"\\\n') == 4


@pytest.mark.usefixtures("registry")
def test_threads_count_every_one():
    counter = monitoring.Counter("/a/count")
    threads = [
        threading.Thread(target=lambda: [counter.add() for _ in range(5_000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counter.value() == 20_000


@pytest.mark.usefixtures("registry")
def test_a_name_is_given_once():
    monitoring.Counter("/a/count")

    with pytest.raises(ValueError, match="there is a metric /a/count already"):
        monitoring.Counter("/a/count")


def test_the_buckets_are_the_stock_servers():
    limits = metrics.REQUEST_LATENCY._limits

    assert (len(limits), limits[0], limits[1]) == (33, 10, 18)
