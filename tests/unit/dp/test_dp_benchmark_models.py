"""What the private figures rest on: scattering features of the stated shape that look at one image at a
time, and the models' sizes."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.dp import CASES, app
from benchmarks.dp.models import accuracy, linear, tempered_cnn
from benchmarks.dp.scattering import Scattering, features, morlet


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 28, 28, generator=torch.Generator().manual_seed(0))


def test_scattering_has_81_channels_of_7_by_7() -> None:
    transform = Scattering()
    assert transform.channels == 81
    assert transform(images(2)).shape == (2, 81, 7, 7)


def test_a_constant_image_has_its_mean_in_the_first_channel_and_nothing_elsewhere() -> None:
    out = Scattering()(torch.full((1, 28, 28), 0.7))
    assert torch.allclose(out[0, 0], torch.full((7, 7), 0.7), atol=1e-3)
    assert float(out[0, 1:].abs().max()) < 1e-3


def test_wavelets_have_mean_zero() -> None:
    assert abs(morlet(36, 1, 0.3, 8)[0, 0]) < 1e-12


def test_features_of_one_image_do_not_depend_on_the_others() -> None:
    many = images(5)
    assert torch.allclose(features(many)[3], features(many[3:4])[0], atol=1e-4)


def test_features_hardly_move_when_the_image_is_shifted_by_a_pixel() -> None:
    image = images(1)
    smooth = torch.nn.functional.avg_pool2d(image, 7, 1, 3)
    before, after = features(smooth), features(torch.roll(smooth, 1, 2))
    plain = float((torch.roll(smooth, 1, 2) - smooth).norm() / smooth.norm())
    assert float((after - before).norm() / before.norm()) < 8 * plain


def test_the_cnn_has_26010_parameters_and_the_linear_model_starts_at_zero() -> None:
    assert sum(p.numel() for p in tempered_cnn().parameters()) == 26_010
    assert tempered_cnn()(images(3)[:, None]).shape == (3, 10)
    assert all(float(p.detach().abs().sum()) == 0 for p in linear().parameters())


def test_accuracy_counts_right_answers() -> None:
    net = torch.nn.Linear(3, 3, bias=False)
    torch.nn.init.eye_(net.weight)
    labels = torch.tensor([0, 1, 2, 0])
    inputs = torch.from_numpy(np.eye(3, dtype=np.float32)[[0, 1, 2, 2]])
    assert accuracy(net, inputs, labels) == 75.0


@pytest.mark.parametrize("case", ["mean", "fashion-mnist", "overhead", "femnist"])
def test_the_cases_that_the_docs_name_exist(case: str) -> None:
    assert case in CASES


def test_an_unknown_case_is_refused_as_a_wrong_request() -> None:
    assert CliRunner().invoke(app, ["--case", "nothing"]).exit_code == 2
