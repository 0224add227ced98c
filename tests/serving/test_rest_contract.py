"""The stock server's REST answers, asked of the embedded one over a real socket."""

import json
import math

import numpy as np
import pytest
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from tfllm.serving import ServedModel, Server


@pytest.fixture(scope="module")
def served(vec_versions, grades, echo):
    models = {
        "vec": ServedModel(str(vec_versions), latest=3, labels={"stable": 2, "gone": 77}),
        "grades": ServedModel(str(grades)),
        "echo": ServedModel(str(echo)),
        "a b": ServedModel(str(echo)),
    }
    with Server(models, port=0, rest_port=0) as server:
        states = server.versions.statuses

        def are_available():
            return all(states(name) for name in models) and all(
                status.state == 30 for name in models for status in states(name)
            )

        assert server.versions.wait_until(are_available, 120)
        yield server.rest_port


@pytest.fixture(scope="module")
def get(served, ask):
    def get(path):
        status, body = ask(served, "GET", path)
        return status, json.loads(body)

    return get


@pytest.fixture(scope="module")
def post(served, ask):
    """POSTs a document to `/v1/models/` and more."""

    def post(path, document):
        status, body = ask(served, "POST", f"/v1/models/{path}", document)
        return status, json.loads(body)

    return post


def refused(status, error):
    return status, {"error": error}


# Paths and which model answers.


@pytest.mark.parametrize(
    ("path", "factor"),
    [
        ("vec", 3),
        ("vec/versions/1", 1),
        ("vec/labels/stable", 2),
        ("vec/Versions/1", 1),
        ("v%65c/labels/st%61ble", 2),
    ],
)
def test_a_path_names_the_model_and_its_version_or_label(post, path, factor):
    status, found = post(f"{path}:predict", {"inputs": {"x": [[1, 2]], "n": [0]}})

    assert status == 200
    assert found["outputs"]["y"] == [[factor, 2 * factor]]


ROW = {"instances": [{"x": [1, 2], "n": 0}]}


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("nope:predict", 404, "Servable not found for request: Latest(nope)"),
        ("vec/versions/99:predict", 404, "Servable not found for request: Specific(vec, 99)"),
        ("vec/versions/0:predict", 404, "Servable not found for request: Specific(vec, 0)"),
        ("vec/labels/canary:predict", 400, "Unrecognized servable version label: canary"),
        ("vec/labels/gone:predict", 404, "Servable not found for request: Specific(vec, 77)"),
        ("vec:foo", 400, "Malformed request: POST /v1/models/vec:foo"),
        ("vec", 400, "Malformed request: POST /v1/models/vec"),
        ("v%65c:foo", 400, "Malformed request: POST /v1/models/v%65c:foo"),
        (
            f"vec/versions/{2**63}:predict",
            400,
            f"Failed to convert version: {2**63} to numeric.",
        ),
    ],
)
def test_a_path_that_fits_nothing_is_refused(post, path, status, error):
    assert post(path, ROW) == refused(status, error)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_a_call_by_another_method_is_malformed(served, ask, method):
    status, body = ask(served, method, "/v1/models/vec:predict")

    error = f"Malformed request: {method} /v1/models/vec:predict"
    assert (status, json.loads(body)) == refused(400, error)


@pytest.mark.parametrize("path", ["/", "/v2/models/vec", "/metrics"])
def test_what_is_not_of_the_api_is_not_found(served, ask, path):
    assert ask(served, "GET", path)[0] == 404


def test_the_query_is_no_part_of_the_path(get):
    assert get("/v1/models/vec?x=1")[0] == 200


def test_a_model_may_have_a_blank_in_its_name(post):
    assert post("a%20b:predict", {"instances": [1]}) == (200, {"predictions": [2.0]})


# Status and metadata.


