import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc import text, trace
from yqc.quantizing import Response, response, take_apart

X = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.act, self.leaky = nn.Conv2d(3, 4, 1), nn.SiLU(), nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.leaky(self.act(self.conv(x)) + x.mean())
        return y


def nodes(gm: fx.GraphModule) -> dict[str, fx.Node]:
    return {node.name: node for node in gm.graph.nodes}


def test_a_silu_taken_apart_keeps_its_name_and_numbers() -> None:
    gm = trace(Net().eval(), X)
    want = gm(X)
    sigmoid = take_apart(gm, nodes(gm)["act"])
    gm.recompile()
    assert sigmoid is not None
    assert text(gm).splitlines()[2:4] == [
        "%act_sigmoid: f32[1,4,4,4] = sigmoid(%conv)",
        "%act: f32[1,4,4,4] = mul(%conv, %act_sigmoid)",
    ]
    torch.testing.assert_close(gm(X), want)
    assert take_apart(gm, nodes(gm)["leaky"]) is None


def test_the_response_is_the_activation_in_either_form_and_nothing_else() -> None:
    gm = trace(Net().eval(), X)
    found = response(gm, nodes(gm)["conv"])
    assert found is not None
    torch.testing.assert_close(found.function(X), F.silu(X))
    take_apart(gm, nodes(gm)["act"])
    product = nodes(gm)["act"]
    assert response(gm, nodes(gm)["conv"]) == Response(F.silu, product)
    leaky = response(gm, nodes(gm)["add"])
    assert leaky is not None
    torch.testing.assert_close(leaky.function(X), F.leaky_relu(X, 0.1))
    assert response(gm, nodes(gm)["x"]) is None
    assert response(gm, nodes(gm)["act"]) is None
