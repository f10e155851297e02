"""The two models: ours, and the paper's. Both train, export, infer and evaluate through the same code."""

from collections.abc import Mapping
from typing import Any

from mmae.himes2025 import Himes2025, Himes2025Config
from mmae.model import Model, ModelConfig
from mmae.program import ImagePdf
from mmae.specialise import ImageRedshift

AnyConfig = ModelConfig | Himes2025Config
AnyModel = Model | Himes2025
Program = ImagePdf | ImageRedshift
FAMILIES: dict[str, tuple[type[AnyConfig], type[AnyModel]]] = {
    ModelConfig.family: (ModelConfig, Model),
    Himes2025Config.family: (Himes2025Config, Himes2025),
}


def build(config: AnyConfig) -> AnyModel:
    """A new model."""
    _, model = FAMILIES[config.family]
    return model(config)  # type: ignore[arg-type]


def program_of(model: AnyModel) -> Program:
    """What inference needs of a model: redshifts from images, spectra hidden."""
    return ImagePdf(model) if isinstance(model, Model) else ImageRedshift(model)


def config_of(family: str, fields: Mapping[str, Any]) -> AnyConfig:
    """An architecture as a checkpoint has it; KeyError or TypeError where there is no such."""
    config, _ = FAMILIES[family]
    return config(**fields)
