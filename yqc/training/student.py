"""A graph that is being trained: which of its tensors learn, and how they go back to the graph.

The student shares its modules with the graph, so what it learns is in the graph already, but for
quantized tensors: see `yqc.training.fake_quantize`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from yqc.training.fake_quantize import FakeQuantize, Latent, make_trainable
from yqc.training.heads import Tap, tapped


class Student:
    """The trainable form of a graph.

    Args:
        gm: the graph; its own nodes are not touched, its modules are shared.
        taps: what it computes.
        device: where it is moved; `close` moves it back.
        sources: names of the nodes whose values it is given; nothing before them learns. The
            placeholders by default.

    Raises:
        PassError: a quantizer stands where gradients cannot be passed around it.
    """

    def __init__(
        self, gm: fx.GraphModule, taps: Sequence[Tap], device: str, sources: Sequence[str] = ()
    ) -> None:
        self.gm, self.device = gm, device
        self.module = tapped(gm, taps, sources)
        self.latents = make_trainable(self.module)
        self.quantized = bool(self.latents)
        self.norms = [m for m in self.module.modules() if isinstance(m, nn.BatchNorm2d)]
        self._asked = {id(p): p.requires_grad for p in self.module.parameters()}
        for parameter in self.module.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        self._counts = {
            k: v.clone() for k, v in self.module.state_dict().items() if not v.is_floating_point()
        }
        self.module.to(device)

    def learn(self, *, freeze_bn: bool) -> None:
        """Put the modules in training mode; batch norms only if they are to measure anew."""
        self.module.train()
        if freeze_bn:
            for norm in self.norms:
                norm.eval()

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by name."""
        return {k: p for k, p in self.module.named_parameters() if p.requires_grad}

    @property
    def state(self) -> dict[str, Tensor]:
        """Everything that training changes: parameters, and the statistics of batch norms."""
        return {k: v.detach() for k, v in self.module.state_dict().items() if v.is_floating_point()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Go to another state, in place."""
        own = self.module.state_dict()
        for name, value in state.items():
            own[name].copy_(value)

    def close(self) -> None:
        """Write what was learned into the graph, and leave its modules as they were found.

        How many batches a batch norm has seen is no part of what it computes, and is put back.
        """
        self.load(self._counts)
        self.module.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.module.eval()
        for latent in self.latents:
            latent.store(self.gm)
        for parameter in self.module.parameters():
            parameter.requires_grad_(self._asked.get(id(parameter), False))
            parameter.grad = None


__all__ = ["FakeQuantize", "Latent", "Student"]
