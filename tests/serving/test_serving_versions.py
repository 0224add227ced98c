"""Versions on disk: found, loaded, swapped, failed; without the network."""

import contextlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from tfllm.serving import Code, ServingError
from tfllm.serving.models import ServedModel
from tfllm.serving.predict import predict
from tfllm.serving.states import State, VersionOptions
from tfllm.serving.versions import Versions

X = np.ones([1, 2], np.float32)


@contextlib.contextmanager
def watching(**models):
    models = {
        name: model if isinstance(model, ServedModel) else ServedModel(str(model))
        for name, model in models.items()
    }
    versions = Versions(models, poll_s=0.02)
    versions.start()
    try:
        yield versions
    finally:
        versions.stop()


def wait_for(versions, name, **expected):
    """Waits until the model's versions are in exactly these states, such as `v2="END"`."""

    def states():
        return {f"v{told.version}": told.state.name for told in versions.statuses(name)}

    assert versions.wait_until(lambda: states() == expected, 120), states()


def wait_for_a_full_look(versions, publish, source, base_path):
    """Waits until every model was looked at after this call: `late` is the last one."""
    publish(source, base_path / "1")
    wait_for(versions, "late", v1="AVAILABLE")


def vec_request(**spec):
    request = predict_pb2.PredictRequest(model_spec={"name": "vec", **spec})
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(X))
    request.inputs["n"].CopyFrom(tf.make_tensor_proto([1], tf.int32))
    return request


def answer(versions, **spec):
    """The version that answers, by its number and by what it computes."""
    request = vec_request(**spec)
    with versions.lease(request.model_spec) as (number, servable):
        return number, predict(servable, request).outputs["y"].float_val[0]


def test_the_newest_number_is_served_however_it_is_written(tmp_path, vec_versions, publish):
    base = tmp_path / "vec"
    publish(vec_versions / "1", base / "1")
    publish(vec_versions / "2", base / "-7")
    publish(vec_versions / "3", base / "0003")
    for other in ("10.tmp", "latest", "4_0", str(2**63)):
        publish(vec_versions / "1", base / other)

    with watching(vec=base) as versions:
        wait_for(versions, "vec", v3="AVAILABLE")
        assert answer(versions) == (3, 3.0)


def test_a_negative_number_is_a_version(tmp_path, vec_versions, publish):
    publish(vec_versions / "2", tmp_path / "vec" / "-7")

    with watching(vec=tmp_path / "vec") as versions:
        wait_for(versions, "vec", **{"v-7": "AVAILABLE"})
        assert answer(versions) == (-7, 2.0)


def test_a_version_is_unloaded_after_its_last_request_and_not_before(
    tmp_path, vec_versions, publish
):
    base = tmp_path / "vec"
    publish(vec_versions / "1", base / "1")

    with watching(vec=base) as versions:
        wait_for(versions, "vec", v1="AVAILABLE")
        with versions.lease(model_pb2.ModelSpec(name="vec")) as (_, old):
            publish(vec_versions / "2", base / "2")
            wait_for(versions, "vec", v1="UNLOADING", v2="AVAILABLE")
            assert answer(versions) == (2, 2.0)
            assert predict(old, vec_request()).outputs["y"].float_val[0] == 1.0
            with pytest.raises(ServingError, match=r"Specific\(vec, 1\)"):
                answer(versions, version={"value": 1})
        wait_for(versions, "vec", v1="END", v2="AVAILABLE")


def test_a_version_without_a_model_ends_with_its_error_and_the_old_one_stays(
    tmp_path, vec_versions, publish
):
    base = tmp_path / "vec"
    publish(vec_versions / "1", base / "1")

    with watching(vec=base) as versions:
        wait_for(versions, "vec", v1="AVAILABLE")
        (base / "2").mkdir()
        wait_for(versions, "vec", v1="AVAILABLE", v2="END")
        assert answer(versions) == (1, 1.0)
        error = versions.statuses("vec")[0].error
        assert error.code == Code.NOT_FOUND == 5
        assert error.message == (
            "Specified file path does not appear to contain a SavedModel bundle (should have a "
            f"file called `saved_model.pb`)\nSpecified file path: {base}/2"
        )


def test_a_failed_version_is_tried_again_only_when_its_folder_comes_back(
    tmp_path, vec_versions, publish
):
    base, late = tmp_path / "vec", tmp_path / "late"
    (base / "2").mkdir(parents=True)
    late.mkdir()

    with watching(vec=base, late=late) as versions:
        wait_for(versions, "vec", v2="END")
        shutil.copytree(vec_versions / "2", base / "2", dirs_exist_ok=True)
        wait_for_a_full_look(versions, publish, vec_versions / "1", late)
        wait_for(versions, "vec", v2="END")

        (base / "2").rename(tmp_path / "aside")
        publish(vec_versions / "2", late / "2")
        wait_for(versions, "late", v1="END", v2="AVAILABLE")
        (tmp_path / "aside").rename(base / "2")
        wait_for(versions, "vec", v2="AVAILABLE")


