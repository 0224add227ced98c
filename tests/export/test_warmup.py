"""Warm-up records: what a server that batches takes as well as one that does not."""

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tfllm import contract


def test_all_inputs_of_a_record_have_the_same_number_of_rows(exported_gpt):
    records = list(tf.data.TFRecordDataset(str(exported_gpt / contract.WARMUP_FILE)))
    asked = set()
    for record in records:
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        asked.add(log.model_spec.signature_name)
        assert len({proto.tensor_shape.dim[0].size for proto in log.inputs.values()}) == 1
    assert asked == set(contract.GENERATOR_SIGNATURES)
