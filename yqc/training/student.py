"""The graph in training: its trained tensors, and their way back into the graph.

The student shares its modules with the graph, so that trained tensors need no copy, except for
quantized ones: see `yqc.training.fake_quantize`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from yqc.training.fake_quantize import make_trainable
from yqc.training.heads import Tap, tap_graph


class Student:
    """The trainable form of a graph; its nodes stay as they are, its modules are shared.

    It returns the tensors of the taps. Its inputs are the values of `sources`, by default the
    placeholders; nothing before them is trained. `close` moves the modules back from the device.

    Raises:
        PassError: gradients cannot be passed around a quantizer.
    """

    def __init__(
        self, gm: fx.GraphModule, taps: Sequence[Tap], device: str, sources: Sequence[str] = ()
    ) -> None:
        self.gm, self.device = gm, device
        self.module = tap_graph(gm, taps, sources)
        self.latents = make_trainable(self.module)
        self.quantized = bool(self.latents)
        self.norms = [m for m in self.module.modules() if isinstance(m, nn.BatchNorm2d)]
        self._required = {id(p): p.requires_grad for p in self.module.parameters()}
        for parameter in self.module.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        self._counts = {
            k: v.clone() for k, v in self.module.state_dict().items() if not v.is_floating_point()
        }
        self.module.to(device)

    def set_training(self, *, freeze_bn: bool) -> None:
        """Put the modules in training mode; batch norms only if their statistics are updated."""
        self.module.train()
        if freeze_bn:
            for norm in self.norms:
                norm.eval()

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters, by name."""
        return {k: p for k, p in self.module.named_parameters() if p.requires_grad}

    @property
    def state(self) -> dict[str, Tensor]:
        """All that training changes: parameters, and the statistics of batch norms."""
        return {k: v.detach() for k, v in self.module.state_dict().items() if v.is_floating_point()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Write another state into the modules."""
        own = self.module.state_dict()
        for name, value in state.items():
            own[name].copy_(value)

    def close(self) -> None:
        """Write what was trained into the graph, and reset the modes of its modules.

        The number of batches that a batch norm has seen does not change its output, and is reset.
        """
        self.load_state(self._counts)
        self.module.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.module.eval()
        for latent in self.latents:
            latent.store(self.gm)
        for parameter in self.module.parameters():
            parameter.requires_grad_(self._required.get(id(parameter), False))
            parameter.grad = None