def test_when_the_newest_folder_goes_the_one_before_is_loaded_first(
    tmp_path, vec_versions, publish
):
    base = tmp_path / "vec"
    for version in ("1", "2"):
        publish(vec_versions / version, base / version)

    with watching(vec=base) as versions:
        wait_for(versions, "vec", v2="AVAILABLE")
        with versions.lease(model_pb2.ModelSpec(name="vec")):
            (base / "2").rename(tmp_path / "aside")
            wait_for(versions, "vec", v1="AVAILABLE", v2="UNLOADING")
            # The same again before the request has ended: 2 is wanted while it is being unloaded.
            (tmp_path / "aside").rename(base / "2")
        wait_for(versions, "vec", v1="END", v2="AVAILABLE")
        assert answer(versions) == (2, 2.0)


def test_an_emptied_base_path_unloads_and_a_missing_one_does_not(tmp_path, vec_versions, publish):
    base, late = tmp_path / "vec", tmp_path / "late"
    publish(vec_versions / "1", base / "1")
    late.mkdir()

    with watching(vec=base, late=late) as versions:
        wait_for(versions, "vec", v1="AVAILABLE")
        base.rename(tmp_path / "aside")
        wait_for_a_full_look(versions, publish, vec_versions / "1", late)
        wait_for(versions, "vec", v1="AVAILABLE")
        (tmp_path / "aside" / "1").rename(tmp_path / "gone")
        (tmp_path / "aside").rename(base)
        wait_for(versions, "vec", v1="END")


def test_a_version_without_variables_loads_and_then_fails_its_requests(tmp_path, vec_versions):
    shutil.copytree(vec_versions / "1", tmp_path / "vec" / "1")
    shutil.rmtree(tmp_path / "vec" / "1" / "variables")

    with watching(vec=tmp_path / "vec") as versions:
        wait_for(versions, "vec", v1="AVAILABLE")
        with pytest.raises(ServingError, match="Could not find variable") as refused:
            answer(versions)
        assert refused.value.code == Code.FAILED_PRECONDITION


def write_warmup(folder, records):
    (folder / "assets.extra").mkdir(parents=True)
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def logged(request):
    log = prediction_log_pb2.PredictionLog(predict_log={"request": request})
    return log.SerializeToString()


def error_of_loading(base):
    with watching(vec=base) as versions:
        wait_for(versions, "vec", v1="END")
        error = versions.statuses("vec")[0].error
        return error.code, error.message


def test_warmup_requests_are_replayed_and_an_empty_record_is_none(tmp_path, vec_versions):
    folder = shutil.copytree(vec_versions / "1", tmp_path / "vec" / "1")
    write_warmup(folder, [logged(vec_request()), b""])

    with watching(vec=tmp_path / "vec") as versions:
        wait_for(versions, "vec", v1="AVAILABLE")


@pytest.mark.parametrize(
    ("record", "code", "words"),
    [
        (
            logged(vec_request(signature_name="zzz")),
            Code.FAILED_PRECONDITION,
            'Serving signature key "zzz" not found.',
        ),
        (
            prediction_log_pb2.PredictionLog(session_run_log={}).SerializeToString(),
            Code.UNIMPLEMENTED,
            "Unsupported log_type for warmup: session_run_log",
        ),
        (b"\xff", Code.INVALID_ARGUMENT, "Failed to parse warmup record from "),
    ],
    # Of the bytes, which differ between processes, the two of a run would not know each other's.
    ids=["no such signature", "another log", "no record"],
)
def test_a_warmup_record_that_fails_fails_the_load(tmp_path, vec_versions, record, code, words):
    folder = shutil.copytree(vec_versions / "1", tmp_path / "vec" / "1")
    write_warmup(folder, [logged(vec_request()), record])

    failed_with, message = error_of_loading(tmp_path / "vec")

    assert failed_with == code
    assert message.startswith(words)


def test_1000_warmup_records_are_replayed(tmp_path, vec_versions):
    folder = shutil.copytree(vec_versions / "1", tmp_path / "vec" / "1")
    write_warmup(folder, [b""] * 1000)

    with watching(vec=tmp_path / "vec") as versions:
        wait_for(versions, "vec", v1="AVAILABLE")


