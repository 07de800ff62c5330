"""The one ``model.py`` of all networks on Triton's Python backend: ONNX Runtime on CPU, tensors by DLPack both ways.

The NumPy calls of the backend (``as_numpy``, ``Tensor(name, array)``) give wrong values under NumPy 2 on servers whose
stub was built for NumPy 1; DLPack is right on every one. Copied into rendered repositories; imports nothing of ours.
"""

import json
import os

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Triton's interface of a model."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters.get("threads", "2"))
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [entry["name"] for entry in config["input"]]
        self.outputs = [entry["name"] for entry in config["output"]]

    def execute(self, requests):
        """Run all requests of a dynamic batch as one batch and hand each its share."""
        feeds = [
            [np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name)) for name in self.inputs]
            for request in requests
        ]
        counts = [len(tensors[0]) for tensors in feeds]
        try:
            batch = {
                name: np.ascontiguousarray(np.concatenate([tensors[at] for tensors in feeds]))
                for at, name in enumerate(self.inputs)
            }
            results = self.session.run(self.outputs, batch)
        except Exception as error:
            failed = pb_utils.TritonError(f"the network failed with {type(error).__name__}")
            return [pb_utils.InferenceResponse(error=failed) for _ in requests]
        answers, start = [], 0
        for count in counts:
            tensors = [
                pb_utils.Tensor.from_dlpack(name, np.ascontiguousarray(result[start : start + count]))
                for name, result in zip(self.outputs, results)
            ]
            answers.append(pb_utils.InferenceResponse(output_tensors=tensors))
            start += count
        return answers
