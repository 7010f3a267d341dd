"""Losses against torch.nn.functional, scikit-learn and plain NumPy in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from graph_helpers import chain, fit, labelled, scene
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax

from hsi_batch.errors import DataError, PipelineError
from hsi_batch.nodes import (
    AnomalyBCEWithLogits,
    AnomalyDataNode,
    CrossEntropyLoss,
    DeepSVDDSoftBoundaryLoss,
    DiceLoss,
    DistinctnessLoss,
    ForegroundContrastLoss,
    IoULoss,
    LossNode,
    MSEReconstructionLoss,
    OrthogonalityLoss,
    RXGlobal,
    ScoreToLogit,
    SelectorDiversityRegularizer,
    SelectorEntropyRegularizer,
    SoftChannelSelector,
    Stage,
    node_classes,
)
from hsi_batch.nodes.segmentation_losses import oklab
from hsi_batch.pipeline import Pipeline

P = torch.tensor([[0.5, -1.0], [2.0, 0.0]])[None, ..., None]
T = torch.tensor([[True, False], [True, False]])[None, ..., None]
W = torch.tensor([0.5, 0.3, 0.2])


def value(node, **given):
    loss = node(**given)["loss"]
    assert loss.shape == ()
    return loss.item()


def test_values_that_cuvis_ai_gives():
    """Published in the facts on cuvis-ai 0.19.3, from a run of it."""
    assert value(AnomalyBCEWithLogits(), predictions=P, targets=T) == pytest.approx(0.4018535)
    assert value(IoULoss(), predictions=P, targets=T) == pytest.approx(0.4571006, rel=1e-6)
    minmax = IoULoss(normalize_method="minmax")
    assert value(minmax, predictions=P, targets=T) == pytest.approx(0.3571428, rel=1e-6)
    assert value(SelectorEntropyRegularizer(), weights=W) == pytest.approx(-0.010296499)
    diversity = SelectorDiversityRegularizer(mode="concentrate")
    assert value(diversity, weights=W) == pytest.approx(-0.000155556, rel=1e-5)
    rows = torch.tensor([[2.0, 0, 0, 0], [0, 2, 0, 0]])
    assert value(OrthogonalityLoss(), components=rows) == pytest.approx(18.0)
    rows = torch.tensor([[1.0, 1, 0], [0, 1, 1]])
    assert value(DistinctnessLoss(), selection_weights=rows) == pytest.approx(0.05)
    svdd = value(
        DeepSVDDSoftBoundaryLoss(), embeddings=torch.ones(1, 1, 1, 2), center=torch.zeros(2)
    )
    assert svdd == pytest.approx(39.908714)


# --- losses of pixels -------------------------------------------------------------------------


@st.composite
def batches(draw, channels=1):
    """Values ``(B, y, x, channels)``, targets, and a mask (all, some, none, or not given)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    values = rng.normal(size=(*shape, channels)) * draw(st.sampled_from([0.5, 5.0]))
    targets = rng.random((*shape, 1)) < draw(st.sampled_from([0.0, 0.4, 1.0]))
    share = draw(st.sampled_from([None, 0.5, 1.0, 0.0]))
    valid = None if share is None else rng.random((*shape, 1)) < share
    return values.astype("f4"), targets, valid


def tensors(values, targets, valid):
    """As tensors that want a gradient, invalid pixels NaN; and the rows of the valid ones."""
    keep = np.ones(targets.shape, bool) if valid is None else valid
    given = torch.from_numpy(np.where(keep, values, np.nan)).requires_grad_()
    mask = None if valid is None else torch.from_numpy(valid)
    rows = values[keep[..., 0]].astype("f8"), targets[keep[..., 0]].astype("f8")
    return given, torch.from_numpy(targets), mask, rows


def check(loss, expected, given, valid):
    """The value is right, and no gradient reaches an invalid pixel, NaN or not."""
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=2e-5, abs=1e-6)
    loss.backward()
    assert torch.isfinite(given.grad).all()
    if valid is not None:
        assert (given.grad[~np.broadcast_to(valid, given.shape)] == 0).all()


