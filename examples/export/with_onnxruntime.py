"""Acts by policy.onnx, with onnxruntime: python with_onnxruntime.py policy.onnx."""

import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
(given,) = session.get_inputs()
obs = np.zeros((2, given.shape[1]), np.float32)
(action,) = session.run(None, {"obs": obs})
print(session.get_modelmeta().custom_metadata_map["obs"])
print(action)
