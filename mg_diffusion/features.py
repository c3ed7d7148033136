"""The form of features: what `MGEncoder` gives and `MGAdapter` takes."""

import torch


FeatureSet = dict[str, dict[str, torch.Tensor]]  # of each granularity one entry, without a region
Features = dict[str, list[dict[str, torch.Tensor]]]  # of each granularity one entry, or one for each of its regions
