"""The Haar codec: nothing is lost, noise stays white, and it is loaded and used like any VAE."""

import pytest
import torch

from mg_diffusion import AutoencoderHaar


@pytest.mark.parametrize("detail_gain", [1.0, 2.5])
@pytest.mark.parametrize("size", [(16, 16), (10, 34), (2, 2)])
def test_round_trip_loses_nothing(detail_gain, size):
    vae = AutoencoderHaar(detail_gain=detail_gain)
    images = torch.rand(2, 3, *size) * 2 - 1
    latents = vae.encode(images).latent_dist.sample()
    assert latents.shape == (2, 12, size[0] // 2, size[1] // 2)
    torch.testing.assert_close(vae.decode(latents).sample, images, rtol=0, atol=1e-6)
    torch.testing.assert_close(vae(images, return_dict=False)[0], images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("detail_gain", [1.0, 2.5])
def test_white_noise_stays_white_up_to_the_gain(detail_gain):
    latents = AutoencoderHaar(detail_gain=detail_gain).encode(torch.randn(2, 3, 512, 512)).latent_dist.mode()
    flat = latents.transpose(0, 1).flatten(1)
    gain = torch.tensor([1.0] * 3 + [detail_gain] * 9)
    torch.testing.assert_close(flat.var(1), gain**2, rtol=0.03, atol=0)
    assert (torch.corrcoef(flat) - torch.eye(12)).abs().max() < 0.03


def test_first_channels_are_the_doubled_averages_and_flat_pictures_have_no_details():
    colors = torch.tensor([0.5, -0.25, 1.0]).view(1, 3, 1, 1)
    latents = AutoencoderHaar().encode(colors.expand(1, 3, 8, 8)).latent_dist.mode()
    torch.testing.assert_close(latents[:, :3], 2 * colors.expand(1, 3, 4, 4))
    assert latents[:, 3:].abs().max() == 0


@pytest.mark.parametrize("shape", [(1, 3, 7, 8), (1, 3, 8, 7), (1, 4, 8, 8), (3, 8, 8)])
def test_odd_sizes_and_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"even height, even width.*got .*Resize or pad"):
        AutoencoderHaar().encode(torch.zeros(shape))


def test_interface_is_that_of_a_vae():
    vae = AutoencoderHaar()
    images = torch.rand(1, 3, 8, 8)
    latents = vae.encode(images, return_dict=False)[0].sample(generator=torch.Generator())
    assert torch.equal(latents, vae.encode(images).latent_dist.mode())
    assert torch.equal(vae.decode(latents, return_dict=False)[0], vae.decode(latents).sample)
    assert 2 ** (len(vae.config.block_out_channels) - 1) == 2 and vae.config.latent_channels == 12
    assert not any(parameter.requires_grad for parameter in vae.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_save_and_load_keep_the_codec(tmp_path, dtype):
    vae = AutoencoderHaar(detail_gain=3.0, scaling_factor=0.7)
    vae.save_pretrained(tmp_path)
    loaded = AutoencoderHaar.from_pretrained(tmp_path, torch_dtype=dtype)
    images = (torch.rand(1, 3, 16, 16) * 2 - 1).to(dtype)
    latents = loaded.encode(images).latent_dist.mode()
    assert loaded.dtype == latents.dtype == dtype and loaded.config.scaling_factor == 0.7
    tolerance = 1e-6 if dtype == torch.float32 else 5e-3
    torch.testing.assert_close(loaded.decode(latents).sample, images, rtol=0, atol=tolerance)
    torch.testing.assert_close(latents.float(), vae.encode(images.float()).latent_dist.mode(), rtol=0, atol=tolerance)
