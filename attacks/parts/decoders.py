"""The network from releases to images: a linear start in closed form, a learned residual."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from privhier.attacks.parts.nets import channel_norm, stack_releases
from privhier.attacks.view import FloatArray

_GRID = 12
"""Side of the map a vector release is first turned into."""


def as_maps(releases: FloatArray) -> FloatArray:
    """Releases as (n, c, h, w): maps keep their shape, vectors become c = T*d [+ d] channels of 1x1."""
    n, t = releases.shape[:2]
    if releases.ndim == 5 and min(releases.shape[3:]) >= 3:
        return stack_releases(releases)
    return stack_releases(releases.reshape(n, t, -1, 1, 1))


def window_ssim(x_bchw: Tensor, y_bchw: Tensor) -> Tensor:
    """Structural similarity per image, (b,), range 1.0: Wang et al. 2004 with a uniform 7x7 window.

    A training objective (a uniform window is many times cheaper than the Gaussian one); what is
    reported is computed by ``privhier.metrics``.
    """
    size = min(7, x_bchw.shape[-1], x_bchw.shape[-2])

    def mean(z: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(z, size, stride=1)

    mx, my = mean(x_bchw), mean(y_bchw)
    vx, vy = mean(x_bchw**2) - mx**2, mean(y_bchw**2) - my**2
    vxy = mean(x_bchw * y_bchw) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    ratio = ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return ratio.mean(dim=(1, 2, 3))


class _Block(nn.Module):
    """Two 3x3 convolutions around an identity, without normalization (as in super-resolution nets)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x_bchw: Tensor) -> Tensor:
        return x_bchw + 0.3 * torch.as_tensor(self.body(x_bchw))


class Decoder(nn.Module):
    """Release maps (b, c, h, w) to images (b, 3, H, W), as a linear start plus a learned residual.

    The linear start is one convolution with sub-pixel output (for 1x1 maps a linear layer), fitted
    in closed form; the residual network begins at zero, so training starts from the best linear
    reconstruction.
    """

    def __init__(self, maps: FloatArray, image_shape: tuple[int, int, int], width: int, blocks: int) -> None:
        super().__init__()
        _, channels, h, w = maps.shape
        self.image_size = image_shape[1:]
        self.norm = channel_norm(maps)
        self.ratio = max(1, math.ceil(max(image_shape[1] / h, image_shape[2] / w)))
        self.start_size = (h * self.ratio, w * self.ratio)
        kernel = 1 if h == 1 or channels * 9 > 1200 else 3 if channels * 25 > 1200 else 5
        self.start = nn.Conv2d(channels, 3 * self.ratio**2, kernel, padding=kernel // 2)
        if h * w > 256:
            width = max(16, width // 2 if h * w <= 1024 else width // 4)
        if h == 1:
            self.enter: nn.Module = nn.Sequential(
                nn.Flatten(),
                nn.Linear(channels, width * (_GRID // 2) ** 2),
                nn.ReLU(),
                nn.Unflatten(1, (width, _GRID // 2, _GRID // 2)),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(width, width, 3, padding=1),
            )
            h = w = _GRID
        else:
            self.enter = nn.Conv2d(channels, width, 3, padding=1)
        fine = max(1, math.ceil(max(image_shape[1] / h, image_shape[2] / w)))
        self.body = nn.Sequential(nn.ReLU(), *(_Block(width) for _ in range(blocks)), nn.ReLU())
        self.leave = nn.Sequential(nn.Conv2d(width, 8 * fine**2, 3, padding=1), nn.PixelShuffle(fine))
        self.refine = nn.Sequential(
            nn.Conv2d(11, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1)
        )
        last = self.refine[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def linear(self, x_bchw: Tensor) -> Tensor:
        """The linear start alone, (b, 3, H, W), from normalized maps."""
        image = nn.functional.pixel_shuffle(self.start(x_bchw), self.ratio)
        return _resize(image, self.image_size)

    def forward(self, maps_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """Unclamped images (b, 3, H, W) and a description of each (b, f), to predict its error from."""
        x = self.norm(maps_bchw)
        start = self.linear(x)
        hidden = self.body(self.enter(x))
        detail = _resize(self.leave(hidden), self.image_size)
        image = start + self.refine(torch.cat([start, detail], dim=1))
        with torch.no_grad():
            rough = (image[..., 1:] - image[..., :-1]).abs()
            maps = [hidden, image, (image - start).abs(), (image - image.clamp(0, 1)).abs(), rough]
            described = [torch.cat([m.mean(dim=(2, 3)), m.std(dim=(2, 3))], dim=1) for m in maps]
        return image, torch.cat(described, dim=1)

    @torch.no_grad()
    def fit_start(self, maps: FloatArray, images: FloatArray) -> None:
        """Ridge regression of image blocks on release patches; maps (n, c, h, w), images (n, 3, H, W).

        The penalty is a thousandth of the mean patch energy: it settles collinear channels (the
        mean beside T releases) and stays below any noise that matters.
        """
        kernel = self.start.kernel_size[0]
        columns = self.start.in_channels * kernel**2 + 1
        gram = torch.zeros(columns, columns, dtype=torch.float64)
        cross = torch.zeros(columns, self.start.out_channels, dtype=torch.float64)
        for begin in range(0, len(maps), 128):
            x = self.norm.cpu()(torch.from_numpy(maps[begin : begin + 128]))
            y = _resize(torch.from_numpy(images[begin : begin + 128]), self.start_size)
            patches = nn.functional.unfold(x, kernel, padding=kernel // 2).transpose(1, 2).flatten(0, 1)
            blocks = nn.functional.pixel_unshuffle(y, self.ratio).flatten(2).transpose(1, 2).flatten(0, 1)
            rows = torch.cat([patches, torch.ones(len(patches), 1)], dim=1)
            gram += (rows.T @ rows).double()
            cross += (rows.T @ blocks).double()
        penalty = 1e-3 * gram.diagonal()[:-1].mean() * torch.eye(columns, dtype=torch.float64)
        penalty[-1, -1] = 1e-6
        solution = torch.linalg.solve(gram + penalty, cross).float()
        self.start.weight.copy_(solution[:-1].T.reshape(self.start.weight.shape))
        assert self.start.bias is not None
        self.start.bias.copy_(solution[-1])


def _resize(x_bchw: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(x_bchw.shape[2:]) == tuple(size):
        return x_bchw
    return nn.functional.interpolate(x_bchw, size=tuple(size), mode="bilinear", align_corners=False)
