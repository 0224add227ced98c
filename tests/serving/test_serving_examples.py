"""Classify, Regress and MultiInference over a real socket, with the stock server's answers."""

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    input_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tfllm.serving import ServedModel, Server

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


@pytest.fixture(scope="module")
def stub(vec_versions, grades):
    models = {"vec": ServedModel(str(vec_versions)), "grades": ServedModel(str(grades))}
    with Server(models, port=0) as server:
        server.wait_until_available(120)
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def example(**features):
    found = tf.train.Example()
    for name, value in features.items():
        if isinstance(value, bytes):
            found.features.feature[name].bytes_list.value.append(value)
        else:
            found.features.feature[name].float_list.value.append(value)
    return found


ROWS = [example(x=0.25, word=b"good"), example(), example(x=0.75)]


def inputs(examples=ROWS, context=None):
    if context is None:
        return input_pb2.Input(example_list={"examples": examples})
    return input_pb2.Input(example_list_with_context={"examples": examples, "context": context})


@pytest.fixture(scope="module")
def classify(stub):
    def classify(sent=None, **spec):
        request = classification_pb2.ClassificationRequest(
            model_spec={"name": "grades", **spec}, input=inputs() if sent is None else sent
        )
        return stub.Classify(request, timeout=120)

    return classify


@pytest.fixture(scope="module")
def regress(stub):
    def regress(sent=None, **spec):
        request = regression_pb2.RegressionRequest(
            model_spec={"name": "grades", **spec}, input=inputs() if sent is None else sent
        )
        return stub.Regress(request, timeout=120)

    return regress


@pytest.fixture(scope="module")
def infer(stub):
    def infer(tasks, sent=None):
        request = inference_pb2.MultiInferenceRequest(
            tasks=[
                {"model_spec": {"name": model, "signature_name": name}, "method_name": method}
                for model, name, method in tasks
            ],
            input=inputs() if sent is None else sent,
        )
        return stub.MultiInference(request, timeout=120)

    return infer


def refusal(call, *args, **kwargs):
    with pytest.raises(grpc.RpcError) as refused:
        call(*args, **kwargs)
    return refused.value.code().name, refused.value.details()


def found(response):
    return [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]


def test_every_example_gets_its_classes_and_the_response_names_what_answered(classify):
    response = classify()

    assert found(response) == [
        [("good", 0.25), ("good?", 0.75)],
        [("none", 0.5), ("none?", 0.5)],
        [("none", 0.75), ("none?", 0.25)],
    ]
    assert text_format.MessageToString(response.model_spec, as_one_line=True) == (
        'name: "grades" version { value: 4 } signature_name: "serving_default"'
    )


def test_the_context_fills_in_what_an_example_lacks(classify):
    sent = inputs([example(word=b"b"), example(x=0.25)], context=example(x=0.75, word=b"a"))

    assert found(classify(sent)) == [
        [("b", 0.75), ("b?", 0.25)],
        [("a", 0.25), ("a?", 0.75)],
    ]


@pytest.mark.parametrize("rpc", ["Classify", "Regress", "MultiInference", "GetModelMetadata"])
@pytest.mark.parametrize(
    ("spec", "code", "details"),
    [
        (
            {"name": "grades", "version": {"value": 99}},
            "NOT_FOUND",
            "Servable not found for request: Specific(grades, 99)",
        ),
        (
            {"name": "grades", "version": {"value": 0}},
            "NOT_FOUND",
            "Servable not found for request: Specific(grades, 0)",
        ),
        (
            {"name": "grades", "version_label": "canary"},
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: canary",
        ),
        (
            {"name": "nope", "signature_name": "zzz"},
            "NOT_FOUND",
            "Servable not found for request: Latest(nope)",
        ),
        ({"version": {"value": 4}}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ],
)
def test_a_model_is_found_as_by_predict(stub, rpc, spec, code, details):
    request = {
        "Classify": classification_pb2.ClassificationRequest(model_spec=spec),
        "Regress": regression_pb2.RegressionRequest(model_spec=spec),
        "MultiInference": inference_pb2.MultiInferenceRequest(tasks=[{"model_spec": spec}]),
        "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        ),
    }[rpc]

    assert refusal(getattr(stub, rpc), request) == (code, details)


@pytest.mark.parametrize(
    ("signature", "row"),
    [("only_classes", [("good", 0), ("good?", 0)]), ("only_scores", [("", 0.25), ("", 0.75)])],
)
def test_classes_or_scores_alone_are_enough(classify, signature, row):
    assert found(classify(signature_name=signature))[0] == row


@pytest.mark.parametrize(
    ("spec", "code", "details"),
    [
        ({"name": "nope"}, "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        (
            {"signature_name": "zzz"},
            "INVALID_ARGUMENT",
            "No signature was found with the name: zzz",
        ),
        ({"name": "vec"}, "INVALID_ARGUMENT", "Expected one input Tensor."),
        ({"signature_name": "two_inputs"}, "INVALID_ARGUMENT", "Expected one input Tensor."),
        (
            {"signature_name": "three_outputs"},
            "INVALID_ARGUMENT",
            "Expected one or two output Tensors, found 3",
        ),
        (
            {"signature_name": "flat"},
            "INVALID_ARGUMENT",
            "Expected Tensor shape: [batch_size num_classes] but got [3]",
        ),
        (
            {"signature_name": "classes_of_numbers"},
            "INVALID_ARGUMENT",
            "Expected classes Tensor of DT_STRING. Got: DT_FLOAT",
        ),
        (
            {"signature_name": "scores_of_double"},
            "INVALID_ARGUMENT",
            "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE",
        ),
        (
            {"signature_name": "few_scores"},
            "INVALID_ARGUMENT",
            "Expected scores output batch size of 3. Got: 1",
        ),
        (
            {"signature_name": "uneven"},
            "INVALID_ARGUMENT",
            "Tensors class and score should match in dim_size(1). Got 2 vs. 3",
        ),
    ],
)
def test_a_signature_that_does_not_classify_is_refused(classify, spec, code, details):
    assert refusal(classify, **spec) == (code, details)


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        ("other_input", "No classification inputs found in SignatureDef: "),
        (
            "other_output",
            "Expected classification signature outputs to contain at least one of "
            '"classes" or "scores". Signature was: ',
        ),
    ],
)
def test_a_classifier_with_other_names_is_a_failed_precondition(classify, signature, words):
    code, details = refusal(classify, signature_name=signature)

    assert code == "FAILED_PRECONDITION"
    assert details.startswith(words)


