"""One loaded version: a SavedModel in a Session, run by the tensor names of its signatures.

Any SavedModel is loaded, with the steps of TensorFlow's C++ loader and not those of the Python one,
which refuses what the stock server accepts (a version without its variables).

Source:
    tensorflow/cc/saved_model/loader.cc and reader.cc, read for the behaviour and the texts.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the ops that the stock server links
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

from tfllm.serving.callers import deadline
from tfllm.serving.metrics import graph_run
from tfllm.serving.status import Code, ServingError
from tfllm.serving.xla import tensors_under_xla

TAG = "serve"
INIT_OP = "__saved_model_init_op"


class Servable:
    """A SavedModel that answers; calls may come from many threads at once.

    Args:
        folder: The version folder, the one with `saved_model.pb`.

    Attributes:
        signatures: `SignatureDef` by name, `__saved_model_init_op` included.

    Raises:
        ServingError: what is wrong with the folder, with the stock server's code.
    """

    def __init__(self, folder: str | Path):
        meta_graph = _read_meta_graph(Path(folder))
        self.signatures: Mapping[str, meta_graph_pb2.SignatureDef] = meta_graph.signature_def
        self._outputs: dict[str, object] = {}
        outputs = [o.name for s in self.signatures.values() for o in s.outputs.values()]
        self._under_xla = tensors_under_xla(meta_graph.graph_def, outputs)
        config = tf.compat.v1.ConfigProto()
        config.gpu_options.allow_growth = True
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            _load(self._session, meta_graph, Path(folder))
        except (tf.errors.OpError, ValueError) as error:
            self._session.close()
            raise _as_serving_error(error) from error

    def run(
        self, feeds: Sequence[tuple[str, np.ndarray]], fetches: Sequence[str]
    ) -> list[np.ndarray | np.generic | bytes]:
        """The values of the tensors named by `fetches`, while the client waits.

        Args:
            feeds: Tensor names and what to feed them; neither cast nor held against the shape.
            fetches: Tensor names.

        Raises:
            ServingError: as `run_until`, by the deadline of the call that this thread answers.
        """
        return self.run_until(deadline(), feeds, fetches)

    def run_until(
        self, ends_at: float, feeds: Sequence[tuple[str, np.ndarray]], fetches: Sequence[str]
    ) -> list[np.ndarray | np.generic | bytes]:
        """As `run`, stopped at a moment.

        Args:
            ends_at: Seconds on `time.monotonic`'s clock; inf is never. Loops end at their next
                step, an op that is running is waited for.
            feeds: As `run`.
            fetches: As `run`.

        Raises:
            ServingError: DEADLINE_EXCEEDED, what the ops raised, NOT_FOUND for a tensor that the
                graph lacks, INTERNAL for one that XLA would have to compile.
        """
        if under_xla := self._under_xla.intersection(fetches):
            message = f"XLA compilation disabled\n\t [[{min(under_xla)}]]"
            raise ServingError(Code.INTERNAL, message)
        inputs = {
            self._tensor(name, "FeedInputs: unable to find feed output {}"): value
            for name, value in feeds
        }
        outputs = [self._tensor(name, "FetchOutputs node {}: not found") for name in fetches]
        try:
            # Session.run casts what it is fed and checks shapes; the stock server does neither.
            with graph_run(), _run_options(ends_at) as options:
                return self._session._call_tf_sessionrun(options, inputs, outputs, [], None)
        except tf.errors.OpError as error:
            raise _as_serving_error(error) from error

    def close(self) -> None:
        """Frees the session; a call that is running ends with CANCELLED."""
        self._session.close()

    def _tensor(self, name: str, missing: str):
        if name not in self._outputs:
            try:
                tensor = self._session.graph.get_tensor_by_name(name)
            except (KeyError, ValueError) as error:
                raise ServingError(Code.NOT_FOUND, missing.format(name)) from error
            self._outputs[name] = tensor._as_tf_output()
        return self._outputs[name]


@contextlib.contextmanager
def _run_options(ends_at: float) -> Iterator[object | None]:
    """Options that stop a run at a moment, in TensorFlow's own memory."""
    if ends_at == math.inf:
        yield None
        return
    timeout_ms = math.ceil((ends_at - time.monotonic()) * 1000)
    if timeout_ms <= 0:  # which TensorFlow takes for no limit
        raise ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")
    proto = config_pb2.RunOptions(timeout_in_ms=timeout_ms)
    options = pywrap_tf_session.TF_NewBufferFromString(proto.SerializeToString())
    try:
        yield options
    finally:
        pywrap_tf_session.TF_DeleteBuffer(options)


def _read_meta_graph(folder: Path) -> meta_graph_pb2.MetaGraphDef:
    saved_model = saved_model_pb2.SavedModel()
    if (path := folder / "saved_model.pb").is_file():
        try:
            saved_model.ParseFromString(path.read_bytes())
        except DecodeError as error:
            message = f"Can't parse {path} as binary proto"
            raise ServingError(Code.DATA_LOSS, message) from error
    elif (path := folder / "saved_model.pbtxt").is_file():
        try:
            text_format.Parse(path.read_bytes(), saved_model)
        except text_format.ParseError as error:
            message = f"Can't parse {path} as text proto"
            raise ServingError(Code.DATA_LOSS, message) from error
    else:
        raise ServingError(
            Code.NOT_FOUND,
            "Specified file path does not appear to contain a SavedModel bundle (should have a "
            f"file called `saved_model.pb`)\nSpecified file path: {folder}",
        )
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == {TAG}:
            return meta_graph
    raise ServingError(
        Code.NOT_FOUND,
        f"Could not find meta graph def matching supplied tags: {{ {TAG} }}. To inspect available "
        "tag-sets in the SavedModel, please use the SavedModel CLI: `saved_model_cli`",
    )


def _as_serving_error(error: tf.errors.OpError | ValueError) -> ServingError:
    if isinstance(error, tf.errors.OpError):
        return ServingError(Code(error.error_code), error.message)
    # Python turns a graph's INVALID_ARGUMENT into a ValueError.
    return ServingError(Code.INVALID_ARGUMENT, str(error))


def _load(session, meta_graph: meta_graph_pb2.MetaGraphDef, folder: Path) -> None:
    """The graph, then its variables if their file is there, then what its init op does."""
    with session.graph.as_default():
        tf.graph_util.import_graph_def(
            meta_graph.graph_def,
            name="",
            producer_op_list=meta_graph.meta_info_def.stripped_op_list,
        )
    session.graph.finalize()
    assets = {
        asset.tensor_info.name: str(folder / "assets" / asset.filename)
        for asset in meta_graph.asset_file_def
    }
    variables = folder / "variables" / "variables"
    saver = meta_graph.saver_def
    if saver.restore_op_name and variables.with_name("variables.index").is_file():
        session.run(saver.restore_op_name, {saver.filename_tensor_name: str(variables)})
    if INIT_OP in meta_graph.signature_def:
        session.run(meta_graph.signature_def[INIT_OP].outputs[INIT_OP].name, assets)
        return
    for collection in ("saved_model_main_op", "legacy_init_op"):  # what TensorFlow 1 wrote
        if collection in meta_graph.collection_def:
            session.run(meta_graph.collection_def[collection].node_list.value[0], assets)
            return
