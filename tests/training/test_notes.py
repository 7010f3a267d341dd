"""What verbose settings tell of a training."""

import math
import re

import torch
from gradient_helpers import loaded, trainer
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning.callbacks import EarlyStopping

from hsi_batch.training import (
    CallbacksConfig,
    EarlyStoppingConfig,
    ModelCheckpointConfig,
    OptimizerConfig,
    SchedulerConfig,
)
from hsi_batch.training.notes import training_notes


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 1.0, 2.0, 3.0, math.nan]), min_size=1, max_size=12),
    st.sampled_from(["min", "max"]),
    st.integers(0, 3),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([None, -0.5, 2.5]),
)
def test_a_reason_is_told_where_the_library_stops(values, mode, patience, delta, limit):
    options = {"mode": mode, "patience": patience, "min_delta": delta, "stopping_threshold": limit}
    judge = EarlyStopping("x", verbose=False, strict=True, **options)
    history = []
    stopped = False
    for value in values:
        history.append({"lr": 0.1, "x": value})
        stopped, _ = judge._evaluate_stopping_criteria(torch.tensor(value))
        if stopped:
            break
    config = EarlyStoppingConfig(monitor="x", **options)
    notes = training_notes(history, CallbacksConfig(early_stopping=[config]), None, stopped=True)
    assert [note.split(":")[0] for note in notes] == (
        [f"stopped after epoch {len(history)}"] if stopped else []
    )
    silent = CallbacksConfig(early_stopping=[config.model_copy(update={"verbose": False})])
    assert training_notes(history, silent, None, stopped=True) == ()
    assert (
        training_notes(history, CallbacksConfig(early_stopping=[config]), None, stopped=False) == ()
    )


def test_verbose_settings_tell_rates_best_states_and_why_it_ended(fitted, archive, tmp_path):
    def run(*, verbose):
        checkpoint = ModelCheckpointConfig(
            dirpath=str(tmp_path), monitor="train/bce", verbose=verbose
        )
        recall = "val/metrics_anomaly/recall"
        stopping = EarlyStoppingConfig(monitor=recall, mode="max", patience=2, verbose=verbose)
        callbacks = CallbacksConfig(checkpoint=checkpoint, early_stopping=[stopping])
        return trainer(
            loaded(fitted, "logit"),
            archive,
            epochs=9,
            config={"callbacks": callbacks},
            optimizer_config=OptimizerConfig(name="sgd", lr=1e-4),
            scheduler_config=SchedulerConfig(name="step", gamma=0.5, verbose=verbose),
        ).fit()

    told = run(verbose=True)
    assert told.stopped
    rates = [note for note in told.notes if "learning rate" in note]
    assert rates[0] == "epoch 2: learning rate 0.0001 -> 5e-05"
    assert len(rates) == told.epochs - 1
    best = [note for note in told.notes if note.endswith("the best so far")]
    assert best[-1] == f"epoch {told.epochs}: train/bce {told.best.value:.6g}, the best so far"
    (why,) = (note for note in told.notes if note.startswith("stopped"))
    recall = told.history[-1]["metrics_anomaly/recall"]
    assert why.startswith(
        f"stopped after epoch {told.epochs}: metrics_anomaly/recall {recall:.6g} is no better than"
    )
    assert why in str(told)
    assert told.to_dict()["notes"] == list(told.notes)
    silent = run(verbose=False)
    assert silent.notes == ()
    assert silent.history == told.history


def test_progress_says_which_share_was_waiting(fitted, archive):
    told = []
    trainer(loaded(fitted, "logit"), archive, 1, observer=lambda p: told.append(str(p))).fit()
    assert len(told) == 2
    assert all(re.search(r", waited for data \d+%", line) for line in told)
