"""Settings of trainings and trainruns: defaults, both forms, files, mistakes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hsi_batch.errors import ConfigError, HsiBatchWarning
from hsi_batch.training import (
    CallbacksConfig,
    EarlyStoppingConfig,
    LearningRateMonitorConfig,
    ModelCheckpointConfig,
    OptimizerConfig,
    SchedulerConfig,
    TrainerConfig,
    TrainingConfig,
    TrainRunConfig,
)
from hsi_batch.training.schedules import check_optimizer, make_optimizer
from hsi_batch.training.trainrun import build_pipeline, read_trainrun


@pytest.mark.parametrize(
    ("settings_", "text"),
    [
        (OptimizerConfig(), "name=adamw lr=0.001 weight_decay=0.0 momentum=0.9 betas=None"),
        (
            SchedulerConfig(),
            (
                "name=None warmup_epochs=0 min_lr=1e-06 t_max=None step_size=None gamma=None"
                " monitor=None mode=min factor=0.1 patience=10 threshold=0.0001 threshold_mode=rel"
                " cooldown=0 eps=1e-08 verbose=False"
            ),
        ),
        (
            EarlyStoppingConfig(monitor="x"),
            (
                "monitor=x patience=10 mode=min min_delta=0.0 stopping_threshold=None verbose=True"
                " strict=True check_finite=True divergence_threshold=None"
                " check_on_train_epoch_end=None log_rank_zero_only=False"
            ),
        ),
        (
            ModelCheckpointConfig(),
            (
                "dirpath=checkpoints filename=None monitor=val_loss mode=min save_top_k=3"
                " every_n_epochs=None save_last=False auto_insert_metric_name=True verbose=False"
                " save_on_exception=False save_weights_only=False every_n_train_steps=None"
                " train_time_interval=None save_on_train_epoch_end=None enable_version_counter=True"
            ),
        ),
        (
            LearningRateMonitorConfig(),
            "logging_interval=epoch log_momentum=False log_weight_decay=False",
        ),
        (
            TrainerConfig(),
            (
                "max_epochs=100 accelerator=auto devices=None default_root_dir=None"
                " precision=32-true accumulate_grad_batches=1 enable_progress_bar=True"
                " enable_checkpointing=False log_every_n_steps=50 val_check_interval=1.0"
                " check_val_every_n_epoch=1 limit_train_batches=None limit_val_batches=None"
                " num_sanity_val_steps=None gradient_clip_val=None deterministic=False"
                " benchmark=False callbacks=None"
            ),
        ),
    ],
)
def test_defaults_are_those_of_the_released_models(settings_, text):
    fields = {key: getattr(settings_, key) for key in type(settings_).model_fields}
    assert " ".join(f"{key}={value}" for key, value in fields.items()) == text


def test_momentum_that_cuvis_ai_writes_for_adam_is_left_out_with_a_warning(recwarn):
    given = {"name": "adam", "momentum": 0.8}
    for flat in ({"max_epochs": 7, "optimizer": given}, {"optimizer": {"momentum": 0.9}}):
        with pytest.warns(HsiBatchWarning, match=r"optimizer\.momentum 0\.[89] is left out"):
            found = TrainingConfig.from_dict(flat)
        check_optimizer(found.optimizer)
    own = TrainingConfig.from_dict({"optimizer": given, "trainer": {}})
    for config in (own.optimizer, OptimizerConfig(name="AdamW", momentum=0.9)):
        with pytest.raises(
            ConfigError, match=r"momentum 0\.[89] is of sgd; adamw? has none"
        ) as told:
            check_optimizer(config)
        assert "write betas" in str(told.value)
    # Our own files carry none, and that of sgd has its effect.
    recwarn.clear()
    assert "momentum" not in OptimizerConfig().to_dict()
    assert OptimizerConfig.from_dict(OptimizerConfig().to_dict()) == OptimizerConfig()
    sgd = TrainingConfig.from_dict({"max_epochs": 7, "optimizer": {"name": "sgd", "momentum": 0.5}})
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(1))], sgd.optimizer)
    assert optimizer.param_groups[0]["momentum"] == 0.5
    assert not list(recwarn)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 99),
    epochs=st.integers(1, 10000),
    lr=st.floats(1e-9, 1),
    betas=st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)),
    patience=st.lists(st.integers(0, 9), max_size=3),
)
def test_to_files_and_back(tmp_path_factory, seed, epochs, lr, betas, patience):
    config = TrainingConfig(
        seed=seed,
        optimizer=OptimizerConfig(lr=lr, betas=betas),
        trainer=TrainerConfig(
            max_epochs=epochs,
            callbacks=CallbacksConfig(
                early_stopping=[EarlyStoppingConfig(monitor="m", patience=p) for p in patience]
            ),
        ),
    )
    path = tmp_path_factory.mktemp("settings") / "t.yaml"
    assert TrainingConfig.load_from_file(config.save_to_file(path)) == config
    assert TrainingConfig.from_json(config.to_json()) == config


def test_the_flat_form_is_read():
    flat = {"seed": 3, "max_epochs": 7, "callbacks": {"lr_monitor": {}}, "optimizer": {"lr": 0.1}}
    nested = TrainingConfig.from_dict(flat)
    assert (nested.trainer.max_epochs, nested.optimizer.lr) == (7, 0.1)
    assert nested.trainer.callbacks.lr_monitor == LearningRateMonitorConfig()
    with pytest.raises(ConfigError, match="max_epochs stands here and under `trainer`"):
        TrainingConfig.from_dict({"max_epochs": 7, "trainer": {"max_epochs": 8}})


def test_values_are_checked_when_they_are_assigned():
    config = TrainingConfig()
    config.optimizer.lr = 0.5
    with pytest.raises(ValidationError):
        config.optimizer.lr = 2.0
    with pytest.raises(ValidationError):
        config.trainer = 3
    assert (config.optimizer.lr, config.trainer) == (0.5, TrainerConfig())


RUN = """name: run
pipeline: {pipeline}
data:
  data_module: archive
  params: {{archive: a.zarr}}
  splits: {{train: [{{kind: all}}]}}
