"""Measures on a GPU say what they say on the CPU, wherever the data lies."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from test_measures import job_of, objects_of
from torch import nn

from isogon import registry
from isogon.survey.running.run import Session, call_measure, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# Steps and random numbers are taken on the device itself: such rows part after a while.
PARTS = {"walk", "leaf_distance", "rotate", "stitch"}


@pytest.mark.parametrize("name", registry.names("measure"))
def test_a_measure_runs_on_the_device_and_agrees(name):
    job = job_of(name)
    here = run(job, session=Session(device="cpu")).reading
    there = run(job, session=Session(device="cuda")).reading
    assert list(there.table.columns) == list(here.table.columns)
    if name in PARTS:
        return
    assert len(there.table) == len(here.table)
    for column in here.table.columns:
        a, b = here.table[column], there.table[column]
        if pd.api.types.is_float_dtype(a):
            scale = float(np.nanmax(np.abs(a.to_numpy(float)), initial=1e-6))
            close = np.isclose(a, b, rtol=2e-2, atol=1e-3 * scale, equal_nan=True)
            assert close.mean() > 0.97, (column, a[~close].head(), b[~close].head())


@pytest.mark.parametrize("name", registry.names("measure"))
def test_a_model_on_the_device_takes_data_from_the_cpu(name):
    """As a user writes it: ``model.cuda()`` and a DataLoader of CPU tensors."""
    job, _, objects = objects_of(name)
    moved = {k: v.cuda() if isinstance(v, nn.Module) else v for k, v in objects.items()}
    call_measure(job, moved)
    for model in moved.values():
        if isinstance(model, nn.Module):
            assert all(t.device.type == "cuda" for t in model.parameters())