def test_status_is_the_message_of_grpc(get):
    status, found = get("/v1/models/vec")

    assert status == 200
    assert [version["version"] for version in found["model_version_status"]] == ["3", "2", "1"]
    assert found["model_version_status"][0] == {
        "version": "3",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    json_format.ParseDict(found, get_model_status_pb2.GetModelStatusResponse())


@pytest.mark.parametrize(
    ("path", "versions"), [("versions/2", ["2"]), ("labels/stable", ["3", "2", "1"])]
)
def test_status_of_one_version_ignores_labels(get, path, versions):
    found = get(f"/v1/models/vec/{path}")[1]["model_version_status"]

    assert [version["version"] for version in found] == versions


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("", 400, "Missing model name in request."),
        ("/nope", 404, "Could not find any versions of model nope"),
        ("/vec/versions/77", 404, "Could not find version 77 of model vec"),
        ("/nope/metadata", 404, "Servable not found for request: Latest(nope)"),
        ("/vec/meta", 400, "Malformed request: GET /v1/models/vec/meta"),
    ],
)
def test_a_question_about_what_is_not_there_is_refused(get, path, status, error):
    assert get(f"/v1/models{path}") == refused(status, error)


@pytest.mark.parametrize(("path", "version"), [("", "3"), ("/labels/stable", "2")])
def test_metadata_hold_every_signature_and_the_version(get, path, version):
    status, found = get(f"/v1/models/vec{path}/metadata")

    assert status == 200
    assert found["model_spec"] == {"name": "vec", "signature_name": "", "version": version}
    signatures = json_format.ParseDict(
        found["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap()
    ).signature_def
    assert sorted(signatures) == ["__saved_model_init_op", "opt", "serving_default"]
    assert signatures["opt"].defaults["seed"].int_val == [7]
    x = found["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT"
    assert x["tensor_shape"]["dim"][1] == {"size": "2", "name": ""}


# Predict in rows.


def test_rows_of_several_inputs_and_outputs_are_objects(post):
    rows = [{"x": [1, 2], "n": 0}, {"n": 1, "x": [3, 4.5]}]

    assert post("vec/versions/1:predict", {"instances": rows}) == (
        200,
        {
            "predictions": [
                {"y": [1.0, 2.0], "n1": 1, "s": "0", "l": 0, "b": False},
                {"y": [3.0, 4.5], "n1": 2, "s": "1", "l": 1, "b": True},
            ]
        },
    )


@pytest.mark.parametrize(
    ("instances", "predictions"),
    [
        ([1, 2.5], [2.0, 5.0]),
        ([[1, 2], [3, 4]], [[2.0, 4.0], [6.0, 8.0]]),
        ([{"x": 1}], [2.0]),
        ([{"x": [[1], [2]]}], [[[2.0], [4.0]]]),
        ([[], []], [[], []]),
        ([[[]], [[]]], [[[]], [[]]]),
    ],
)
def test_rows_of_one_output_are_a_plain_list(post, instances, predictions):
    assert post("echo:predict", {"instances": instances}) == (200, {"predictions": predictions})


def test_the_text_of_an_answer_has_the_stock_servers_form(served, ask):
    body = ask(served, "POST", "/v1/models/echo:predict", {"instances": [1.25, 1.5]})[1]

    assert body == b'{\n    "predictions": [2.5, 3.0\n    ]\n}'


def test_an_output_without_rows_has_no_row_form(post):
    document = {"signature_name": "total", "instances": [1, 2]}

    error = "Tensor name: total has no shape information "
    assert post("echo:predict", document) == refused(400, error)


def test_outputs_of_different_sizes_have_no_row_form(post):
    document = {"signature_name": "uneven", "instances": [1, 2]}

    error = "Tensor name: b has inconsistent batch size: 1 expecting: 2"
    assert post("echo:predict", document) == refused(400, error)


def failed(row, error, key=None):
    where = f"{row}" if key is None else f"{row} key: {key}"
    return f"Failed to process element: {where} of 'instances' list. Error: {error}"


@pytest.mark.parametrize(
    ("instances", "error"),
    [
        (
            [1, 2],
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map",
        ),
        (
            [{"x": [1, 2], "n": 0}, {"x": [1, 2]}],
            "Failed to process element: 1 of 'instances' list. JSON object: "
            '{\n    "x": [\n        1,\n        2\n    ]\n} keys must be equal to: n,x',
        ),
        (
            [{"x": [1, 2], "n": 0, "zz": 1}],
            failed(0, "INVALID_ARGUMENT: JSON object: does not have named input: zz", key="zz"),
        ),
        ([{"x": [1, 2], "n": 0}, [1]], "Expecting object but got list at item 1 of input list"),
        (
            [{"x": [1, 2], "n": 0}, {"x": [1, 2, 3], "n": 0}],
            failed(1, "INVALID_ARGUMENT: Expecting tensor size: 2 but got: 3", key="x"),
        ),
        (
            [{"x": [1, 2], "n": 0}, {"x": [[1], [2]], "n": 0}],
            failed(1, "INVALID_ARGUMENT: Expecting shape [2] but got: [2,1]", key="x"),
        ),
        (
            [{"x": [1, "2"], "n": 0}],
            failed(
                0,
                'INVALID_ARGUMENT: JSON Value: "2" Type: String is not of expected type: float',
                key="x",
            ),
        ),
    ],
)
def test_rows_that_do_not_fit_the_signature_are_refused(post, instances, error):
    assert post("vec:predict", {"instances": instances}) == refused(400, error)


@pytest.mark.parametrize(
    ("instances", "error"),
    [
        ([1, {"x": 1}], "Expecting value/list but got object at item 1 of input list"),
        (
            [[1, [2]]],
            failed(0, "INVALID_ARGUMENT: Encountered list at unexpected level: 1 expected < 1"),
        ),
        (
            [[[1, 2], [3]]],
            failed(
                0,
                "INVALID_ARGUMENT: Encountered list at unexpected size: 1 at level: 1 expected "
                "size: 2",
            ),
        ),
        (
            [[[1], 2]],
            failed(
                0,
                "INVALID_ARGUMENT: JSON Value: 2 found at incorrect level: 2 in the JSON DOM. "
                "Expected at level: 2",
            ),
        ),
        (
            [1, None],
            failed(
                1,
                "INVALID_ARGUMENT: JSON Value: null Type: Null is not of expected type: float",
            ),
        ),
        (
            [16777216],
            failed(
                0,
                "INVALID_ARGUMENT: Cannot convert JSON value: 16777216 to float without loss of "
                "precision.",
            ),
        ),
    ],
)
def test_values_that_are_no_tensor_are_refused(post, instances, error):
    assert post("echo:predict", {"instances": instances}) == refused(400, error)


# Predict in columns.


def test_columns_are_objects_of_lists(post):
    inputs = {"x": [[1, 2], [3, 4]], "n": [0, 1], "ignored": 5}

    assert post("vec/versions/1:predict", {"inputs": inputs}) == (
        200,
        {
            "outputs": {
                "y": [[1.0, 2.0], [3.0, 4.0]],
                "n1": [1, 2],
                "s": ["0", "1"],
                "l": [0, 1],
                "b": [False, True],
            }
        },
    )


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [(1.5, 3.0), ([1, 2], [2.0, 4.0]), ({"x": [[1]]}, [[2.0]]), ([], []), ([[], []], [[], []])],
)
def test_a_single_column_stands_for_itself(post, inputs, outputs):
    assert post("echo:predict", {"inputs": inputs}) == (200, {"outputs": outputs})


def test_an_output_without_rows_is_a_number_in_columns(post):
    document = {"signature_name": "total", "inputs": [1, 2]}

    assert post("echo:predict", document) == (200, {"outputs": 3.0})


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        (
            [[1, 2]],
            "inputs is a plain value/list, but expecting an object as multiple input tensors "
            "required as per tensorinfo_map",
        ),
        ({"x": [[1, 2]]}, "Missing named input: n in 'inputs' object."),
        (
            {"x": [[1, 2]], "n": [1.0]},
            "JSON Value: 1.0 Type: Number is not of expected type: int32",
        ),
        (
            {"x": [[1, 2]], "n": [True]},
            "JSON Value: true Type: True is not of expected type: int32",
        ),
        (
            {"x": [[1, 2]], "n": [2**31]},
            f"JSON Value: {2**31} Type: Number is not of expected type: int32",
        ),
    ],
)
def test_columns_that_do_not_fit_the_signature_are_refused(post, inputs, error):
    assert post("vec:predict", {"inputs": inputs}) == refused(400, error)


