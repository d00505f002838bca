"""The networks of images."""

import torch

from aime_gym.models.images import ImageDecoder


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
