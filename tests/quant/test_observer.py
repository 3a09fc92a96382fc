"""An observer that rounds computes what the two operators do, number for number."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from yqc.quant import Observer, dequantize_linear, quantize_linear
from yqc.quant.observer import DTYPES


@given(
    st.sampled_from(["uint8", "int8", "uint16", "int16"]),
    st.floats(1e-4, 10.0),
    st.floats(0.0, 1.0),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
)
def test_rounding_is_quantize_and_dequantize(
    dtype: str, scale: float, share: float, values: list[float]
) -> None:
    observer = Observer(dtype=dtype, symmetric=False, group="a", records=True, channels=1)
    limits = torch.iinfo(DTYPES[dtype])
    zero = round(limits.min + share * (limits.max - limits.min))
    observer.scale = torch.tensor(scale)
    observer.zero_point = torch.tensor(zero, dtype=DTYPES[dtype])
    # Ties between two steps, and values that saturate, among others.
    x = torch.tensor([*values, *(scale * k / 2 for k in range(-9, 10))]).view(1, 1, -1)
    q = quantize_linear(x, observer.scale, observer.zero_point)
    assert torch.equal(
        observer.rounded(x), dequantize_linear(q, observer.scale, observer.zero_point)
    )


def test_loads_what_was_saved_under_the_former_name_of_damage() -> None:
    observer = Observer(dtype="uint8", symmetric=False, group="a", records=True, channels=2)
    state = observer.state_dict()
    state["harm"] = state.pop("damage") + 3
    holder = torch.nn.ModuleDict({"x": observer})
    holder.load_state_dict({f"x.{name}": value for name, value in state.items()})
    assert float(observer.damage) == 3