@given(batches(), st.sampled_from([None, 1.0, 7.5]), st.sampled_from(["mean", "sum"]))
def test_cross_entropy_of_logits(batch, pos_weight, reduction):
    given, targets, mask, (x, t) = tensors(*batch)
    s = expit(x)
    terms = -((pos_weight or 1.0) * t * np.log(s) + (1 - t) * np.log1p(-s))
    expected = 2.0 * (terms.sum() if reduction == "sum" else terms.mean()) if len(x) else 0.0
    node = AnomalyBCEWithLogits(2.0, pos_weight, reduction)
    check(node(predictions=given, targets=targets, valid=mask)["loss"], expected, given, batch[2])


@given(batches(channels=3), st.sampled_from(["mean", "sum"]), st.integers(0, 99))
def test_squared_error(batch, reduction, seed):
    given, _, mask, (x, _) = tensors(*batch)
    other = np.random.default_rng(seed).normal(size=given.shape).astype("f4")
    keep = np.ones(given.shape[:3], bool) if batch[2] is None else batch[2][..., 0]
    error = (x - other[keep]) ** 2
    expected = 0.5 * (error.sum() if reduction == "sum" else error.mean()) if len(x) else 0.0
    node = MSEReconstructionLoss(0.5, reduction)
    out = node(reconstruction=given, target=torch.from_numpy(other), valid=mask)["loss"]
    check(out, expected, given, batch[2])


@given(batches(), st.sampled_from(["sigmoid", "clamp", "minmax"]))
def test_intersection_over_union(batch, method):
    given, targets, mask, (x, t) = tensors(*batch)
    node = IoULoss(3.0, 1e-3, method)
    p = {"sigmoid": expit, "clamp": lambda v: np.clip(v, 0, 1)}.get(
        method,
        lambda v: (v - v.min()) / (np.ptp(v) + 1e-3) if v.size and np.ptp(v) else v * 0 + 0.5,
    )(x)
    both = (p * t).sum()
    expected = 3.0 * (1 - (both + 1e-3) / (p.sum() + t.sum() - both + 1e-3)) if len(x) else 0.0
    check(node(predictions=given, targets=targets, valid=mask)["loss"], expected, given, batch[2])


def test_predictions_that_are_right_cost_nothing():
    certain = torch.where(T, 40.0, -40.0)
    assert value(IoULoss(), predictions=certain, targets=T) == pytest.approx(0, abs=1e-6)
    assert value(AnomalyBCEWithLogits(), predictions=certain, targets=T) == pytest.approx(0)
    flat = IoULoss(normalize_method="minmax")
    assert value(flat, predictions=0 * P, targets=T) == pytest.approx(1 - 1 / 3, rel=1e-5)


@given(batches(channels=4), st.sampled_from([0.05, 1.0]), st.sampled_from([0.0, 0.3, -1.0]))
def test_soft_boundary(batch, nu, r):
    given, _, mask, (z, _) = tensors(*batch)
    node = DeepSVDDSoftBoundaryLoss(nu, 2.0)
    with torch.no_grad():
        node.r_unconstrained.fill_(r)
    radius = np.log1p(np.exp(10 * np.float32(r).astype("f8"))) / 10
    assert node.radius.item() == pytest.approx(radius, rel=1e-5)
    centre = np.array([0.5, -1, 0, 2.0], "f4")
    distance = ((z - centre) ** 2).sum(axis=1)
    outside = np.maximum(distance - radius**2, 0)
    expected = 2.0 * (radius**2 + outside.mean() / nu) if len(z) else 0.0
    out = node(embeddings=given, center=torch.from_numpy(centre), valid=mask)["loss"]
    check(out, expected, given, batch[2])


