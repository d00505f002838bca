"""Encoders and decoders of images."""

import pytest
import torch

from aime_gym.models.images import (
    IMAGE_ARCHITECTURES,
    ImageDecoder,
    ImageEncoder,
    _from_patches,
    _to_patches,
    as_floats,
)

SHAPES = [(8, 8, 3), (16, 16, 1), (15, 22, 3), (32, 32, 3), (64, 48, 3), (84, 84, 9), (3, 20, 24)]


def frames(shape, *leading):
    return torch.randint(256, (*leading, *shape), dtype=torch.uint8)


def cases():
    yield from ((kind, shape) for kind in ("stages", "patch") for shape in SHAPES)
    yield from (("ha", shape) for shape in ((64, 64, 3), (64, 64, 1), (3, 64, 64)))


@pytest.mark.parametrize(("kind", "shape"), list(cases()))
def test_frames_of_any_size_go_in_and_come_out(kind, shape):
    encoder, decoder = ImageEncoder(shape, kind, 4), ImageDecoder(5, shape, kind, 4, sigmoid=False)
    seen = frames(shape, 2, 3)
    assert encoder(seen).shape == (2, 3, encoder.size)
    torch.testing.assert_close(encoder(seen)[1, 2], encoder(seen[1, 2]), atol=1e-5, rtol=1e-4)
    decoded = decoder(torch.randn(2, 3, 5))
    assert decoded.shape == as_floats(seen, shape).shape
    for module, out in ((encoder, encoder(seen)), (decoder, decoded)):
        grads = torch.autograd.grad(out.square().sum(), list(module.parameters()))
        assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("kind", IMAGE_ARCHITECTURES)
def test_channels_may_come_first(kind):
    last, first = ImageEncoder((64, 64, 3), kind, 4), ImageEncoder((3, 64, 64), kind, 4)
    first.load_state_dict(last.state_dict())
    seen = frames((64, 64, 3), 2)
    torch.testing.assert_close(first(seen.movedim(-1, -3)), last(seen))


def test_bytes_are_numbers_from_zero_to_one():
    seen = torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(as_floats(seen, (1, 1, 3)), torch.tensor([[[[0, 128 / 255, 1]]]]))
    encoder, seen = ImageEncoder((16, 16, 3), "patch", 4), frames((16, 16, 3), 2)
    assert torch.equal(encoder(seen), encoder(as_floats(seen, (16, 16, 3))))


def test_patches_are_put_together_again():
    images = torch.randn(3, 10, 13, 2)
    assert _to_patches(images).shape == (3, 3, 4, 32)
    assert torch.equal(_from_patches(_to_patches(images), 10, 13), images)


def test_the_papers_network():
    encoder, decoder = ImageEncoder((64, 64, 3), "ha", 32), ImageDecoder(542, (64, 64, 3), "ha", 32, sigmoid=True)
    assert encoder.size == 1024
    assert [tuple(m.weight.shape[:2]) for m in encoder.net if hasattr(m, "weight")] == [
        (32, 3),
        (64, 32),
        (128, 64),
        (256, 128),
    ]
    assert [m.kernel_size[0] for m in decoder.net if hasattr(m, "weight")] == [5, 5, 6, 6]
    decoded = decoder(10 * torch.randn(4, 542))
    assert 0 <= decoded.min() <= decoded.max() <= 1
    # The last convolution has no activation.
    assert encoder(torch.zeros(1, 64, 64, 3)).min() < 0
    shifted = ImageDecoder(542, (64, 64, 3), "ha", 32, sigmoid=False)
    shifted.load_state_dict(decoder.state_dict())
    features = torch.randn(4, 542)
    torch.testing.assert_close((shifted(features) - 0.5).sigmoid(), decoder(features))


def test_the_first_layer_of_the_papers_decoder_is_a_transposed_convolution():
    torch.manual_seed(0)
    decoder = ImageDecoder(5, (64, 64, 3), "ha", 2, sigmoid=False).double()
    features = torch.randn(3, 4, 5, dtype=torch.float64)
    plain = decoder.net(decoder.linear(features.flatten(0, 1)).view(12, *decoder.first_map)) + 0.5
    frames = decoder(features)
    torch.testing.assert_close(frames, plain.permute(0, 2, 3, 1).view(3, 4, 64, 64, 3))
    weights = list(decoder.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(frames.square().sum(), weights),
        torch.autograd.grad(plain.square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_size_that_a_network_does_not_take():
    with pytest.raises(ValueError, match=r"^image_encoder: expected 'stages' or 'patch' for images of 32 x 32"):
        ImageEncoder((32, 32, 3), "ha", 32)
    with pytest.raises(ValueError, match=r"^image_encoder: expected images of at least 8 x 8, got 4 x 16"):
        ImageEncoder((4, 16, 3), "patch", 32)


@pytest.mark.parametrize("kind", ["stages", "patch"])
def test_a_frame_can_be_learnt(kind):
    torch.manual_seed(0)
    shape = (16, 16, 3)
    seen = frames((4, 4, 3), 4).repeat_interleave(4, 1).repeat_interleave(4, 2)
    encoder, decoder = ImageEncoder(shape, kind, 8), ImageDecoder(16, shape, kind, 8, sigmoid=False)
    between = torch.nn.Linear(encoder.size, 16)
    adam = torch.optim.Adam([*encoder.parameters(), *between.parameters(), *decoder.parameters()], 3e-3)
    for _ in range(150):
        error = (decoder(between(encoder(seen))) - as_floats(seen, shape)).square().mean()
        adam.zero_grad()
        error.backward()
        adam.step()
    assert error < 0.1 * as_floats(seen, shape).var()
