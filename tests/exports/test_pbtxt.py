"""What is written in protocol buffers' text format is read back by protocol buffers."""

from __future__ import annotations

from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from fairway.exports.pbtxt import Name, entries, pbtxt

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts, st.lists(st.integers(-1, 2**40)), st.dictionaries(texts, texts, max_size=4))
def test_a_configuration_survives_the_round_trip(name: str, dims: list[int], parameters: dict[str, str]) -> None:
    message = {
        "name": name,
        "input": [{"name": "x", "data_type": Name("TYPE_FP32"), "dims": dims}],
        "parameters": entries({key: {"string_value": value} for key, value in parameters.items()}),
        "dynamic_batching": {"preserve_ordering": True},
    }
    read = text_format.Parse(pbtxt(message), model_config_pb2.ModelConfig())
    assert read.name == name
    assert list(read.input[0].dims) == dims
    assert {key: each.string_value for key, each in read.parameters.items()} == parameters
    assert read.dynamic_batching.preserve_ordering