# Defaults, signatures, documents.


def test_an_input_with_a_default_must_be_sent_over_rest(post):
    document = {"signature_name": "opt", "inputs": {"text": ["a"], "seed": [9]}}

    error = "Missing named input: temperature in 'inputs' object."
    assert post("vec:predict", document) == refused(400, error)


def test_a_signature_is_chosen_by_its_name(post):
    document = {
        "signature_name": "opt",
        "instances": [{"text": "a", "temperature": 0.5, "seed": 9}],
    }

    assert post("vec:predict", document) == (200, {"predictions": ["a|0.5|9"]})


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (
            {"signature_name": "zzz", **ROW},
            'Serving signature name: "zzz" not found in signature def',
        ),
        (
            {"signature_name": 5},
            'JSON Value: {\n    "signature_name": 5\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        ({}, "Missing 'inputs' or 'instances' key"),
        (
            {"instances": 1},
            "JSON Value: {\n    \"instances\": 1\n} Excepting 'instances' to be an list/array",
        ),
        (
            {"instances": []},
            "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array",
        ),
        (
            {"instances": [], "inputs": 1},
            'JSON Value: {\n    "instances": [],\n    "inputs": 1\n} Not formatted correctly '
            "expecting only one of 'inputs' or 'instances' keys to exist ",
        ),
    ],
)
def test_a_document_of_another_form_is_refused(post, document, error):
    assert post("vec:predict", document) == refused(400, error)