def test_the_radius_is_trained():
    node = DeepSVDDSoftBoundaryLoss(nu=0.5)
    assert [name for name, _ in node.named_parameters()] == ["r_unconstrained"]
    z = torch.full((1, 5, 5, 2), 2.0)
    optimiser = torch.optim.SGD(node.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        node(embeddings=z, center=torch.zeros(2))["loss"].backward()
        optimiser.step()
    # Every pixel is at sqrt(8); half of them may not lie outside.
    assert node.radius.item() == pytest.approx(np.sqrt(8), rel=0.1)


# --- class maps -------------------------------------------------------------------------------


@st.composite
def class_maps(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 5)))
    classes = draw(st.integers(2, 4))
    logits = rng.normal(size=(*shape, classes)).astype("f4") * 3
    targets = rng.integers(0, classes, shape).astype("i4")
    targets[rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = -1
    valid = rng.random(shape) < 0.7 if draw(st.booleans()) else None
    return logits, targets, valid


def kept(logits, targets, valid):
    keep = (targets != -1) & (True if valid is None else valid)
    given = torch.from_numpy(np.where(keep[..., None], logits, np.nan)).requires_grad_()
    mask = None if valid is None else torch.from_numpy(valid)[..., None]
    return given, torch.from_numpy(targets), mask, logits[keep].astype("f8"), targets[keep]


@given(class_maps(), st.booleans())
def test_dice_of_classes(batch, background):
    given, targets, mask, x, t = kept(*batch)
    classes = x.shape[1]
    p, hot = softmax(x, axis=1), np.eye(classes)[t]
    dice = (2 * (p * hot).sum(0) + 1e-3) / (p.sum(0) + hot.sum(0) + 1e-3)
    expected = 2.0 * (1 - dice[0 if background else 1 :].mean())
    node = DiceLoss(2.0, ignore_index=-1, include_background=background, eps=1e-3)
    check(node(logits=given, targets=targets, valid=mask)["loss"], expected, given, None)


@given(batches())
def test_dice_of_one_class(batch):
    given, targets, mask, (x, t) = tensors(*batch)
    p = expit(x)
    expected = 1 - (2 * (p * t).sum() + 1e-6) / (p.sum() + t.sum() + 1e-6)
    out = DiceLoss()(logits=given, targets=targets.int(), valid=mask)["loss"]
    check(out, expected, given, batch[2])


@given(class_maps(), st.booleans())
def test_cross_entropy_of_classes(batch, weighted):
    given, targets, mask, x, t = kept(*batch)
    weights = np.arange(1.0, x.shape[1] + 1) if weighted else None
    v = np.ones(len(t)) if weights is None else weights[t]
    picked = np.log(softmax(x, axis=1)[np.arange(len(t)), t])
    expected = -2.0 * (v * picked).sum() / v.sum() if len(t) else 0.0
    node = CrossEntropyLoss(2.0, None if weights is None else weights.tolist(), ignore_index=-1)
    check(node(logits=given, targets=targets, valid=mask)["loss"], expected, given, None)


def test_classes_that_do_not_exist():
    logits = torch.zeros(1, 1, 2, 3)
    targets = torch.tensor([[[0, 7]]], dtype=torch.int32)
    for node in (DiceLoss(name="d"), CrossEntropyLoss(name="d")):
        with pytest.raises(DataError, match=r"d\.targets holds class 7, .* 3 channels .*0 to 2"):
            node(logits=logits, targets=targets)
    targets[..., 1] = -1
    with pytest.raises(DataError, match=r"holds class -1.*Set ignore_index to -1"):
        DiceLoss()(logits=logits, targets=targets)
    assert value(DiceLoss(ignore_index=-1), logits=logits, targets=targets[..., None]) > 0
    with pytest.raises(PipelineError, match="one channel, whose softmax is always 1"):
        CrossEntropyLoss()(logits=logits[..., :1], targets=targets)
    with pytest.raises(PipelineError, match="2 class_weights, but the logits have 3"):
        CrossEntropyLoss(class_weights=[1, 2])(logits=logits, targets=targets)


# --- colours ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        # CSS Color Module Level 4
        ((1, 1, 1), (1.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((1, 0, 0), (0.62796, 0.22486, 0.12585)),
        ((0, 1, 0), (0.86644, -0.23389, 0.17950)),
        ((0, 0, 1), (0.45201, -0.03246, -0.31153)),
    ],
)
def test_oklab_of_published_colours(rgb, expected):
    found = oklab(torch.tensor(rgb, dtype=torch.float32))
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_oklab_of_grey_and_its_gradient():
    # L of a linear grey is its cube root; sRGB 0.5 is linear 0.21404 (IEC 61966-2-1).
    grey = torch.full((1, 3), 0.5)
    assert oklab(grey, gamma=False)[0, 0].item() == pytest.approx(0.5 ** (1 / 3), rel=1e-4)
    assert oklab(grey)[0, 0].item() == pytest.approx(0.2140411 ** (1 / 3), rel=1e-4)
    edge = torch.tensor([[0.0, 1.0, -0.2]], requires_grad=True)
    oklab(edge).sum().backward()
    assert torch.isfinite(edge.grad).all()


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(0.0, 0.0), (2.0, 0.0), (0.5, 3.0)]),
    st.booleans(),
)
def test_foreground_contrast(seed, factors, masked):
    rng = np.random.default_rng(seed)
    rgb = rng.random((3, 3, 4, 3)).astype("f4")
    mask = rng.integers(0, 3, (3, 3, 4)).astype("i4")
    mask[1] = 0  # a frame without foreground takes no part
    valid = rng.random((3, 3, 4, 1)) < 0.8 if masked else np.ones((3, 3, 4, 1), bool)
    losses = []
    for image, region, keep in zip(rgb.astype("f8"), mask, valid[..., 0], strict=True):
        front, back = image[keep & (region > 0)], image[keep & (region <= 0)]
        if len(front) and len(back):
            f, b, a = front.mean(0), back.mean(0), image[keep].mean(0)
            pull = ((f - a) ** 2).mean() + ((b - a) ** 2).mean()
            loss = -np.sqrt(((f - b) ** 2).sum() + 1e-6) + factors[0] * front.var(axis=0).mean()
            losses.append(loss + factors[1] * pull)
    given = torch.from_numpy(np.where(valid, rgb, np.nan)).requires_grad_()
    node = ForegroundContrastLoss(2.0, *factors)
    out = node(
        rgb=given,
        mask=torch.from_numpy(mask),
        valid=torch.from_numpy(valid) if masked else None,
    )["loss"]
    check(out, 2.0 * np.mean(losses) if losses else 0.0, given, valid)


