"""SegFormer: a transformer of four resolutions without position codes, and a decoder of linear layers alone.

From Xie et al., SegFormer: simple and efficient design for semantic segmentation with transformers (2021). Kim et al.
(thigh muscles in CT) compare with it.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from musclekit.checks import check_number
from musclekit.neural.networks.dropout import MonteCarloDropout
from musclekit.neural.networks.sizes import check_size

__all__ = ["SegFormer"]

#: Heads of the four stages, which are also their channels in units of the width.
HEADS = (1, 2, 5, 8)
#: By how much each stage thins out the rows and columns that attention looks at.
REDUCTIONS = (8, 4, 2, 1)
#: Size and stride of the patches of each stage; they overlap.
PATCHES = ((7, 4), (3, 2), (3, 2), (3, 2))
#: Channels within a mixing layer in units of those around it.
EXPANSION = 4
#: Standard deviation of the first weights of linear layers.
SPREAD = 0.02


def _tokens(features: torch.Tensor) -> torch.Tensor:
    """From (n, channels, rows, columns) to (n, positions, channels)."""
    return features.flatten(2).transpose(-2, -1)


def _grid(tokens: torch.Tensor, rows: int) -> torch.Tensor:
    """From (n, positions, channels) to (n, channels, rows, columns)."""
    return tokens.transpose(-2, -1).reshape(len(tokens), -1, rows, tokens.shape[1] // rows)


class _Attention(nn.Module):
    """Self-attention of all positions to a thinned grid of them."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.thin = nn.Conv2d(channels, channels, reduction, stride=reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(channels) if reduction > 1 else None

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, tokens: torch.Tensor, rows: int) -> torch.Tensor:
        seen = tokens
        if self.thin is not None and self.norm is not None:
            seen = self.norm(_tokens(self.thin(_grid(tokens, rows))))
        attended = functional.scaled_dot_product_attention(
            self._split(self.query(tokens)), self._split(self.key(seen)), self._split(self.value(seen))
        )
        mixed: torch.Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return mixed