def test_more_than_1000_warmup_records_fail_the_load(tmp_path, vec_versions):
    folder = shutil.copytree(vec_versions / "1", tmp_path / "vec" / "1")
    path = write_warmup(folder, [b""] * 1001)

    assert error_of_loading(tmp_path / "vec") == (
        Code.INVALID_ARGUMENT,
        f"Number of warmup records exceeds the maximum (1000) at {path}",
    )


def test_a_warmup_file_that_is_no_tfrecord_is_data_loss(tmp_path, vec_versions):
    folder = shutil.copytree(vec_versions / "1", tmp_path / "vec" / "1")
    write_warmup(folder, []).write_bytes(b"this is a text, not a TFRecord")

    assert error_of_loading(tmp_path / "vec") == (
        Code.DATA_LOSS,
        "corrupted record at 0. Please verify your warmup data is in TFRecord format.",
    )


def test_a_damaged_model_ends_with_data_loss(tmp_path):
    path = tmp_path / "vec" / "1" / "saved_model.pb"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no protocol buffer")

    assert error_of_loading(tmp_path / "vec") == (
        Code.DATA_LOSS,
        f"Can't parse {path} as binary proto",
    )


def test_a_model_for_training_only_is_not_found(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "vec" / "1"))
        tf.compat.v1.get_variable("w", [])
        session.run(tf.compat.v1.global_variables_initializer())
        builder.add_meta_graph_and_variables(session, ["train"])
        builder.save()

    code, message = error_of_loading(tmp_path / "vec")

    assert code == Code.NOT_FOUND
    assert message.startswith(
        "Could not find meta graph def matching supplied tags: { serve }. To inspect"
    )


def write_model(folder, node):
    model = saved_model_pb2.SavedModel()
    meta_graph = model.meta_graphs.add(meta_info_def={"tags": ["serve"]})
    meta_graph.graph_def.node.add(**node)
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("node", "code", "words"),
    [
        ({"op": "NoSuchOp"}, Code.NOT_FOUND, "Op type not registered 'NoSuchOp'"),
        ({"op": "NoOp", "input": ["zz"]}, Code.INVALID_ARGUMENT, "Unknown input node 'zz'"),
    ],
)
def test_a_graph_that_cannot_be_built_ends_the_version(tmp_path, node, code, words):
    write_model(tmp_path / "vec" / "1", {"name": "a", **node})

    failed_with, message = error_of_loading(tmp_path / "vec")

    assert failed_with == code
    assert words in message


def test_a_defect_of_loading_ends_the_version_and_not_the_thread(tmp_path, vec_versions, publish):
    base = tmp_path / "vec"
    write_model(base / "1", {"name": "a", "op": "NoOp"})
    path = base / "1" / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    # An asset for no tensor of the graph, which no exporter writes: Session.run raises TypeError.
    meta_graph = model.meta_graphs[0]
    meta_graph.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = "a"
    meta_graph.asset_file_def.add(filename="f", tensor_info={"name": "nowhere:0"})
    path.write_bytes(model.SerializeToString())

    with watching(vec=base) as versions:
        wait_for(versions, "vec", v1="END")
        assert versions.statuses("vec")[0].error.code == Code.INTERNAL
        publish(vec_versions / "2", base / "2")
        wait_for(versions, "vec", v1="END", v2="AVAILABLE")


class Jitted(tf.Module):
    """One output needs XLA, two functions deep in a branch; one does not."""

    @tf.function(jit_compile=True)
    def double(self, x):
        return 2 * x

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def both(self, x):
        doubled = tf.cond(tf.size(x) > 9, lambda: x, lambda: self.double(x))
        return {"doubled": doubled, "same": tf.identity(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def plain(self, x):
        return {"same": tf.identity(x)}


def test_a_function_for_xla_fails_its_requests_as_the_stock_server_has_it(tmp_path):
    model = Jitted()
    signatures = {"serving_default": model.both, "plain": model.plain}
    tf.saved_model.save(model, str(tmp_path / "jitted" / "1"), signatures=signatures)
    request = predict_pb2.PredictRequest(model_spec={"name": "jitted"})
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))

    with watching(jitted=tmp_path / "jitted") as versions:
        wait_for(versions, "jitted", v1="AVAILABLE")
        with versions.lease(request.model_spec) as (_, servable):
            with pytest.raises(ServingError, match="XLA compilation disabled\n\t ") as refused:
                predict(servable, request)
            assert refused.value.code == Code.INTERNAL
            request.model_spec.signature_name = "plain"
            assert predict(servable, request).outputs["same"].float_val == [1.0]