def test_foreground_contrast_in_oklab():
    black_and_white = torch.tensor([0.0, 1.0])[None, None, :, None].expand(1, 1, 2, 3)
    mask = torch.tensor([[[0, 1]]], dtype=torch.int32)
    node = ForegroundContrastLoss(color_space="oklab")
    assert value(node, rgb=black_and_white, mask=mask) == pytest.approx(-1.0, rel=1e-3)
    assert value(node, rgb=black_and_white, mask=0 * mask) == 0.0


# --- parameters -------------------------------------------------------------------------------

MATRICES = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 5))


def matrix(drawn):
    seed, rows, columns = drawn
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype("f4")


@given(MATRICES)
def test_orthogonality(drawn):
    w = matrix(drawn)
    gram = w.astype("f8") @ w.T.astype("f8")
    expected = 0.5 * ((gram - np.eye(len(w))) ** 2).sum()
    assert value(OrthogonalityLoss(0.5), components=torch.from_numpy(w)) == pytest.approx(
        expected, rel=1e-4
    )


@given(MATRICES, st.booleans())
def test_distinctness_is_the_mean_over_all_pairs(drawn, signed):
    w = matrix(drawn)
    cosines = np.corrcoef(np.hstack([w, -w]).astype("f8"))  # of zero mean, hence cosines
    pairs = np.atleast_2d(cosines)[np.triu_indices(len(w), 1)]
    expected = 0.1 * (pairs if signed else np.abs(pairs)).mean() if len(w) > 1 else 0.0
    node = DistinctnessLoss(signed=signed)
    assert value(node, selection_weights=torch.from_numpy(w)) == pytest.approx(expected, abs=1e-6)


def test_distinct_rows_cost_nothing_and_opposite_ones_are_alike():
    rows = torch.eye(3, 5, requires_grad=True)
    loss = DistinctnessLoss()(selection_weights=rows)["loss"]
    loss.backward()
    assert loss.item() == 0.0
    assert torch.isfinite(rows.grad).all()
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert value(DistinctnessLoss(), selection_weights=opposite) == pytest.approx(0.1)
    assert value(DistinctnessLoss(signed=True), selection_weights=opposite) == pytest.approx(-0.1)


