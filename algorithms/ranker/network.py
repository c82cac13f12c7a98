"""The network as a torch module, for training. Source: class-ranker.md section 5.1.

Its parameters are named as in RELION's checkpoints.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from algorithms.ranker.architecture import Widths

Head = Literal["both", "images", "features"]
DROPOUT = 0.3


class RankerNetwork(nn.Module):
    """Convolutions over the class average, joined with its features.

    Parameters
    ----------
    widths
        Of the layers; RELION's by default.
    dropout
        Share of the values that training leaves out.
    """

    def __init__(self, widths: Widths | None = None, dropout: float = DROPOUT):
        super().__init__()
        w = widths or Widths()
        layers: list[nn.Module] = []
        wide = 1
        for first in (w.convolution, 2 * w.convolution, 4 * w.convolution):
            layers += [
                nn.Conv2d(wide, first, 3, padding=1),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Conv2d(first, first, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(first, 2 * first, 3, stride=2, padding=1),
                nn.Dropout(dropout),
            ]
            wide = 2 * first
        self.cnn_layers = nn.Sequential(*layers)
        self.feature_extractor = nn.Sequential(nn.Linear(w.flat, w.extracted))
        self.classifier_images_and_features = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(w.extracted + w.features, w.hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(w.hidden, 1),
        )
        self.classifier_images = nn.Sequential(nn.Dropout(dropout), nn.Linear(w.extracted, 1))
        self.classifier_features = nn.Sequential(
            nn.Linear(w.features, w.features // 2),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(w.features // 2, 1),
        )

    def forward(self, images: Tensor, features: Tensor, head: Head = "both") -> Tensor:
        """Return scores `[n]`.

        Parameters
        ----------
        images
            `[n, 1, 64, 64]`.
        features
            Normalised, `[n, 24]`.
        head
            What to look at; the two others are for comparison.
        """
        if head == "features":
            return self.classifier_features(features)[:, 0]
        extracted = self.feature_extractor(self.cnn_layers(images).flatten(1))
        if head == "images":
            return self.classifier_images(extracted)[:, 0]
        both = torch.cat([extracted, features], dim=1)
        return self.classifier_images_and_features(both)[:, 0]

    def arrays(self) -> dict:
        """Return the parameters by name as float32 arrays, for `weights.Weights`."""
        return {
            name: value.detach().float().cpu().numpy() for name, value in self.state_dict().items()
        }