class Lookup(tf.Module):
    """Has an asset and an init op."""

    def __init__(self, path):
        super().__init__()
        initializer = tf.lookup.TextFileInitializer(
            path, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER,
        )  # fmt: skip
        self.table = tf.lookup.StaticHashTable(initializer, -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    def find(self, word):
        return {"line": self.table.lookup(word)}


def test_assets_are_found_where_the_version_lies_now(tmp_path):
    (tmp_path / "words.txt").write_text("one\ntwo\n")
    model = Lookup(str(tmp_path / "words.txt"))
    tf.saved_model.save(model, str(tmp_path / "saved"), signatures=model.find)
    (tmp_path / "base").mkdir()
    (tmp_path / "saved").rename(tmp_path / "base" / "1")
    (tmp_path / "words.txt").unlink()
    request = predict_pb2.PredictRequest(model_spec={"name": "words"})
    request.inputs["word"].CopyFrom(tf.make_tensor_proto(["two", "six"]))

    with watching(words=tmp_path / "base") as versions:
        wait_for(versions, "words", v1="AVAILABLE")
        with versions.lease(request.model_spec) as (_, servable):
            assert list(predict(servable, request).outputs["line"].int64_val) == [1, -1]


def test_waiting_ends_early_with_the_error_of_a_model_that_cannot_come(tmp_path):
    (tmp_path / "vec" / "1").mkdir(parents=True)

    with (
        watching(vec=tmp_path / "vec") as versions,
        pytest.raises(ServingError, match=r"vec version 1 failed to load: Specified file path"),
    ):
        versions.wait_until_available(120)


def test_waiting_gives_up_naming_the_models(tmp_path):
    (tmp_path / "empty").mkdir()

    with (
        watching(b=tmp_path / "empty", a=tmp_path / "missing") as versions,
        pytest.raises(ServingError, match=r"after 0.05 s no version is available of: a, b\."),
    ):
        versions.wait_until_available(0.05)


def test_stopping_unloads_everything(tmp_path, vec_versions, publish):
    publish(vec_versions / "1", tmp_path / "vec" / "1")

    with watching(vec=tmp_path / "vec") as versions:
        wait_for(versions, "vec", v1="AVAILABLE")

    assert [told.state for told in versions.statuses("vec")] == [State.END]


def test_a_load_that_fails_is_tried_again_as_often_as_asked(tmp_path, vec_versions, publish):
    (tmp_path / "vec" / "1").mkdir(parents=True)
    aside = tmp_path / "empty"
    models = {"vec": ServedModel(str(tmp_path / "vec"))}

    versions = Versions(models, 0.02, VersionOptions(max_retries=10_000, retry_interval_s=0))
    versions.start()
    try:
        wait_for(versions, "vec", v1="LOADING")
        assert versions.statuses("vec")[0].error is None
        (tmp_path / "vec" / "1").rename(aside)
        publish(vec_versions / "1", tmp_path / "vec" / "1")
        wait_for(versions, "vec", v1="AVAILABLE")
    finally:
        versions.stop()


def test_after_the_last_try_a_version_ends(tmp_path, caplog):
    (tmp_path / "vec" / "1").mkdir(parents=True)

    versions = Versions(
        {"vec": ServedModel(str(tmp_path / "vec"))}, 0.02, VersionOptions(2, retry_interval_s=0)
    )
    versions.start()
    try:
        wait_for(versions, "vec", v1="END")
    finally:
        versions.stop()
    assert caplog.text.count("vec version 1 failed to load") == 3


def test_warmup_can_be_left_out(tmp_path, vec_versions):
    folder = shutil.copytree(vec_versions / "1", tmp_path / "vec" / "1")
    write_warmup(folder, [b"\xff"])

    versions = Versions({"vec": ServedModel(str(tmp_path / "vec"))}, 0.02, VersionOptions(0, 0, 0))
    versions.start()
    try:
        wait_for(versions, "vec", v1="AVAILABLE")
    finally:
        versions.stop()


def test_without_polling_the_base_path_is_looked_at_once(tmp_path, vec_versions, publish):
    base = tmp_path / "vec"
    publish(vec_versions / "1", base / "1")
    versions = Versions({"vec": ServedModel(str(base), latest=None)}, poll_s=0)
    versions.start()
    try:
        wait_for(versions, "vec", v1="AVAILABLE")
        publish(vec_versions / "2", base / "2")
        assert not versions.wait_until(lambda: len(versions.statuses("vec")) == 2, 0.2)
        versions.set_models(versions.models)
        wait_for(versions, "vec", v1="AVAILABLE", v2="AVAILABLE")
    finally:
        versions.stop()
