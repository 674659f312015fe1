"""Scattering features of small images (Oyallon and Mallat 2015), as Tramer and Boneh 2021 use them for
private training.

Depth 2, J scales, L orientations: 1 + J L + L^2 J (J - 1) / 2 channels at 1 / 2^J of the resolution; on
28x28 with J = 2 and L = 8 that is 81 x 7 x 7. Fixed wavelets and a normalisation within each image: nothing
here is learnt or estimated from data, so the features cost no privacy. Models and training do not belong
here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]


def _grid(size: int) -> tuple[Array, Array]:
    """Signed periodic coordinates of a size x size torus, origin first."""
    line = np.fft.fftfreq(size, 1 / size)
    return np.meshgrid(line, line, indexing="ij")


def _gabor(size: int, sigma: float, theta: float, xi: float, slant: float) -> npt.NDArray[np.complex128]:
    """A Gabor wave folded onto the torus: Gaussian envelope `sigma`, orientation `theta`, frequency
    `xi`."""
    out = np.zeros((size, size), np.complex128)
    rows, columns = _grid(size)
    for row in (-2, -1, 0, 1, 2):
        for column in (-2, -1, 0, 1, 2):
            x, y = rows + row * size, columns + column * size
            along, across = (
                x * math.cos(theta) + y * math.sin(theta),
                -x * math.sin(theta) + y * math.cos(theta),
            )
            out += np.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2) + 1j * xi * along)
    return out * slant / (2 * math.pi * sigma**2)


def morlet(size: int, scale: int, theta: float, orientations: int) -> Array:
    """The Morlet wavelet at 2^scale in the Fourier domain (real, size x size): a Gabor wave made to have
    mean zero."""
    sigma, xi, slant = 0.8 * 2**scale, 3 / 4 * math.pi / 2**scale, 4 / orientations
    wave = _gabor(size, sigma, theta, xi, slant)
    envelope = _gabor(size, sigma, theta, 0.0, slant)
    return np.real(np.fft.fft2(wave - wave.sum() / envelope.sum() * envelope))


def _fold(spectrum: torch.Tensor, factor: int) -> torch.Tensor:
    """Fourier domain of a map subsampled by `factor`: the mean of its aliases."""
    if factor == 1:
        return spectrum
    size = spectrum.shape[-1] // factor
    shaped = spectrum.reshape(*spectrum.shape[:-2], factor, size, factor, size)
    return shaped.mean(dim=(-4, -2))


@dataclass
class Scattering:
    """The transform for images of `side` x `side` pixels; `side` must be a multiple of 2^scales."""

    side: int = 28
    scales: int = 2
    orientations: int = 8
    _filters: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        step = 2**self.scales
        if self.side % step:
            raise ValueError(f"expected a side that {step} divides, got {self.side}")
        self.padded = self.side + 2 * step
        for scale in range(self.scales):
            bank = [
                morlet(self.padded, scale, math.pi * turn / self.orientations, self.orientations)
                for turn in range(self.orientations)
            ]
            self._filters[scale, 0] = torch.from_numpy(np.stack(bank).astype(np.float32))
        low = np.real(np.fft.fft2(_gabor(self.padded, 0.8 * 2 ** (self.scales - 1), 0.0, 0.0, 1.0)))
        self._low = torch.from_numpy(low.astype(np.float32))
        for factor in range(1, self.scales):
            for scale in range(factor, self.scales):
                self._filters[scale, factor] = _fold(self._filters[scale, 0], 2**factor) * 4**factor

    @property
    def channels(self) -> int:
        """Channels of the output: 1 + J L + L^2 J (J - 1) / 2."""
        J, L = self.scales, self.orientations
        return 1 + J * L + L * L * J * (J - 1) // 2

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float32 (n, side, side) -> float32 (n, channels, side / 2^J, side / 2^J)."""
        pad = 2**self.scales
        wide = torch.nn.functional.pad(images.unsqueeze(1), (pad, pad, pad, pad), mode="reflect")
        spectrum = torch.fft.fft2(wide)
        out = [self._average(spectrum, 0)]
        for first in range(self.scales):
            waves = torch.fft.ifft2(_fold(spectrum * self._filters[first, 0], 2**first)).abs()
            shallow = torch.fft.fft2(waves)
            out.append(self._average(shallow, first))
            for second in range(first + 1, self.scales):
                product = shallow.unsqueeze(2) * self._filters[second, first]
                deep = torch.fft.ifft2(_fold(product, 2 ** (second - first))).abs()
                out.append(self._average(torch.fft.fft2(deep.flatten(1, 2)), second))
        return torch.cat(out, dim=1)

    def _average(self, spectrum: torch.Tensor, scale: int) -> torch.Tensor:
        """Low-pass a map that is already subsampled by 2^scale, subsample it to 1 / 2^J, cut the padding
        off."""
        low = _fold(self._low, 2**scale) * 4**scale if scale else self._low
        small = torch.fft.ifft2(_fold(spectrum * low, 2 ** (self.scales - scale))).real
        cut: torch.Tensor = small[..., 1:-1, 1:-1]
        return cut


def features(images: torch.Tensor, *, groups: int = 27, batch: int = 500) -> torch.Tensor:
    """Scattering features of float32 (n, 28, 28), each group of channels of each image to mean 0 and
    variance 1.

    Returns float32 (n, 81, 7, 7). The normalisation looks at one image at a time (Wu and He 2018), so that
    one person's image changes one person's features.
    """
    transform = Scattering(side=images.shape[-1])
    return torch.cat(
        [torch.nn.functional.group_norm(transform(part), groups) for part in torch.split(images, batch)]
    )