def test_a_signature_without_inputs_cannot_be_asked(post):
    error = "Failed to get input map for signature: nothing_in"
    document = {"signature_name": "nothing_in", "instances": [1]}

    assert post("echo:predict", document) == refused(400, error)


def test_an_error_of_the_ops_keeps_its_code(post):
    status, found = post("vec:predict", {"inputs": {"x": [[1, 2]], "n": [[[0]]]}})
    assert status == 200  # the ops take any shape

    document = {
        "signature_name": "opt",
        "inputs": {"text": ["a", "b", "c"], "temperature": [1.0], "seed": [1, 2]},
    }
    status, found = post("vec:predict", document)

    assert status == 400
    assert "shape" in found["error"]


# Values.


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("float32", [0.1, -0.0, 16777215, 1e30, math.inf, -math.inf]),
        ("float64", [0.1, 2**53 - 1, 1e300, 1e-300]),
        ("int8", [-128, 127]),
        ("uint8", [0, 255]),
        ("int32", [-(2**31), 2**31 - 1]),
        ("uint32", [0, 2**32 - 1]),
        ("int64", [-(2**63), 2**63 - 1]),
        ("uint64", [0, 2**64 - 1]),
        ("bool", [True, False]),
    ],
)
def test_values_of_every_dtype_come_back_as_they_were_sent(post, dtype, values):
    document = {"signature_name": dtype, "instances": values}
    status, found = post("echo:predict", document)

    assert status == 200
    if dtype == "float32":
        found["predictions"] = np.array(found["predictions"], np.float32).tolist()
        values = np.array(values, np.float32).tolist()
    assert found["predictions"] == values


def test_numbers_are_written_as_the_stock_server_writes_them(served, ask):
    sent = b'{"signature_name": "float32", "inputs": [0.2, 9000000, 3e-5, 0.123456789, 2, NaN, '
    sent += b"Infinity, -Infinity, 1234567, -0.0]}"
    body = ask(served, "POST", "/v1/models/echo:predict", sent)[1].decode()

    values = "[0.2, 9e+06, 3e-05, 0.123456791, 2.0, NaN, Infinity, -Infinity, 1234567.0, -0.0]"
    assert body == '{\n    "outputs": ' + values + "\n}"


@pytest.mark.parametrize(
    ("dtype", "value", "shown"),
    [
        ("float32", 1e39, "1e+39 to float"),
        ("float64", 2**53, "9007199254740992 to double"),
    ],
)
def test_a_number_that_would_be_changed_is_refused(post, dtype, value, shown):
    document = {"signature_name": dtype, "inputs": value}

    error = f"Cannot convert JSON value: {shown} without loss of precision."
    assert post("echo:predict", document) == refused(400, error)


