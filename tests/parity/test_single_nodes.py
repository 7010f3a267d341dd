"""Where single nodes differ on purpose: why, and that ours is closer to the truth."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import peer
import pytest
import torch
from cases import CHANNELS, NM
from scipy.optimize import nnls
from test_differences import chain

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import (
    BBoxSpectralExtractor,
    ClassMapToRGB,
    CubeRGBVisualizer,
    DistinctnessLoss,
    MaskedMeanSpectrum,
    NMFUnmixing,
    NNLSUnmixing,
    PercentileNormalizer,
    ScoreMapSmoothing,
    ScoreStatisticsMetric,
    SignaturesToReferences,
    SpectralAngleMapper,
    SpectralObjectMask,
    Stage,
    TensorBoardMonitorNode,
    node_classes,
)
from hsi_batch.nodes.metrics import Context, Metric
from hsi_batch.pipeline.catalogue import cuvis_classes
from hsi_batch.pipeline.forward import resolve_batch


def test_the_angle_of_a_reference_to_itself():
    # Theirs takes the arc cosine in float32, which loses half the digits near zero, and turns
    # spectra round whose mean is negative.
    from cuvis_ai.node.spectral_angle_mapper import SpectralAngleMapper as Theirs

    rng = np.random.default_rng(0)
    reference = rng.uniform(0.2, 0.9, CHANNELS).astype(np.float32)
    cube = (reference * (1 + 1e-4 * rng.standard_normal((1, 8, 9, CHANNELS)))).astype(np.float32)
    cube[0, 0, 0] = -reference
    given = {
        "cube": torch.from_numpy(cube),
        "spectral_signature": torch.from_numpy(reference)[None, None, None],
    }
    here = SpectralAngleMapper()(**given)["scores"][0, ..., 0].double().numpy()
    there = Theirs().forward(**given)["scores"][0, ..., 0].double().numpy()
    u, v = (
        x / np.linalg.norm(x, axis=-1, keepdims=True)
        for x in (cube[0].astype(float), reference.astype(float))
    )
    truth = 2 * np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1))
    assert np.abs(here - truth).max() < 1e-6
    assert np.abs(there - truth)[1:].max() > 100 * np.abs(here - truth)[1:].max()
    assert there[0, 0] < 0.01
    assert truth[0, 0] == pytest.approx(np.pi)


def test_abundances_are_those_of_least_squares():
    # Theirs stops its steps along the gradient early.
    from cuvis_ai.node.unmixing.nnls import NNLSUnmixing as Theirs

    rng = np.random.default_rng(1)
    endmembers = np.linspace(0.2, 0.8, CHANNELS) + 0.05 * rng.random((4, CHANNELS))
    cube = rng.dirichlet(np.ones(4), (1, 6, 7)) @ endmembers
    given = {
        "cube": torch.from_numpy(cube.astype(np.float32)),
        "endmembers": torch.from_numpy(endmembers.astype(np.float32)),
    }
    exact = given["endmembers"].double().numpy()
    truth = np.stack(
        [nnls(exact.T, p)[0] for p in given["cube"].double().numpy().reshape(-1, CHANNELS)]
    )
    errors = [
        np.abs(node["abundances"].double().numpy().reshape(truth.shape) - truth).max()
        for node in (NNLSUnmixing()(**given), Theirs().forward(**given))
    ]
    assert errors[0] < 1e-5
    assert errors[1] > 100 * errors[0]


def test_distinct_rows_have_a_loss():
    # Theirs is the mean over the pairs that are not at right angles, of which there are none.
    from cuvis_ai.node.losses import DistinctnessLoss as Theirs

    rows = torch.eye(3, CHANNELS)
    assert float(DistinctnessLoss()(selection_weights=rows)["loss"]) == 0.0
    assert torch.isnan(Theirs().forward(selection_weights=rows)["loss"])


def test_the_median_and_quantiles_of_scores():
    from cuvis_ai.node.metrics import ScoreStatisticsMetric as Theirs
    from cuvis_ai_schemas.execution import Context

    scores = torch.rand(1, 3, 4, generator=torch.Generator().manual_seed(0))
    node = ScoreStatisticsMetric()
    node(scores=scores)
    there = {m.name: m.value for m in Theirs().forward(scores=scores, context=Context())["metrics"]}
    truth = np.median(scores.double().numpy())
    assert node.compute()["scores/median"] == pytest.approx(truth, rel=1e-6)
    assert abs(there["scores/median"] - truth) > 1e-3


def test_statistical_bounds_do_not_depend_on_the_grouping_of_frames(tmp_path):
    cube, mask = peer.scene()
    cube[1] *= 1.5
    found = []
    for size in (1, len(cube)):
        ours = chain(PercentileNormalizer(CHANNELS, norm_mode="statistical", name="p"))
        resolve_batch(ours, peer.batches(cube, mask)[0])
        theirs = peer.load_there(ours, tmp_path, weights=False)
        peer.fit_there(theirs, peer.batches(cube, mask, size))
        found.append(peer.nodes_there(theirs)["p"].running_max.double().numpy())
    here = peer.fit_here(ours, cube).nodes["p"].running_max.double().numpy()
    truth = np.quantile(cube.reshape(-1, CHANNELS).astype(np.float64), 0.995, axis=0)
    np.testing.assert_allclose(here, truth, rtol=1e-6)
    np.testing.assert_allclose(found[1], truth, rtol=1e-5)
    assert np.abs(found[0] / truth - 1).max() > 0.01


@pytest.mark.parametrize("name", ["PercentileNormalizer", "FixedWavelengthSelector"])
def test_running_bounds_move_alike(name):
    # From frame to frame, in order; an archive is refused until the bounds are frozen.
    module, _, cls = cuvis_classes()[name].path.rpartition(".")
    given = {"freeze_running_bounds_after_frames": 5, "running_warmup_frames": 2}
    given |= {"n_channels": CHANNELS} if name == "PercentileNormalizer" else {}
    here, there = node_classes()[name](**given), getattr(import_module(module), cls)(**given)
    cube, _ = peer.scene(frames=8)
    more = {} if name == "PercentileNormalizer" else {"wavelengths": NM.astype(np.int32)}
    port = next(iter(here.INPUT_SPECS))
    for i, frame in enumerate(cube):
        inputs = {port: torch.from_numpy(frame * (1 + 0.1 * i))[None], **more}
        found, want = here(**inputs), there.forward(**inputs)
        out = next(iter(here.OUTPUT_SPECS))
        torch.testing.assert_close(found[out], want[out], rtol=1e-4, atol=1e-5)
    assert min(int(n._norm_frame_count) for n in (here, there)) == 5


def test_a_map_narrower_than_the_kernel_is_mirrored_too():
    # Theirs then repeats its edge instead, so that the same pixels change with the size of the map.
    from cuvis_ai.node.spatial import ScoreMapSmoothing as Theirs
    from scipy.ndimage import gaussian_filter

    scores = torch.rand(1, 16, 16, 1, generator=torch.Generator().manual_seed(1))
    here, there = ScoreMapSmoothing(4.0)(scores=scores), Theirs(4.0).forward(scores=scores)
    truth = gaussian_filter(scores[0, ..., 0].double().numpy(), 4.0, mode="mirror", radius=16)
    np.testing.assert_allclose(here["scores"][0, ..., 0], truth, rtol=1e-6)
    assert np.abs(there["scores"][0, ..., 0].numpy() - truth).max() > 1e-3


def test_otsu_divides_where_it_says():
    # Theirs rounds angles down to steps to find the threshold and compares unrounded ones with
    # it, so that the last step of the lower class counts as above.
    from cuvis_ai.node.spectral_angle_mapper import SpectralObjectMask as Theirs
    from skimage.filters import threshold_otsu

    given = {"stride": 1, "threshold": "otsu"}
    cube = torch.from_numpy(peer.scene()[0][2:3])
    here, there = SpectralObjectMask(**given)(cube=cube), Theirs(**given).forward(cube=cube)
    steps = np.clip(there["angle"].double().numpy() * 10, 0, 255).astype(np.int64)
    level = threshold_otsu(hist=(np.bincount(steps.ravel(), minlength=256), np.arange(256)))
    truth = np.clip(level + 1, 30, 120) <= steps
    wrong = [int((run["decisions"].numpy() != truth).sum()) for run in (here, there)]
    assert wrong[0] < wrong[1]
    assert wrong[0] <= 2


def test_channels_chosen_frame_by_frame_have_no_bounds_for_all():
    with pytest.raises(PipelineError, match="not for channels that are chosen frame by frame"):
        node_classes()["HighContrastSelector"](norm_mode="statistical")


def test_a_picture_says_its_stage():
    from cuvis_ai.node.pipeline_visualization import CubeRGBVisualizer as Theirs
    from cuvis_ai_schemas.enums import ExecutionStage
    from cuvis_ai_schemas.execution import Context as TheirContext

    cube = torch.from_numpy(peer.scene()[0][:1])
    given = {"cube": cube, "weights": torch.arange(12.0), "wavelengths": NM.astype(np.int32)}
    here = CubeRGBVisualizer()(**given, context=Context(stage=Stage.VAL))["artifacts"]
    there = Theirs().forward(**given, context=TheirContext(stage=ExecutionStage.VAL))["artifacts"]
    assert {str(getattr(a.stage, "value", a.stage)) for a in here} == {"val"}
    assert {str(getattr(a.stage, "value", a.stage)) for a in there} == {"inference"}


def test_both_write_the_same_log(tmp_path):
    from cuvis_ai.node.monitor import TensorBoardMonitorNode as Theirs
    from cuvis_ai_schemas.enums import ExecutionStage
    from cuvis_ai_schemas.execution import Context as TheirContext
    from cuvis_ai_schemas.execution import Metric as TheirMetric
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    here = TensorBoardMonitorNode(str(tmp_path / "here"), run_name="run")
    there = Theirs(str(tmp_path / "there"), run_name="run")
    for step in range(3):
        at = {"epoch": 0, "batch_idx": step, "global_step": step}
        value = 0.5 + step
        here(
            metrics=[[Metric("m/iou", value, Stage.VAL, 0, step)]],
            context=Context(stage=Stage.VAL, **at),
        )
        there.forward(
            metrics=[
                [
                    TheirMetric(
                        name="m/iou", value=value, stage=ExecutionStage.VAL, epoch=0, batch_idx=step
                    )
                ]
            ],
            context=TheirContext(stage=ExecutionStage.VAL, **at),
        )
    logs = []
    for side, node in (("here", here), ("there", there)):
        getattr(node, "close", getattr(node, "cleanup", lambda: None))()
        folder = next((tmp_path / side).rglob("events.out*")).parent
        log = EventAccumulator(str(folder))
        log.Reload()
        logs.append(
            {tag: [(e.step, e.value) for e in log.Scalars(tag)] for tag in log.Tags()["scalars"]}
        )
    assert logs[0] == logs[1] != {}


def test_a_mask_restricts_a_fit_alike(tmp_path):
    from cuvis_ai.node.clustering.kmeans import KMeansClusterer as Theirs
    from cuvis_ai.node.data import CU3SDataNode as TheirData
    from cuvis_ai.node.segmentation.intensity import IntensityThresholdSegmenter as TheirMask
    from cuvis_ai_core.pipeline.pipeline import CuvisPipeline

    cube, _ = peer.materials()
    theirs = CuvisPipeline("masked")
    clusters = Theirs(n_clusters=2, max_fit_pixels=0)
    data, foreground = TheirData(), TheirMask(low=0.9, high=9.0)
    theirs.connect(
        (data.outputs.cube, foreground.inputs.cube),
        (data.outputs.cube, clusters.inputs.cube),
        (foreground.outputs.mask, clusters.inputs.mask),
    )
    ours = peer.load_here(theirs, tmp_path)
    assert not ours.fitted
    peer.fit_there(theirs, peer.batches(cube, None))
    peer.fit_here(ours, cube)
    want = clusters.centroids.double().numpy()
    want = want[np.lexsort(want.T[::-1])]
    np.testing.assert_allclose(ours.nodes["KMeansClusterer"].state["centroids"], want, rtol=1e-5)
    inside = foreground.forward(cube=torch.from_numpy(cube))["mask"].numpy() > 0
    assert 0.1 < inside.mean() < 0.9


def test_endmembers_of_all_pixels_leave_less_over(tmp_path):
    # Theirs stops its descent early, and scales endmembers with the number of pixels.
    cube, mask = peer.scene()
    ours = chain(NMFUnmixing(3, name="nmf"))
    resolve_batch(ours, peer.batches(cube, mask)[0])
    theirs = peer.load_there(ours, tmp_path, weights=False)
    peer.fit_there(theirs, peer.batches(cube, mask))
    peer.fit_here(ours, cube)

    def left_over(endmembers):
        basis = endmembers.double().numpy().T
        pixels = cube.reshape(-1, CHANNELS).astype(np.float64)
        return sum(nnls(basis, pixel)[1] ** 2 for pixel in pixels)

    here = left_over(ours.nodes["nmf"].endmembers_buf)
    there = left_over(peer.nodes_there(theirs)["nmf"].endmembers_buf)
    assert here < there * (1 + 1e-6)


def test_colours_of_classes():
    from cuvis_ai.node.colormap import ClassMapToRGB as Theirs

    classes = torch.arange(-2, 28).reshape(1, 5, 6)
    mask = (classes % 3 > 0).to(torch.int32)
    for arguments in ({}, {"background_value": 4}):
        here = ClassMapToRGB(**arguments)(class_map=classes.to(torch.int32), mask=mask)
        there = Theirs(**arguments).forward(class_map=classes, mask=mask)
        torch.testing.assert_close(here["label_rgb"], there["label_rgb"])


def test_the_median_of_an_even_number_is_between_the_two_in_the_middle():
    from cuvis_ai.node.spectral_extractor import BBoxSpectralExtractor as Theirs

    given = {"center_crop_scale": 1.0, "trim_fraction": 0.0, "l2_normalize": False}
    cube = torch.rand(1, 4, 5, CHANNELS, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[[0.0, 0.0, 5.0, 4.0]]])
    truth = np.median(cube[0].double().numpy().reshape(-1, CHANNELS), axis=0)
    here, there = (
        node(cube=cube, bboxes=boxes)["spectral_signatures"][0, 0].numpy()
        for node in (BBoxSpectralExtractor(**given), Theirs(**given).forward)
    )
    np.testing.assert_allclose(here, truth, rtol=1e-6)
    assert (there < truth).all()


def test_a_pixel_without_a_value_leaves_the_mean_of_others():
    from cuvis_ai.node.spectral_extractor import MaskedMeanSpectrum as Theirs

    cube, mask = torch.rand(1, 4, 5, CHANNELS), torch.ones(1, 4, 5, dtype=torch.int32)
    cube[0, 1, 2, 3] = torch.nan
    here = MaskedMeanSpectrum()(cube=cube, mask=mask)["mean_spectrum"][0]
    there = Theirs().forward(cube=cube, mask=mask)["mean_spectrum"][0]
    valid = torch.isfinite(cube[0]).all(dim=-1)
    np.testing.assert_allclose(here, cube[0][valid].double().mean(dim=0), rtol=1e-6)
    assert torch.isnan(there[3])


def test_a_spectrum_below_zero_keeps_its_length_and_direction():
    from cuvis_ai.node.spectral_extractor import SignaturesToReferences as Theirs

    given = {"signatures": torch.tensor([[[-3.0, 1.0]]])}
    here = SignaturesToReferences("unit_mean")(**given)["spectral_signature"].flatten()
    there = Theirs("unit_mean").forward(**given)["spectral_signature"].flatten()
    assert here.tolist() == [-3.0, 1.0]
    assert there.abs().max() > 1e7
