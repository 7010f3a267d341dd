"""Where data enter: casting, class numbers, and channels by wavelength."""

import numpy as np
import pytest
import torch
from graph_helpers import chain, run, scene
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hsi_batch.errors import PipelineError
from hsi_batch.nodes import (
    AnomalyDataNode,
    BandpassByWavelength,
    ChannelAxis,
    CU3SDataNode,
    LentilsAnomalyDataNode,
)
from hsi_batch.nodes.data import anomalous

CUBE = torch.zeros(1, 2, 3, 4)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_cubes_become_float32_unchanged(dtype):
    cube = scene(height=3, width=4, dtype=dtype) if dtype != "uint8" else np.eye(4, 5)
    out = CU3SDataNode()(cube=torch.from_numpy(np.asarray(cube, dtype)[None]))
    assert set(out) == {"cube"}
    np.testing.assert_array_equal(out["cube"][0].numpy(), np.asarray(cube, dtype).astype("f4"))


def test_what_else_is_there_is_handed_on():
    mask, index = torch.ones(1, 2, 3, dtype=torch.int64), torch.tensor([7])
    out = CU3SDataNode()(
        cube=CUBE, mask=mask, wavelengths=torch.tensor([[400, 500, 600, 700]]), mesu_index=index
    )
    assert out["mask"].dtype == torch.int32
    assert out["mask"].shape == (1, 2, 3)
    assert out["wavelengths"].dtype == np.int32
    np.testing.assert_array_equal(out["wavelengths"], [400, 500, 600, 700])
    assert out["mesu_index"] is index


def test_wavelengths_are_whole_nanometres():
    out = CU3SDataNode()(cube=CUBE, wavelengths=np.array([400.4, 500.6, 600.5, 601.5]))
    np.testing.assert_array_equal(out["wavelengths"], [400, 501, 600, 602])


CLASSES = npst.arrays(np.int32, (2, 3, 4), elements=st.integers(-1, 4))
IDS = st.sets(st.integers(0, 4)).map(sorted)


@given(CLASSES, IDS, st.none() | IDS)
def test_masks_follow_the_class_numbers(classes, normal, anomaly):
    if anomaly is not None:
        normal = sorted(set(normal) - set(anomaly))
    node = AnomalyDataNode(normal_class_ids=normal, anomaly_class_ids=anomaly)
    out = node(
        cube=torch.zeros(2, 3, 4, 1),
        mask=torch.from_numpy(classes),
        class_mask=torch.from_numpy(classes.astype(np.int64)),
    )
    expected = [
        [
            [c != -1 and (c not in normal if anomaly is None else c in anomaly) for c in row]
            for row in image
        ]
        for image in classes.tolist()
    ]
    assert out["mask"].dtype == torch.bool
    assert out["mask"].shape == (2, 3, 4, 1)
    assert out["mask"][..., 0].tolist() == expected
    assert out["class_mask"].dtype == torch.int32
    np.testing.assert_array_equal(out["class_mask"][..., 0].numpy(), classes)
    np.testing.assert_array_equal(anomalous(classes, normal, anomaly), expected)


def test_a_class_is_normal_or_not():
    with pytest.raises(PipelineError, match=r"classes \[1, 2\] are in normal_class_ids and in"):
        AnomalyDataNode(normal_class_ids=[0, 1, 2], anomaly_class_ids=[2, 1])


def test_the_name_of_older_pipelines():
    out = LentilsAnomalyDataNode(normal_class_ids=[0, 1])(
        cube=CUBE, mask=torch.tensor([[[0, 1, 2], [2, 1, -1]]])
    )
    assert out["mask"].flatten().tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize("cls", [CU3SDataNode, AnomalyDataNode])
def test_arguments_that_do_not_exist_are_refused(cls):
    with pytest.raises(TypeError, match="foo"):
        cls(foo=3)


def test_arguments_are_recorded():
    assert CU3SDataNode().hparams == {}
    assert AnomalyDataNode((0, 3), [1]).hparams == {
        "normal_class_ids": [0, 3],
        "anomaly_class_ids": [1],
    }


# --- channels by wavelength ---------------------------------------------------------------------

NANOMETRES = st.lists(
    st.integers(4000, 4600).map(lambda n: n / 10), min_size=1, max_size=12, unique=True
).map(sorted)


@given(NANOMETRES, st.integers(395, 465), st.none() | st.integers(0, 40), st.data())
def test_bandpass_keeps_what_lies_inside(wavelength, low, width, data):
    high = None if width is None else low + width
    expected = [i for i, w in enumerate(wavelength) if low <= w and (high is None or w <= high)]
    node = BandpassByWavelength(low, high, name="bp")
    axis = ChannelAxis.of(wavelength)
    if not expected:
        with pytest.raises(PipelineError, match=r"bp: no channel lies in .* nm; the data have"):
            node.channel_axis({"data": axis})
        return
    kept = node.channel_axis({"data": axis})["filtered"]
    assert kept.wavelength.tolist() == [wavelength[i] for i in expected]
    cube = torch.arange(6.0 * len(wavelength)).reshape(1, 2, 3, -1)
    node.axes = {"data": axis}
    out = node(data=cube)["filtered"].numpy()
    np.testing.assert_array_equal(out, cube.numpy()[..., expected])
    np.testing.assert_array_equal(node.affine()(cube.numpy().reshape(6, -1)), out.reshape(6, -1))


def test_bandpass_is_exact_where_the_batch_has_whole_nanometres():
    # 700.4 nm lies above 700 nm, though it is 700 in the batch.
    cube, axis = scene(channels=3), ChannelAxis.of([500.2, 650.0, 700.4])
    node = BandpassByWavelength(500, 700, name="bp")
    pipeline = chain(node)
    pipeline.connect(pipeline.nodes["data"].outputs.wavelengths, node.wavelengths)
    pipeline.resolve(axis)
    batch = {
        "cube": torch.from_numpy(cube.astype("f4"))[None],
        "wavelengths": torch.tensor([[500, 650, 700]]),
    }
    kept = pipeline.forward(batch)["bp", "filtered"]
    np.testing.assert_array_equal(kept[0].numpy(), cube[..., :2])
    np.testing.assert_array_equal(run(pipeline, "bp.filtered", cube=cube), cube[..., :2])
    assert pipeline.axis is axis


def test_bandpass_alone_needs_one_wavelength_per_channel():
    node = BandpassByWavelength(500, name="bp")
    out = node(data=CUBE, wavelengths=np.array([400, 500, 600, 700]))["filtered"]
    assert out.shape == (1, 2, 3, 3)
    with pytest.raises(PipelineError, match=r"bp: 4 channels came with no wavelengths; one per"):
        node(data=CUBE)
    with pytest.raises(PipelineError, match=r"bp: 4 channels came with 2 wavelengths"):
        node(data=CUBE, wavelengths=np.array([500, 600]))


def test_bandpass_limits_are_in_order():
    with pytest.raises(PipelineError, match="max_wavelength_nm 400 is below min_wavelength_nm 500"):
        BandpassByWavelength(500, 400)
    assert BandpassByWavelength(500, 500).high == 500.0


def test_an_axis_has_one_wavelength_per_channel():
    with pytest.raises(PipelineError, match=r"3 channels come with wavelengths of shape \(2,\)"):
        ChannelAxis(3, np.array([1.0, 2.0]))
    assert ChannelAxis(3).select([2, 0]).size == 2
    assert ChannelAxis.of([1, 2, 3]).select([2, 0]).wavelength.tolist() == [3.0, 1.0]
