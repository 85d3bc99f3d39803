"""What all tests share: one thread a process, repeatable property tests, and why GPU tests skip."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Before NumPy or torch are imported: pytest-xdist runs a process a core.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# A shell without job control starts what runs in its background deaf to SIGINT, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import HealthCheck, settings

from edge_ad.cli.doctor import gpu

# The same examples every time, and no clock: a slow shared machine is no failure.
settings.register_profile(
    "edge_ad", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("edge_ad")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` skip where no NVIDIA device is visible, and say so."""
    # tests/gpu/cuda_on_host: a driver without a GPU, on which these tests run as well.
    if gpu()["visible"] or os.environ.get("EDGE_AD_CUDA_ON_HOST"):
        return
    skip = pytest.mark.skip(reason="needs an NVIDIA GPU; none is visible (edge-ad doctor)")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory, fitted in seconds on the small frames of ``tests.training.tiny``. Copy before changing it."""
    from edge_ad.training.fit import FitOptions, fit
    from edge_ad.training.trainer import TrainingPlan
    from tests.training.tiny import tiny_dataset, tiny_preset

    folder = tmp_path_factory.mktemp("tiny")
    plan = TrainingPlan(samples_per_step=3, min_steps=30, checkpoint_every_s=0)
    fit(tiny_preset(), tiny_dataset(), folder / "model", folder / "cache", FitOptions(plan=plan))
    return folder / "model"


@pytest.fixture(scope="session")
def tiny_export(tiny_model: Path) -> Path:
    """The bundle of ``tiny_model``, without thresholds. Copy before changing it."""
    from edge_ad.export.bundle import export_bundle
    from edge_ad.training.model_dir import load_model
    from tests.training.tiny import tiny_dataset

    return export_bundle(load_model(tiny_model), tiny_model.parent / "bundle", tiny_dataset(), golden=2).bundle.path


@pytest.fixture(scope="session")
def varied_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle like ``tiny_export`` that also carries the variant ``light``. Copy before changing it."""
    from edge_ad.export.bundle import export_bundle
    from edge_ad.training.fit import FitOptions
    from edge_ad.training.model_dir import load_model, load_variants
    from edge_ad.training.trainer import TrainingPlan
    from edge_ad.training.variants import fit_with_variants
    from tests.training.tiny import tiny_dataset, tiny_preset

    folder = tmp_path_factory.mktemp("varied")
    options = FitOptions(plan=TrainingPlan(samples_per_step=3, min_steps=30, checkpoint_every_s=0))
    variants = {"light": {"groups": "12", "layers": "1"}}
    model = folder / "model"
    fit_with_variants(tiny_preset(), tiny_dataset(), model, folder / "cache", options, variants)
    report = export_bundle(
        load_model(model), folder / "bundle", tiny_dataset(), golden=1, variants=load_variants(model)
    )
    return report.bundle.path
