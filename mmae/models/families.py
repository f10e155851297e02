"""The two model families, ours and the paper's, which share training, export, inference and evaluation."""

from collections.abc import Mapping
from typing import Any

from mmae.models.himes2025 import Himes2025, Himes2025Config
from mmae.models.mmae import Model
from mmae.models.mmae_config import ModelConfig

AnyConfig = ModelConfig | Himes2025Config
AnyModel = Model | Himes2025
FAMILIES: dict[str, tuple[type[AnyConfig], type[AnyModel]]] = {
    ModelConfig.family: (ModelConfig, Model),
    Himes2025Config.family: (Himes2025Config, Himes2025),
}


def build(config: AnyConfig) -> AnyModel:
    """A new model."""
    _, model = FAMILIES[config.family]
    return model(config)  # type: ignore[arg-type]


def config_of(family: str, fields: Mapping[str, Any]) -> AnyConfig:
    """The configuration of a model from a checkpoint; KeyError or TypeError if there is no such model."""
    config, _ = FAMILIES[family]
    if family == ModelConfig.family:  # older ones saw all light
        fields = {"own_light": False, **fields}
    return config(**fields)
