"""A policy as an ONNX file."""

from collections.abc import Mapping
from typing import Any

import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from awr_exp.exporting.formats import Acting


def encoded(program: Any, about: Mapping[str, str]) -> bytes:
    """The file, with the texts in its metadata; its input is obs, and its output action."""
    made = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["obs"], output_names=["action"])
    assert made is not None
    made.model.metadata_props.update(about)
    model = made.model_proto
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.ClearField("value_info")
    for part in (*model.graph.input, *model.graph.output, *model.graph.node, model.graph):
        # What it was made from, line by line.
        part.ClearField("metadata_props")
    return model.SerializeToString()


def acting(content: bytes) -> Acting:
    """What acts by the file, and also tells the noise that is drawn in it."""
    model = onnx.load_from_string(content)
    for node in model.graph.node:
        if node.op_type.startswith("RandomNormal"):
            drawn = onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)
            model.graph.output.append(drawn)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def act(obs: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        action, *noise = session.run(None, {"obs": obs})
        return action, noise[0] if noise else None

    return act