class _Mixing(nn.Module):
    """Two linear layers with a convolution between them, from which positions learn where they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = EXPANSION * channels
        self.expand = nn.Linear(channels, inner)
        self.neighbours = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.contract = nn.Linear(inner, channels)

    def forward(self, tokens: torch.Tensor, rows: int) -> torch.Tensor:
        inner = _tokens(self.neighbours(_grid(self.expand(tokens), rows)))
        mixed: torch.Tensor = self.contract(functional.gelu(inner))
        return mixed


class _Block(nn.Module):
    """Attention and mixing, each added to what came in, or in training left out for some images of a batch."""

    def __init__(self, channels: int, heads: int, reduction: int, left_out: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = _Attention(channels, heads, reduction)
        self.mixing_norm = nn.LayerNorm(channels)
        self.mixing = _Mixing(channels)
        self.left_out = left_out

    def _thinned(self, change: torch.Tensor) -> torch.Tensor:
        # Dropout of a whole image's change at once.
        return change * functional.dropout(change.new_ones(len(change), 1, 1), self.left_out, self.training)

    def forward(self, tokens: torch.Tensor, rows: int) -> torch.Tensor:
        tokens = tokens + self._thinned(self.attention(self.attention_norm(tokens), rows))
        return tokens + self._thinned(self.mixing(self.mixing_norm(tokens), rows))


class _Stage(nn.Module):
    """Overlapping patches, and blocks on them."""

    def __init__(self, before: int, channels: int, size: int, stride: int, blocks: list[_Block]) -> None:
        super().__init__()
        self.patches = nn.Conv2d(before, channels, size, stride=stride, padding=size // 2)
        self.patch_norm = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        patches = self.patches(features)
        rows = patches.shape[2]
        tokens = self.patch_norm(_tokens(patches))
        for block in self.blocks:
            tokens = block(tokens, rows)
        return _grid(self.norm(tokens), rows)


class SegFormer(nn.Module):
    """From images to logits, which are worked out at a quarter of the resolution and interpolated.

    Parameters
    ----------
    in_channels, out_channels : int
        Of an image, and classes with background.
    width : int
        Channels of the first stage; the others have 2, 5 and 8 times as many, and as many heads. 32 in the smallest
        network of the paper (MiT-B0), 64 in the others.
    depth : int
        Blocks of each stage. 2 in the two smallest networks.
    decoder_width : int
        Channels of the decoder.
    dropout : float
        Before the last layer.
    left_out : float
        How often, in training, the last block of all is left out (stochastic depth); earlier blocks less often, in
        proportion, and the first never.

    Attributes
    ----------
    multiple, least : int
        Rows and columns have to be multiples of 32, and at least 32.

    Raises
    ------
    ParameterError
        If a number is out of range.

    Notes
    -----
    3,752,694 weights for 3 channels and 150 classes. First weights are drawn as the authors do for their encoder, here
    in the decoder too: from N(0, 0.02) in linear layers, and He-normal, by the outputs of a pixel, in convolutions.
    Theirs have then been trained on ImageNet.
    """

    dimensions = 2
    multiple = 32
    least = 32

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        width: int = 32,
        depth: int = 2,
        decoder_width: int = 256,
        dropout: float = 0.1,
        left_out: float = 0.1,
    ) -> None:
        super().__init__()
        for name, value in (
            ("in_channels", in_channels),
            ("out_channels", out_channels),
            ("width", width),
            ("depth", depth),
            ("decoder_width", decoder_width),
        ):
            check_number(name, value, least=1, whole=True)
        check_number("left_out", left_out, least=0, most=0.99)
        widths = [heads * width for heads in HEADS]
        blocks = depth * len(HEADS)
        shares = [left_out * block / (blocks - 1) for block in range(blocks)]
        self.stages = nn.ModuleList(
            _Stage(
                widths[stage - 1] if stage else in_channels,
                widths[stage],
                *PATCHES[stage],
                [
                    _Block(widths[stage], HEADS[stage], REDUCTIONS[stage], share)
                    for share in shares[stage * depth : (stage + 1) * depth]
                ],
            )
            for stage in range(len(HEADS))
        )
        self.unify = nn.ModuleList(nn.Linear(channels, decoder_width) for channels in widths)
        self.fuse = nn.Sequential(
            nn.Conv2d(len(HEADS) * decoder_width, decoder_width, 1, bias=False),
            nn.BatchNorm2d(decoder_width),
            nn.ReLU(),
            MonteCarloDropout(dropout),
            nn.Conv2d(decoder_width, out_channels, 1),
        )
        self.apply(_draw)

    def coarse(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits at a quarter of the resolution, before they are interpolated.

        Parameters
        ----------
        images : Tensor, shape (n, in_channels, rows, columns)
            In the range -1 to 1.

        Returns
        -------
        Tensor, shape (n, out_channels, rows / 4, columns / 4)

        Raises
        ------
        GeometryError
            If rows or columns are no multiple of 32.
        """
        check_size(images, "segformer", dimensions=2, multiple=self.multiple, least=self.least)
        rows, columns = (side // 4 for side in images.shape[2:])
        features, levels = images, []
        for stage, unify in zip(self.stages, self.unify, strict=True):
            features = stage(features)
            unified = _grid(unify(_tokens(features)), features.shape[2])
            levels.append(functional.interpolate(unified, size=(rows, columns), mode="bilinear"))
        logits: torch.Tensor = self.fuse(torch.cat(levels[::-1], dim=1))
        return logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits.

        Parameters
        ----------
        images : Tensor, shape (n, in_channels, rows, columns)
            In the range -1 to 1.

        Returns
        -------
        Tensor, shape (n, out_channels, rows, columns)

        Raises
        ------
        GeometryError
            If rows or columns are no multiple of 32.
        """
        return functional.interpolate(self.coarse(images), size=images.shape[2:], mode="bilinear")


def _draw(part: nn.Module) -> None:
    """Draw first weights, in place."""
    if isinstance(part, nn.Linear):
        nn.init.normal_(part.weight, std=SPREAD)
    elif isinstance(part, nn.Conv2d):
        leads_to = part.out_channels // part.groups * math.prod(part.kernel_size)
        nn.init.normal_(part.weight, std=math.sqrt(2 / leads_to))
    else:
        return
    if part.bias is not None:
        nn.init.zeros_(part.bias)