def test_what_is_larger_than_any_integer_is_a_float(post):
    document = {"signature_name": "float32", "inputs": 2**64}

    assert post("echo:predict", document) == (200, {"outputs": float(f"{2.0**64:.9g}")})


@pytest.mark.parametrize("number", [b"9" * 400, b"9" * 5000])
def test_an_integer_beyond_all_floats_is_a_parse_error(served, ask, number):
    sent = b'{"signature_name": "float64", "inputs": %s}' % number
    status, body = ask(served, "POST", "/v1/models/echo:predict", sent)

    error = "JSON Parse error: Number too big to be stored in double."
    assert (status, json.loads(body)) == refused(400, error)


def test_dtypes_that_json_has_no_values_for_are_refused(post):
    takes = post("echo:predict", {"signature_name": "takes_half", "instances": [1]})
    gives = post("echo:predict", {"signature_name": "gives_half", "instances": [1]})

    error = failed(0, "UNIMPLEMENTED: Conversion of JSON Value: 1 to type: half")
    assert takes == refused(400, error)
    assert gives == refused(400, "Failed to write JSON value for tensor type: half")


def test_strings_come_back_with_every_character(post):
    texts = ["", "Straße 🙂", 'a "quote" \\ \n\t\x00\x1f', "\u2028"]

    document = {"signature_name": "text", "instances": texts}
    assert post("echo:predict", document) == (200, {"predictions": texts})


def test_bytes_that_are_no_text_pass_through(served, ask):
    sent = b'{"signature_name": "text", "instances": ["\xff\xfe"]}'

    body = ask(served, "POST", "/v1/models/echo:predict", sent)[1]
    assert body == b'{\n    "predictions": ["\xff\xfe"\n    ]\n}'


@pytest.mark.parametrize("sent", ["AP/+", "AP/+ \n", "AP/ +"])
def test_base64_is_bytes_both_ways(post, sent):
    document = {"signature_name": "bytes", "instances": [{"b64": sent}]}

    assert post("echo:predict", document) == (200, {"predictions": [{"b64": "AP/+"}]})


@pytest.mark.parametrize(
    ("key", "value", "answer"),
    [
        ("instances", [{"text": {"b64": "YQ"}}], {"predictions": ["a"]}),
        ("instances", [[{"b64": "YQ=="}, "b"]], {"predictions": [["a", "b"]]}),
        ("inputs", {"b64": "YQ=="}, {"outputs": "a"}),
        ("inputs", {"text": {"b64": "YQ=="}}, {"outputs": "a"}),
    ],
)
def test_base64_stands_wherever_a_string_does(post, key, value, answer):
    assert post("echo:predict", {"signature_name": "text", key: value}) == (200, answer)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"b64": "a"}, "Unable to base64 decode"),
        ({"b64": "YQ==="}, "Unable to base64 decode"),
        ({"b64": "*"}, "Unable to base64 decode"),
        (
            {"b64": 1},
            'JSON Value: {\n    "b64": 1\n} not formatted correctly for base64 data',
        ),
        (1, "JSON Value: 1 Type: Number is not of expected type: string"),
    ],
)
def test_what_is_no_string_is_refused(post, value, error):
    document = {"signature_name": "text", "inputs": {"text": [value]}}

    assert post("echo:predict", document) == refused(400, error)


# Documents that are no JSON.


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"[1]", "JSON Value: [\n    1\n] Is not object"),
        (b"1.5", "JSON Value: 1.5 Is not object"),
        (b'{"a": x}', "JSON Parse error: Invalid value. at offset: 6"),
        (b"{a: 1}", "JSON Parse error: Missing a name for object member. at offset: 1"),
        (
            b'{"a" 1}',
            "JSON Parse error: Missing a colon after a name of object member. at offset: 5",
        ),
        (
            b'{"a": [1 2]}',
            "JSON Parse error: Missing a comma or ] after an array element. at offset: 9",
        ),
        (
            b'{"a": "[" "b": 1}',
            "JSON Parse error: Missing a comma or } after an object member. at offset: 10",
        ),
        (
            b"{} {}",
            "JSON Parse error: The document root must not be followed by other values. "
            "at offset: 3",
        ),
    ],
)
def test_what_is_no_json_is_a_parse_error(served, ask, sent, error):
    status, body = ask(served, "POST", "/v1/models/vec:predict", sent)

    assert (status, json.loads(body)) == refused(400, error)


