# SPDX-License-Identifier: Apache-2.0
"""What a training needs of the configuration, collected in one place."""

from __future__ import annotations

import dataclasses
from typing import Any
from typing import Dict
from typing import Optional
from typing import Sequence

from omegaconf import DictConfig
from omegaconf import OmegaConf


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The settings of a training.

    Args:
        output_dir: The run's folder.
        seed: Seed of every random draw.
        device: Paddle's name of the device; None lets ppsci choose.
        log_freq: Iterations between two records.
        use_amp: Whether ppsci runs the losses in mixed precision.
        use_tbd: Whether records go to TensorBoard as well.
        use_vdl: Whether records go to VisualDL as well.
        train: The section TRAIN.
        loss: The section LOSS.
        critic_norm: Normalisation of the critic: None, "layer", "batch" or "spectral".
        whole: The whole configuration with its references resolved, as nested dictionaries. It
            is written to config.yaml and into checkpoints.
        classes: The names of the data's classes, by number; empty until the data are read, and if
            the classes have no names.
    """

    output_dir: str
    seed: int
    device: Optional[str]
    log_freq: int
    use_amp: bool
    use_tbd: bool
    use_vdl: bool
    train: DictConfig
    loss: DictConfig
    critic_norm: Optional[str]
    whole: Dict[str, Any]
    classes: Sequence[str] = ()

    @classmethod
    def of(cls, cfg: DictConfig) -> RunSettings:
        """Reads the settings out of a script's configuration."""
        return cls(
            output_dir=cfg.output_dir,
            seed=cfg.seed,
            device=cfg.device,
            log_freq=cfg.log_freq,
            use_amp=cfg.use_amp,
            use_tbd=cfg.use_tbd,
            use_vdl=cfg.use_vdl,
            train=cfg.TRAIN,
            loss=cfg.LOSS,
            critic_norm=cfg.MODEL.dis_net.get("norm"),
            whole=OmegaConf.to_container(cfg, resolve=True),
        )

    @property
    def iterations(self) -> int:
        """Generator iterations of the whole training."""
        return self.train.epochs * self.train.iters_per_epoch
