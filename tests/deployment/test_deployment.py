"""`tfllm deploy`: that its files say what the exports need, to the programs that read them."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import tensorflow as tf
import yaml

from tfllm import cli
from tfllm.deployment.exported import Exported, read_export
from tfllm.deployment.folder import write_exports
from tfllm.deployment.sizes import Sizes
from tfllm.errors import UserError
from tfllm.serving import BatchingParameters, batch_metrics, monitoring, read_batching_parameters
from tfllm.serving import metrics as _counted_by_the_server  # noqa: F401
from tfllm.serving.config_file import ConfigFile
from tfllm.serving.config_protos import read_monitoring_config
from tfllm.serving.models_file import ModelsFile
from tfllm.serving.states import LabelRule

EXAMPLE = Path(__file__).parents[2] / "deploy"
# What `read_export` says of quickstart/models/gpt, as `make quickstart` leaves it.
QUICKSTART = Exported(
    name="gpt",
    base=Path("quickstart/models/gpt"),
    version=1,
    weights_bytes=3_543_008,
    num_weights=883_855,
    width=128,
    precision="float32",
    context_length=256,
    passes=64,
    warm_rows=4,
    packed=0,
    ragged=("detokenize",),
    tensorflow="2.21.0",
)
LARGE = dataclasses.replace(
    QUICKSTART,
    name="large",
    weights_bytes=2_000_000_000,
    num_weights=2_000_000_000,
    width=2048,
    precision="int8",
    packed=4,
    context_length=2048,
)


@pytest.fixture
def written(tmp_path):
    write_exports(tmp_path / "deploy", [at(tmp_path), at(tmp_path, LARGE)], cpus=8)
    return tmp_path / "deploy"


def at(tmp_path, export=QUICKSTART):
    return dataclasses.replace(export, base=tmp_path / "models" / export.name)


def read_yaml(path):
    return yaml.safe_load(path.read_text())


def texts(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_the_example_in_the_repository_is_what_the_command_writes(tmp_path):
    write_exports(tmp_path / "deploy", [at(tmp_path)])
    assert texts(tmp_path / "deploy") == texts(EXAMPLE)


def test_compose_and_kubernetes_start_the_server_alike(written):
    compose = read_yaml(written / "compose.yaml")["services"]["serving"]
    (pod,) = read_yaml(written / "kubernetes/serving.yaml")["spec"]["template"]["spec"][
        "containers"
    ]
    assert pod["command"] + pod["args"] == compose["entrypoint"] + compose["command"]
    assert {each["name"]: each["value"] for each in pod["env"]} == compose["environment"]
    assert pod["resources"]["limits"] == {"cpu": "8", "memory": compose["mem_limit"][:-1] + "Mi"}
    assert compose["volumes"] == [
        ".:/config:ro",
        "../models/gpt:/models/gpt:ro",
        "../models/large:/models/large:ro",
    ]


def test_every_flag_and_every_value_stands_below_its_reason(written):
    for name, value in (("compose.yaml", "- "), ("batching.config", "")):
        lines = (written / name).read_text().splitlines()
        flags = [i for i, line in enumerate(lines) if re.match(rf' *{value}"?--|\w+ {{', line)]
        assert len(flags) >= 5
        assert all(lines[i - 1].strip().startswith("#") for i in flags)


def test_the_text_files_are_read_by_a_server(written):
    models = ConfigFile(written / "models.config", label_rule=LabelRule.NEW).models
    assert models["gpt"].base_path == "/models/gpt"
    assert (models["large"].versions, models["large"].labels) == ({1}, {"stable": 1})
    assert read_batching_parameters(written / "batching.config") == BatchingParameters(
        max_batch_size=32,
        batch_timeout_micros=3600,
        max_enqueued_batches=4,
        num_batch_threads=2,
        allowed_batch_sizes=(1, 2, 4, 8, 16, 32),
        thread_pool_name="batches",
    )
    monitored = read_monitoring_config(written / "monitoring.config").prometheus_config
    (scraped,) = read_yaml(written / "prometheus/prometheus.yml")["scrape_configs"]
    assert (monitored.enable, monitored.path) == (True, scraped["metrics_path"])


def test_a_promotion_keeps_the_comments_of_models_config(written):
    file = ModelsFile(written / "models.config")
    before = file.path.read_text()
    file.write(file.config)
    assert file.path.read_text() == before


def test_all_metrics_that_are_looked_at_are_the_servers(written):
    batch_metrics.batch_counter("batches")
    page = re.findall(r"# TYPE (\S+) (\w+)", monitoring.page())
    known = {name for name, kind in page if kind == "counter"}
    known |= {
        f"{name}_{part}"
        for name, kind in page
        if kind == "histogram"
        for part in ("bucket", "sum", "count")
    }
    for name, fewest in (
        ("prometheus/alerts.yml", 2),
        ("prometheus/batches.yml", 1),
        ("grafana/serving.json", 6),
        ("kubernetes/prometheus-adapter.yaml", 2),
    ):
        used = set(re.findall(r":tensorflow:[\w:]+", (written / name).read_text()))
        assert len(used) >= fewest
        assert used <= known


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_makes(written):
    (metric,) = read_yaml(written / "kubernetes/autoscaling.yaml")["spec"]["metrics"]
    (rule,) = read_yaml(written / "kubernetes/prometheus-adapter.yaml")["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert metric["pods"]["target"]["averageValue"] == "36000"


def test_kustomization_and_dashboard_name_what_is_there(written):
    kustomization = read_yaml(written / "kustomization.yaml")
    (configs,) = kustomization["configMapGenerator"]
    for name in kustomization["resources"] + configs["files"]:
        assert (written / name).is_file()
    source = read_yaml(written / "grafana/datasource.yaml")["datasources"][0]["uid"]
    panels = json.loads((written / "grafana/serving.json").read_text())["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source}
    assert all(panel["description"] for panel in panels)


def test_a_small_model_has_a_thread_per_batch_and_a_large_one_two_batches():
    small, large = Sizes([QUICKSTART], 8), Sizes([LARGE], 8)
    assert (small.batch_threads, small.intra_op_threads) == (8, 1)
    assert (large.batch_threads, large.intra_op_threads) == (2, 4)
    assert Sizes([LARGE], 1).intra_op_threads == 1


def test_larger_models_wait_longer_for_others_and_have_more_time():
    small, large = Sizes([QUICKSTART], 4), Sizes([LARGE], 4)
    # 64 steps of 1 ms and 3.5 MB, or 2 GB, at 30 GB/s; a twentieth of it, at most 50 ms.
    assert (small.batch_timeout_micros, large.batch_timeout_micros) == (3_600, 50_000)
    assert (small.timeout_s, large.timeout_s) == (30, 87)
    encoder = dataclasses.replace(QUICKSTART, passes=1)
    assert Sizes([encoder, LARGE], 4).batch_timeout_micros == 1_000


def test_a_batch_holds_the_largest_warm_up_request():
    sizes = Sizes([dataclasses.replace(QUICKSTART, warm_rows=40)], 4)
    assert sizes.batch_sizes == (1, 2, 4, 8, 16, 32, 64)


def test_memory_holds_three_versions_packed_and_full_batches():
    sizes = Sizes([LARGE], 4)
    # 2 GB and four packed copies, three times; 2 x 32 rows of 2,048 tokens of N / (6 d) bfloat16s.
    weights, rows = 5 * 2e9 / 2**20, 64 * 2048 * 2e9 / (6 * 2048) * 2 / 2**20
    assert 0 <= sizes.memory_mib - (512 + 3 * weights + rows) < 300


def test_threads_of_requests_outlast_the_queue():
    sizes = Sizes([QUICKSTART], 4)
    waiting = (sizes.batch_threads + sizes.enqueued_batches) * sizes.max_batch_size
    assert sizes.request_threads > waiting


def test_what_is_there_is_replaced_only_when_told_so(tmp_path):
    export, folder = at(tmp_path), tmp_path / "deploy"
    folder.mkdir()  # an empty one is no reason to ask
    write_exports(folder, [export])
    (folder / "models.config").write_text("mine")
    with pytest.raises(UserError, match="--overwrite replaces it"):
        write_exports(folder, [export])
    assert (folder / "models.config").read_text() == "mine"
    write_exports(folder, [export], overwrite=True)
    assert texts(folder) == texts(EXAMPLE)
    assert [path.name for path in tmp_path.iterdir()] == ["deploy"]

    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(UserError, match="holds something else"):
        write_exports(other, [export], overwrite=True)


@pytest.mark.parametrize(
    ("exports", "words"),
    [
        ([], "at least one"),
        ([QUICKSTART, QUICKSTART], "two models are named 'gpt'"),
        ([dataclasses.replace(QUICKSTART, name="a b")], "letters, digits"),
        ([dataclasses.replace(QUICKSTART, base=Path("deploy/models/gpt"))], "is inside"),
    ],
)
def test_models_that_cannot_be_deployed_together_are_refused(exports, words, tmp_path):
    exports = [dataclasses.replace(each, base=tmp_path / each.base) for each in exports]
    with pytest.raises(UserError, match=words):
        write_exports(tmp_path / "deploy", exports)
    assert not (tmp_path / "deploy").exists()


def test_a_model_of_others_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no versions"):
        read_export(tmp_path)
    module = tf.Module()
    module.double = tf.function(
        lambda x: {"y": x * 2.0}, input_signature=[tf.TensorSpec([None], tf.float32, "x")]
    )
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=module.double)
    with pytest.raises(UserError, match="no export of tfllm"):
        read_export(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["deploy", "out", "--model", "none"], "has no versions"),
        (["promote", "localhost:1", "--version", "2"], "HOST:PORT/MODEL"),
        (["promote", "http://localhost:1/m", "--version", "2"], "for gRPC"),
        (["promote", "localhost:1/a", "localhost:1/b", "--version", "2"], "one model"),
        (["rollback", "localhost:1/a"], "cannot read models.config"),
    ],
)
def test_wrong_use_is_told_with_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    assert words in capsys.readouterr().err