training: {{seed: 1, max_epochs: 2}}
tags: {{a: b}}
"""
GRAPH = "nodes: {data: CU3SDataNode, rx: RXGlobal}\nconnections: [[data.cube, rx.data]]\n"


def test_a_trainrun_file(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "rx.yaml").write_text(GRAPH)
    path = tmp_path / "runs" / "run.yaml"
    path.write_text(RUN.format(pipeline="rx"))
    config, _ = read_trainrun(path, ["training.max_epochs=5", "data.batch_size=2"])
    assert (config.training.trainer.max_epochs, config.data.batch_size) == (5, 2)
    assert list(build_pipeline(config, path).nodes) == ["data", "rx"]
    again = TrainRunConfig.from_dict(config.to_dict())
    assert again == config
    path.write_text(RUN.format(pipeline="other"))
    with pytest.raises(ConfigError, match=r"there is no pipeline 'other'\. Looked for"):
        build_pipeline(read_trainrun(path)[0], path)


def test_mistakes_of_a_trainrun(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("name: run\ndata: {batch_size: 0}\ntraining: {optimiser: {}}\nlosses: []\n")
    with pytest.raises(ConfigError) as caught:
        read_trainrun(path)
    lines = {problem.line for problem in caught.value.problems}
    assert lines == {2, 3, 4}
    assert "Did you mean 'optimizer'?" in str(caught.value)
    path.write_text("defaults: [a]\nname: x\n")
    with pytest.raises(ConfigError, match="cannot be composed"):
        read_trainrun(path)
    path.write_text("name: x\ndata: {}\ntags:\n  fitted: by me\n")
    with pytest.raises(ConfigError, match=r":4: tags: 'fitted' is what a fit says of itself"):
        read_trainrun(path)
    path.write_text("name: x\ndata: {}\n")
    with pytest.raises(ConfigError, match="names no pipeline"):
        build_pipeline(read_trainrun(path)[0], path)
