"""What stands between a gateway and its server, so that a test knows when what happens."""

import threading
import time
from concurrent import futures

import grpc
from tensorflow_serving.apis import predict_pb2


def until(condition, timeout_s=120):
    """Returns when `condition()` is true."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.002)  # others need this thread's turns


class Relay(grpc.GenericRpcHandler):
    """Passes calls on to a server, after `before(call, request)`. A context manager.

    Attributes:
        address: Its own.
        port: Of the server that gets the calls from now on.
    """

    def __init__(self, port, before):
        self.port = port
        self._before = before
        self._channels = {}
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, call):
        def answer(request, context):
            self._before(call, request)
            port = self.port
            if port not in self._channels:
                self._channels[port] = grpc.insecure_channel(f"127.0.0.1:{port}")
            try:
                return self._channels[port].unary_unary(call.method)(request)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())

        return grpc.unary_unary_rpc_method_handler(answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.stop(None)
        for channel in self._channels.values():
            channel.close()


class Gate:
    """Stops one call of a signature for so many rows, which has not reached the server yet.

    Args:
        signature: Its name.
        num_rows: Of the call.
        version: That is asked; None = any.
        number: The how-manieth such call it is.
    """

    def __init__(self, signature, num_rows, version=None, number=1):
        self._what = signature, num_rows
        self._version = version
        self._left = number
        self.has_come, self.may_go = threading.Event(), threading.Event()

    def __call__(self, call, request):
        if not call.method.endswith("/Predict"):
            return
        asked = predict_pb2.PredictRequest.FromString(request)
        spec, (first, *_) = asked.model_spec, asked.inputs.values()
        is_it = (spec.signature_name, first.tensor_shape.dim[0].size) == self._what
        if is_it and self._version in (None, spec.version.value):
            self._left -= 1
            if self._left == 0:
                self.has_come.set()
                assert self.may_go.wait(120)

    def wait(self):
        """For the call."""
        assert self.has_come.wait(120)

    def open(self):
        self.may_go.set()
