"""The three networks of hippodeep, rebuilt from the shapes of their published state dicts (extra ``torch``).

Thyreau et al., Med Image Anal 2018, doi 10.1016/j.media.2017.11.004; weights MIT. Runs in the import job only: what
is served is the ONNX export. Zero padding keeps sizes unless a layer is called valid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

Weights = dict[str, Tensor]


class _FromWeights(nn.Module):
    """Layers named and sized by a state dict: nothing is declared twice."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self._names = sorted({name.rpartition(".")[0] for name in weights})
        for name, value in weights.items():
            self.register_buffer(name.replace(".", "__"), value.detach().clone())

    def of(self, layer: str, part: str) -> Tensor:
        """Return a part of a layer, such as ``of("conv0a", "weight")``."""
        found: Tensor = getattr(self, f"{layer}__{part}")
        return found

    def conv(self, layer: str, x: Tensor, *, same: bool = True) -> Tensor:
        """Convolve; ``same`` pads with zeros by half the kernel."""
        weight = self.of(layer, "weight")
        padding = [size // 2 if same else 0 for size in weight.shape[2:]]
        return F.conv3d(x, weight, self.of(layer, "bias"), padding=padding)

    def norm(self, layer: str, x: Tensor) -> Tensor:
        """Batch normalisation by the running statistics."""
        mean, variance = self.of(layer, "running_mean"), self.of(layer, "running_var")
        return F.batch_norm(x, mean, variance, self.of(layer, "weight"), self.of(layer, "bias"), eps=1e-5)


class HeadNetwork(_FromWeights):
    """``params_head``: U-Net on 64^3, z-scored head -> brain, cortex, cerebrum and one more channel, 0..1."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, 64, 64, 64] -> [n, 4, 64, 64, 64]."""
        skips = []
        for level in range(4):
            x = F.elu(self.conv(f"conv{level}a", x))
            x = F.elu(self.norm(f"bn{level}a", self.conv(f"conv{level}b", x)))
            if level < 3:
                skips.append(x)
                x = F.max_pool3d(x, 2)
        for level in (2, 1, 0):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.elu(self.conv(f"conv{level}u", x))
            x = torch.cat([x, skips[level]], dim=1)
            x = F.elu(self.norm(f"bn{level}u", self.conv(f"conv{level}v", x)))
        return torch.sigmoid(self.conv("conv1x", x))


class AffineNetwork(_FromWeights):
    """``paramsaffineta``: two masked channels on 64^3 -> the 3 x 4 of the template-to-image affine."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, 2, 64, 64, 64] -> [n, 12]."""
        x = F.max_pool3d(F.relu(self.conv("convaff1", x)), 2)
        for layer in (2, 3, 4):
            x = self.conv(f"convaff{layer}", x)
            weight, bias = self.of(f"bnaff{layer}", "weight"), self.of(f"bnaff{layer}", "bias")
            x = F.max_pool3d(F.relu(F.layer_norm(x, list(weight.shape), weight, bias, eps=1e-5)), 2)
        x = F.relu(self.conv("convaff5", x))
        return self.conv("convaff6", x, same=False).flatten(1)


class HippocampusNetwork(_FromWeights):
    """``hippodeep``: a right-sided crop 48 x 72 x 64 -> probability of hippocampus, 44 x 68 x 60."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, 48, 72, 64] -> [n, 1, 44, 68, 60]."""
        for layer in ("conv0a_0", "conv0a_1", "conv0a", "convf1"):
            x = F.relu(self.conv(layer, x, same=False))
        features = x
        pooled = F.max_pool3d(features, 2)
        x = F.relu(self.conv("convout1", F.relu(self.conv("convout0", self.norm("bn1", pooled)))) + pooled)
        pooled = F.max_pool3d(x, 2)
        x = F.relu(self.conv("convout2", F.relu(self.conv("convout2p", self.norm("bn2", pooled)))) + pooled)
        for layer in ("convlx3", "convlx5"):
            x = F.interpolate(F.relu(self.conv(layer, x)), scale_factor=2, mode="nearest")
        out = torch.sigmoid(self.conv("convlx8", F.relu(self.conv("convlx7", x))))
        gated = torch.sigmoid(self.conv("blur", out)) * features
        x = torch.cat([out, F.leaky_relu(self.conv("conv_extract", gated), 0.01)], dim=1)
        return torch.sigmoid(self.conv("convout1x", F.relu(self.conv("convmix", x))))


NETWORKS: dict[str, tuple[type[_FromWeights], dict[str, Any]]] = {
    "head": (HeadNetwork, {"input": [1, 64, 64, 64], "output": [4, 64, 64, 64]}),
    "affine": (AffineNetwork, {"input": [2, 64, 64, 64], "output": [12]}),
    "hippocampus": (HippocampusNetwork, {"input": [1, 48, 72, 64], "output": [1, 44, 68, 60]}),
}
"""Network by role, with the sizes of one item."""


def role_of(weights: Weights) -> str | None:
    """Return the role of a state dict by its layer names, None for a stranger."""
    marks = {"head": "conv1x.weight", "affine": "convaff6.weight", "hippocampus": "conv_extract.weight"}
    return next((role for role, mark in marks.items() if mark in weights), None)
