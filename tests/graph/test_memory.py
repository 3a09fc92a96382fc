"""Channels last for a while: the same numbers, and weights as they were."""

import pytest
import torch
from torch import nn

import yqc
from yqc.graph.memory import as_weights, batched, channels_last, flat

X = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 4, 1)).eval()


def test_weights_are_as_they_were_and_numbers_too() -> None:
    module = net()
    want, strides = module(X), [p.stride() for p in module.parameters()]
    with channels_last(module):
        laid = as_weights(X, module)
        assert laid.is_contiguous(memory_format=torch.channels_last)
        assert module(laid).is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(module(laid), want)
    assert [p.stride() for p in module.parameters()] == strides
    assert as_weights(X, module).is_contiguous()
    assert as_weights(X, nn.Conv2d(3, 4, 1)).is_contiguous()  # a kernel of one is both


def test_weights_are_laid_back_after_an_error() -> None:
    module = net()
    with pytest.raises(ZeroDivisionError), channels_last(module):
        raise ZeroDivisionError
    assert all(p.is_contiguous() for p in module.parameters())


def test_vectors_are_in_one_order() -> None:
    last = X.contiguous(memory_format=torch.channels_last)
    values, others = flat(last, X * 2)
    assert torch.equal(values * 2, others)
    assert values.data_ptr() == last.data_ptr()  # nothing was copied
    assert flat(X)[0].data_ptr() == X.data_ptr()
    assert torch.equal(flat(X[0, 0])[0], X[0, 0].reshape(-1))


def test_images_are_joined_as_memory_allows() -> None:
    gm = yqc.trace(nn.Conv2d(3, 8, 3), X[:1])
    images = [X[:1] + i for i in range(5)]
    one = 4 * (3 * 8 * 6 + 8 * 6 * 4)  # the image, and what the convolution makes of it
    assert [len(b) for b in batched(gm, images, 2 * one)] == [2, 2, 1]
    assert [len(b) for b in batched(gm, images, one - 1)] == [1] * 5
    assert torch.equal(torch.cat(batched(gm, images)), torch.cat(images))
