"""The activation that alone reads a tensor, as a module and as x * sigmoid(x)."""

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc import trace
from yqc.quantizing import OnlyActivation, find_only_activation

X = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, *, decomposed: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.act, self.leaky = nn.Conv2d(3, 4, 1), nn.SiLU(), nn.LeakyReLU(0.1)
        self.decomposed = decomposed

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = y * torch.sigmoid(y) if self.decomposed else self.act(y)
        out: Tensor = self.leaky(z + x.mean())
        return out


def nodes(gm: fx.GraphModule) -> dict[str, fx.Node]:
    return {node.name: node for node in gm.graph.nodes}


def test_the_activation_is_found_in_either_form_and_nothing_else() -> None:
    whole = trace(Net(decomposed=False).eval(), X)
    found = find_only_activation(whole, nodes(whole)["conv"])
    assert found is not None
    torch.testing.assert_close(found.function(X), F.silu(X))
    leaky = find_only_activation(whole, nodes(whole)["add"])
    assert leaky is not None
    torch.testing.assert_close(leaky.function(X), F.leaky_relu(X, 0.1))
    assert find_only_activation(whole, nodes(whole)["x"]) is None
    assert find_only_activation(whole, nodes(whole)["act"]) is None
    apart = trace(Net(decomposed=True).eval(), X)
    assert find_only_activation(apart, nodes(apart)["conv"]) == OnlyActivation(
        F.silu, nodes(apart)["mul"]
    )