@pytest.mark.parametrize("sent", [input_pb2.Input(), inputs([]), inputs([], context=example(x=1))])
def test_an_input_without_examples_is_refused(classify, regress, infer, sent):
    expected = ("INVALID_ARGUMENT", "Input is empty.")

    assert refusal(classify, sent) == expected
    assert refusal(regress, sent, signature_name="regress") == expected
    assert refusal(infer, [("grades", "regress", REGRESS)], sent) == expected


@pytest.mark.parametrize("rpc", ["Classify", "Regress"])
def test_a_request_without_model_spec_is_refused(stub, rpc):
    kind = {
        "Classify": classification_pb2.ClassificationRequest,
        "Regress": regression_pb2.RegressionRequest,
    }[rpc]

    refused = refusal(getattr(stub, rpc), kind(input=inputs()))

    assert refused == ("INVALID_ARGUMENT", "Missing ModelSpec")


@pytest.mark.parametrize(
    ("signature", "values"), [("regress", [0.5, 1, 1.5]), ("regress_column", [0.25, 0.5, 0.75])]
)
def test_every_example_gets_its_number(regress, signature, values):
    response = regress(signature_name=signature)

    assert [each.value for each in response.result.regressions] == values
    assert text_format.MessageToString(response.model_spec, as_one_line=True) == (
        f'name: "grades" version {{ value: 4 }} signature_name: "{signature}"'
    )


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ({}, "INVALID_ARGUMENT", "Expected one output Tensor."),
        ({"name": "vec"}, "INVALID_ARGUMENT", "Expected one input Tensor."),
        (
            {"signature_name": "zzz"},
            "INVALID_ARGUMENT",
            "No signature was found with the name: zzz",
        ),
        (
            {"signature_name": "other_input"},
            "FAILED_PRECONDITION",
            "No regression inputs found in SignatureDef: ",
        ),
        (
            {"signature_name": "only_scores"},
            "FAILED_PRECONDITION",
            "No regression outputs found in SignatureDef: ",
        ),
        (
            {"signature_name": "regress_wide"},
            "INVALID_ARGUMENT",
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] "
            "but got [3,2]",
        ),
        (
            {"signature_name": "regress_few"},
            "INVALID_ARGUMENT",
            "Input batch size did not match output batch size: 3 vs. 1",
        ),
        (
            {"signature_name": "regress_whole"},
            "INVALID_ARGUMENT",
            "Expected output Tensor of DT_FLOAT.  Got: DT_INT64",
        ),
    ],
)
def test_a_signature_that_does_not_regress_is_refused(regress, spec, code, words):
    got, details = refusal(regress, **spec)

    assert got == code
    assert details.startswith(words)


def test_an_error_of_the_ops_keeps_its_code(classify):
    code, details = refusal(classify, inputs([example(x=b"no number")]))

    assert code == "INVALID_ARGUMENT"
    assert "Data types don't match" in details


def test_several_signatures_answer_in_the_order_of_the_tasks(infer):
    response = infer([("grades", "regress", REGRESS), ("grades", "", CLASSIFY)])

    first, second = response.results
    assert [each.value for each in first.regression_result.regressions] == [0.5, 1, 1.5]
    rows = second.classification_result.classifications
    assert [row.classes[0].label for row in rows] == ["good", "none", "none"]
    told = [(r.model_spec.signature_name, r.model_spec.version.value) for r in response.results]
    assert told == [("regress", 4), ("serving_default", 4)]


@pytest.mark.parametrize(
    ("tasks", "code", "details"),
    [
        ([], "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (
            [("grades", "regress", REGRESS), ("", "regress", REGRESS)],
            "INVALID_ARGUMENT",
            "Found ModelSpec with an empty model name.",
        ),
        (
            [("grades", "regress", REGRESS), ("vec", "regress", REGRESS)],
            "INVALID_ARGUMENT",
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [("grades", "", CLASSIFY), ("grades", "serving_default", CLASSIFY)],
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: serving_default",
        ),
        (
            [("grades", "zzz", CLASSIFY)],
            "INVALID_ARGUMENT",
            "Requested signature not found in model graph: zzz",
        ),
        (
            [("grades", "regress", "tensorflow/serving/predict")],
            "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            [("grades", "regress", REGRESS), ("grades", "elsewhere", CLASSIFY)],
            "INVALID_ARGUMENT",
            "Input tensor must be the same for all Signatures.",
        ),
        ([("grades", "regress", CLASSIFY)], "FAILED_PRECONDITION", None),
        (
            [("nope", "regress", REGRESS)],
            "NOT_FOUND",
            "Servable not found for request: Latest(nope)",
        ),
    ],
)
def test_tasks_that_do_not_go_together_are_refused(infer, tasks, code, details):
    got, told = refusal(infer, tasks)

    assert got == code
    assert details in (None, told)
