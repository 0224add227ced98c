"""An export of tfllm, run by the v1 Session as the stock server runs it."""

from pathlib import Path

from worker import answer_lines, arguments

args = arguments()


def load():
    import tensorflow as tf
    import tensorflow_text  # noqa: F401 - its ops
    from tfllm_request import inputs_of, signature_of, tokens_written

    from tfllm import contract

    tf1 = tf.compat.v1
    threads = {f"{kind}_op_parallelism_threads": args.threads for kind in ("intra", "inter")}
    session = tf1.Session(graph=tf.Graph(), config=tf1.ConfigProto(**threads))
    with session.graph.as_default():
        loaded = tf1.saved_model.load(session, ["serve"], args.folder)

    def answer(name, inputs):
        signature = loaded.signature_def[name]
        # The Session knows no defaults; the stock server fills them in.
        given = {key: tf.make_ndarray(value) for key, value in signature.defaults.items()} | inputs
        feeds = {signature.inputs[key].name: value for key, value in given.items()}
        return session.run({key: info.name for key, info in signature.outputs.items()}, feeds)

    def write(request):
        return tokens_written(answer(signature_of(args.beams), inputs_of(request)), request)

    if args.warm_up:
        from tensorflow_serving.apis import prediction_log_pb2

        path = str(Path(args.folder, contract.WARMUP_FILE))
        for record in tf1.io.tf_record_iterator(path):
            log = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            inputs = {key: tf.make_ndarray(value) for key, value in log.inputs.items()}
            answer(log.model_spec.signature_name, inputs)
    return write


answer_lines(load)
