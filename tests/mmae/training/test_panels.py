"""The figures of a validation."""

import dataclasses

import torch
from conftest import recipe

from mmae.models import checkpoint
from mmae.training import panels
from mmae.training.data import VALIDATION, TrainingSet


def test_a_spectrum_that_is_not_there_is_not_seen(mixed, trained, tmp_path, monkeypatch):
    """The galaxy that is drawn is the first with a spectrum; where none has one, all of it is hidden."""
    model, _ = checkpoint.load_model(checkpoint.find(trained))
    data, config, given = TrainingSet(mixed, model.config), recipe("mmae", mixed, tmp_path), []
    assert not data.has_spectrum[data.rows(VALIDATION)[0]]

    def reconstruct(*arguments):
        given.append(arguments)
        return usual(*arguments)

    usual = panels.reconstruct
    monkeypatch.setattr(panels, "reconstruct", reconstruct)
    panels.rebuilt(model, data, config, torch.device("cpu"))
    data.has_spectrum[:] = False
    panels.rebuilt(model, data, dataclasses.replace(config, spectrum_mask=0.0), torch.device("cpu"))
    (_, _, spectrum, _, hidden, _), (_, _, _, _, all_hidden, _) = given
    assert spectrum.any()
    assert not hidden.all()
    assert all_hidden.all()
