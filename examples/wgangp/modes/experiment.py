# SPDX-License-Identifier: Apache-2.0
"""What a script hands to the modes that all scripts share."""

from __future__ import annotations

from typing import Any
from typing import Callable
from typing import Dict
from typing import Mapping
from typing import Optional
from typing import Sequence
from typing import Tuple

import numpy as np
from omegaconf import DictConfig

from data.streams import Stream
from measures import sampling
from measures.validators import Measure
from modes import sample_files
from networks.base import Critic
from networks.base import Generator
from support.weight_files import SavedWeights


class Experiment:
    """An experiment: its networks, its data, its measures and its pictures.

    Each script defines one. The modes (train, eval, export, infer) ask it for what they need,
    and hand sections or values of the configuration on from here.

    Args:
        cfg: The script's configuration.

    Attributes:
        script: Name of the script's file in conf/.
        choices: Values of the script's own settings.
        has_pictures: Whether samples are pictures, so that INFER.frames can draw a strip.
        weights: The generator's weights or export as it was read (modes/recognition.py), with what
            it keeps of the training; None in a training.
    """

    script: str
    choices: Mapping[str, Sequence] = {}
    has_pictures = True

    def __init__(self, cfg: DictConfig):
        self.cfg = cfg
        self.weights: Optional[SavedWeights] = None

    def make_networks(self) -> Tuple[Generator, Critic]:
        """Makes the generator and the critic."""
        raise NotImplementedError

    def read_data(self) -> Any:
        """Reads the data set, or downloads it first where it is absent."""
        raise NotImplementedError

    def fingerprint(self, data: Any) -> str:
        """Text that sets the data set apart from others; checkpoints keep it."""
        return data.fingerprint()

    def class_names(self, data: Any) -> Sequence[str]:
        """The names of the data's classes, by number; empty if they have none."""
        return getattr(data, "class_names", ())

    def label_shares(self, data: Any, generator: Generator) -> Optional[np.ndarray]:
        """How likely each class is where labels are drawn; None for equal shares, or no labels."""
        if not generator.num_classes or self.cfg.DATA.get("label_distribution") != "data":
            return None
        return data.label_shares(generator.num_classes)

    def make_real_streams(
        self, data: Any, generator: Generator, length: int, seed: Sequence[int]
    ) -> Dict[str, Stream]:
        """Makes the streams of real samples ("real"), and of labels ("labels") if there are any.

        Args:
            data: What `read_data` returned.
            generator: The generator, for the range of its samples.
            length: Number of rows that an epoch reads.
            seed: Numbers that set these streams apart from others.
        """
        raise NotImplementedError

    def make_measures(
        self, data: Any, generator: Generator, critic: Optional[Critic], count: int
    ) -> Dict[str, Measure]:
        """Makes the measures of an evaluation.

        Args:
            data: What `read_data` returned.
            generator: The generator to evaluate.
            critic: The critic; None where only the generator's weights are given.
            count: Number of samples.
        """
        raise NotImplementedError

    def has_measures(self, critic: Optional[Critic]) -> bool:
        """Whether anything can be measured; if not, mode=eval needs no data."""
        return critic is not None or self.cfg.EVAL.get("inception", True)

    def make_drawer(self, generator: Generator, critic: Optional[Critic]) -> Callable[[str], None]:
        """Makes a function that writes a picture of samples to a path."""
        return sampling.make_grid_drawer(generator, self.cfg.seed)

    def save_samples(self, samples: np.ndarray, generator: Generator, folder: str) -> None:
        """Writes the samples of mode=infer to a folder."""
        sample_files.save_pictures(samples, folder, generator.low)