@given(st.lists(st.floats(0.0, 10.0, width=32), min_size=2, max_size=9))
def test_entropy_and_diversity(weights):
    w = np.array(weights)
    p = w / (w.sum() + 1e-6)
    entropy = -(p * np.log(p + 1e-6)).sum()
    given = torch.tensor(weights)
    assert value(SelectorEntropyRegularizer(2.0), weights=given) == pytest.approx(
        -2 * entropy, rel=1e-4, abs=1e-5
    )
    held = SelectorEntropyRegularizer(2.0, target_entropy=0.7)
    assert value(held, weights=given) == pytest.approx(2 * (entropy - 0.7) ** 2, abs=1e-4)
    for mode, sign in (("spread", 1), ("concentrate", -1)):
        found = value(SelectorDiversityRegularizer(2.0, mode), weights=given)
        assert found == pytest.approx(sign * 2 * w.var(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("mode", "spreads"), [("spread", True), ("concentrate", False)])
def test_where_diversity_leads(mode, spreads):
    """Gradient descent on it spreads the weights of a selector, or concentrates them."""
    logits = torch.tensor([0.6, 0.0, -0.6], requires_grad=True)
    node = SelectorDiversityRegularizer(1.0, mode)
    before = torch.softmax(logits, 0).max().item()
    for _ in range(20):
        loss = node(weights=torch.softmax(logits, 0))["loss"]
        (slope,) = torch.autograd.grad(loss, logits)
        logits = (logits - slope).detach().requires_grad_()
    after = torch.softmax(logits, 0).max().item()
    assert (after < before) == spreads


# --- what all have in common ------------------------------------------------------------------


def test_wrong_shapes_are_told():
    loss = AnomalyBCEWithLogits(name="bce")
    with pytest.raises(
        PipelineError,
        match=r"bce\.predictions has shape \(2, 2\); expected \(batch, y, x, 1\)",
    ):
        loss(predictions=torch.zeros(2, 2), targets=T)
    with pytest.raises(PipelineError, match=r"bce\.predictions has shape \(1, 2, 2, 3\)"):
        loss(predictions=torch.zeros(1, 2, 2, 3), targets=T)
    with pytest.raises(PipelineError, match=r"targets has shape .* both must have the same batch"):
        loss(predictions=P, targets=T[:, :1])
    with pytest.raises(PipelineError, match=r"bce\.targets is torch\.int32; expected torch\.bool"):
        loss(predictions=P, targets=T.int())
    with pytest.raises(PipelineError, match=r"valid has shape \(1, 2, 1, 1\)"):
        loss(predictions=P, targets=T, valid=T[:, :, :1])
    with pytest.raises(PipelineError, match=r"expected \(channel,\)"):
        SelectorEntropyRegularizer()(weights=torch.ones(1, 3))
    with pytest.raises(PipelineError, match=r"reconstruction has 2 channels, .*target has 3"):
        MSEReconstructionLoss()(
            reconstruction=torch.zeros(1, 1, 1, 2), target=torch.zeros(1, 1, 1, 3)
        )
    with pytest.raises(PipelineError, match=r"embeddings has 2 channels, .*center has 3"):
        DeepSVDDSoftBoundaryLoss()(embeddings=torch.zeros(1, 1, 1, 2), center=torch.zeros(3))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: AnomalyBCEWithLogits(reduction="none"), "a loss is one number"),
        (lambda: MSEReconstructionLoss(reduction="none"), "a loss is one number"),
        (lambda: AnomalyBCEWithLogits(pos_weight=-1), "pos_weight -1 must not be negative"),
        (lambda: IoULoss(normalize_method="softmax"), "normalize_method 'softmax' is not"),
        (lambda: IoULoss(smooth=0), "smooth 0 must be above 0"),
        (lambda: DeepSVDDSoftBoundaryLoss(nu=0), "nu 0 is not above 0"),
        (lambda: DiceLoss(eps=0), "eps 0 must be above 0"),
        (lambda: CrossEntropyLoss(class_weights=[1, -1]), "class_weights .* must not be negative"),
        (lambda: CrossEntropyLoss(class_weights=[]), "class_weights .* must be one per class"),
        (lambda: ForegroundContrastLoss(color_space="lab"), "color_space 'lab' is not"),
        (lambda: SelectorDiversityRegularizer(mode="more"), "mode 'more' is not"),
    ],
)
def test_wrong_arguments_are_told(make, text):
    with pytest.raises(PipelineError, match=text):
        make()


STATES = [
    (AnomalyBCEWithLogits(pos_weight=3.0), {"_pos_weight": (1,), "loss_fn.pos_weight": (1,)}),
    (AnomalyBCEWithLogits(reduction="sum"), {}),
    (DeepSVDDSoftBoundaryLoss(0.1), {"r_unconstrained": ()}),
    (CrossEntropyLoss(class_weights=(1, 2, 3)), {"_class_weights": (3,)}),
    (DiceLoss(ignore_index=255), {}),
    (DistinctnessLoss(signed=True), {}),
    (ForegroundContrastLoss(color_space="oklab"), {}),
]