@pytest.mark.parametrize(
    "sent",
    [b'{"a": "x}', b'{"a": "\\q"}', b'{"a": "\\u12"}', b'{"a": "\n"}', b'{"a": 1,}', b"\x00"],
)
def test_every_other_fault_of_json_is_a_parse_error(served, ask, sent):
    status, body = ask(served, "POST", "/v1/models/vec:predict", sent)

    assert status == 400
    assert json.loads(body)["error"].startswith("JSON Parse error: ")


def test_half_of_a_surrogate_pair_is_a_parse_error(served, ask):
    sent = b'{"signature_name": "text", "instances": ["\\ud800"]}'
    status, body = ask(served, "POST", "/v1/models/echo:predict", sent)

    assert status == 400
    assert "The surrogate pair in string is invalid." in json.loads(body)["error"]


def test_of_a_key_that_comes_twice_the_first_counts(served, ask):
    sent = b'{"instances": [1], "instances": [2]}'

    assert b"[2.0" in ask(served, "POST", "/v1/models/echo:predict", sent)[1]


def test_a_parse_error_wins_over_an_unknown_model(post):
    assert post("nope:predict", b"{")[0] == 400


# Classify and Regress.


EXAMPLES = [{"x": 0.25, "word": "good"}, {}, {"x": [0.75], "word": {"b64": "YQ=="}}]


def test_classify_gives_labels_and_scores_for_each_example(post):
    assert post("grades:classify", {"examples": EXAMPLES}) == (
        200,
        {
            "results": [
                [["good", 0.25], ["good?", 0.75]],
                [["none", 0.5], ["none?", 0.5]],
                [["a", 0.75], ["a?", 0.25]],
            ]
        },
    )


def test_examples_share_their_context(post):
    document = {"context": {"word": "all"}, "examples": [{"x": 0.25}]}

    found = post("grades:classify", document)[1]["results"]
    assert found == [[["all", 0.25], ["all?", 0.75]]]


def test_regress_gives_a_number_for_each_example(post):
    document = {"signature_name": "regress", "examples": EXAMPLES}

    assert post("grades/versions/4:regress", document) == (200, {"results": [0.5, 1.0, 1.5]})


@pytest.mark.parametrize(
    ("call", "document", "error"),
    [
        ("vec:classify", {"examples": [{}]}, "Expected one input Tensor."),
        ("grades:regress", {"examples": [{}]}, "Expected one output Tensor."),
        (
            "grades:classify",
            {},
            "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
        ),
        (
            "grades:classify",
            {"examples": {}},
            "JSON Value: {\n    \"examples\": {}\n} Expecting 'examples' value to be an list/array",
        ),
        (
            "grades:classify",
            {"examples": []},
            "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array",
        ),
        ("grades:classify", {"examples": [1]}, "Example must be JSON object but got JSON Number"),
        (
            "grades:classify",
            {"examples": [{"x": None}]},
            "Feature: x has element with unexpected JSON type: Null",
        ),
        (
            "grades:classify",
            {"examples": [{"x": [[1]]}]},
            "Feature: x has element with unexpected JSON type: Array",
        ),
        (
            "grades:classify",
            {"examples": [{"x": {"b65": ""}}]},
            "Feature: x has element with unexpected JSON type: Object",
        ),
        (
            "grades:classify",
            {"examples": [{"x": [1.5, "a"]}]},
            "Unexpected element type in feature: x expecting type: float",
        ),
        (
            "grades:classify",
            {"examples": [{"x": [True, 0.5]}]},
            "Unexpected element type in feature: x expecting type: int64",
        ),
        (
            "grades:classify",
            {"examples": [{"x": 2**63}]},
            "Feature: x has uint64 element. Only int64 is supported.",
        ),
        (
            "grades:classify",
            {"examples": [{"x": 1e39}]},
            "Cannot convert JSON value: 1e+39 to float without loss of precision.",
        ),
    ],
)
def test_examples_that_do_not_fit_are_refused(post, call, document, error):
    assert post(call, document) == refused(400, error)