@pytest.mark.parametrize("node", [node for node, _ in STATES], ids=lambda n: type(n).__name__)
def test_arguments_and_state_make_the_same_loss(node):
    """The names and shapes of the state are those of cuvis-ai 0.19.3."""
    state = node.state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == dict(STATES)[node]
    again = node_classes()[type(node).__name__](**node.hparams)
    again.load_state_dict({k: v + 1 for k, v in state.items()})
    assert again.hparams == node.hparams
    given = {
        "predictions": (P, T),
        "logits": (torch.arange(12.0).reshape(1, 2, 2, 3), T[..., 0].int()),
    }
    for port, (values, targets) in given.items():
        if port in node.INPUT_SPECS:
            before, after = (n(**{port: values}, targets=targets)["loss"] for n in (node, again))
            assert torch.equal(before, after) == (not state)


def selector_pipeline():
    """The losses of the tutorial on channel selectors, in a graph."""
    pipeline = chain(
        SoftChannelSelector(2, init_method="variance", name="select"),
        RXGlobal(name="rx", eps=0.0),
        ScoreToLogit(name="logit"),
        source=AnomalyDataNode(name="data"),
    )
    nodes = pipeline.nodes
    bce, iou = AnomalyBCEWithLogits(10.0, 2.0, name="bce"), IoULoss(name="iou")
    entropy = SelectorEntropyRegularizer(0.1, name="entropy")
    diversity = SelectorDiversityRegularizer(name="diversity")
    mask = nodes["data"].outputs.mask
    pipeline.connect(
        (nodes["logit"].logits, bce.predictions),
        (mask, bce.targets),
        (nodes["logit"].logits, iou.predictions),
        (mask, iou.targets),
        (nodes["select"].weights, entropy.weights),
        (nodes["select"].weights, diversity.weights),
    )
    return pipeline


def test_losses_run_in_train_val_and_test_only(tmp_path):
    cube = scene()
    pipeline = selector_pipeline()
    fit(pipeline, cube)
    mask = torch.zeros(1, *cube.shape[:2], dtype=torch.int32)
    mask[0, :3] = 1
    batch = {"cube": torch.from_numpy(cube.astype("f4"))[None], "mask": mask}
    with torch.no_grad():
        pipeline.nodes["bce"].loss_fn.pos_weight.fill_(4.0)
    names = ("bce", "iou", "entropy", "diversity")
    assert not {(n, "loss") for n in names} & set(pipeline.forward(batch))
    seen = {}
    for stage in ("train", "val", "test"):
        out = pipeline.forward(batch, stage=stage)
        seen[stage] = [out[n, "loss"].item() for n in names]
    logits = out["logit", "logits"]
    expected = 10 * F.binary_cross_entropy_with_logits(
        logits.double(), (mask[..., None] > 0).double(), pos_weight=torch.tensor(4.0)
    )
    assert seen["test"][0] == pytest.approx(expected.item(), rel=1e-5)
    assert seen["train"] == pytest.approx(seen["test"], rel=1e-6)
    # What was changed since is in the file of weights.
    again = Pipeline.from_yaml(pipeline.save(tmp_path / "p.yaml"))
    out = again.forward(batch, stage="val")
    assert [out[n, "loss"].item() for n in names] == pytest.approx(seen["val"], rel=1e-6)
    # Scoring leaves them out, and needs no labels.
    scored = again.apply(labelled(cube), "rx.scores").compute()
    np.testing.assert_allclose(scored, out["rx", "scores"][0, :, :, 0], rtol=1e-4)
    del batch["mask"]
    with pytest.raises(PipelineError, match=r"bce\.targets got nothing"):
        pipeline.forward(batch, stage="val")


def test_gradients_reach_what_is_trained():
    cube = scene(channels=4)
    pipeline = selector_pipeline()
    fit(pipeline, cube)
    select = pipeline.nodes["select"]
    logits = torch.nn.Parameter(select.channel_logits.clone())
    del select.channel_logits
    select.channel_logits = logits
    batch = {
        "cube": torch.from_numpy(cube.astype("f4"))[None],
        "mask": (torch.arange(cube[..., 0].size).reshape(1, *cube.shape[:2]) % 9 == 0).int(),
    }
    out = pipeline.forward(batch, stage="train")
    sum(v for (_, port), v in out.items() if port == "loss").backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad != 0).any()


def test_every_loss_is_in_the_library():
    losses = {n for n, cls in node_classes().items() if issubclass(cls, LossNode)}
    assert len(losses) == 11
    assert all(node_classes()[n].stages == {Stage.TRAIN, Stage.VAL, Stage.TEST} for n in losses)
