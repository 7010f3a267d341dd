"""The pages on two-phase training and channel selection: settings of the gradient phase."""

from hsi_batch.training import (
    CallbacksConfig,
    EarlyStoppingConfig,
    LearningRateMonitorConfig,
    ModelCheckpointConfig,
    OptimizerConfig,
    SchedulerConfig,
    TrainerConfig,
    TrainingConfig,
)

training_config = TrainingConfig(
    seed=42,
    optimizer=OptimizerConfig(name="adamw", lr=0.001, weight_decay=1e-4),
    scheduler=SchedulerConfig(
        name="reduce_on_plateau",
        monitor="metrics_anomaly/iou",
        mode="max",
        factor=0.5,
        patience=5,
    ),
    trainer=TrainerConfig(
        max_epochs=50,
        accelerator="auto",
        callbacks=CallbacksConfig(
            checkpoint=ModelCheckpointConfig(
                monitor="metrics_anomaly/iou",
                mode="max",
                save_top_k=3,
                filename="best-{epoch:02d}-{val_iou:.3f}",
                dirpath="outputs/checkpoints",
            ),
            early_stopping=[
                EarlyStoppingConfig(monitor="val/bce", mode="min", patience=10, min_delta=0.001)
            ],
            lr_monitor=LearningRateMonitorConfig(logging_interval="epoch"),
        ),
    ),
)

training_cfg = TrainingConfig.from_dict({"seed": 7, "trainer": {"max_epochs": 3}})
if training_cfg.trainer.callbacks is None:
    training_cfg.trainer.callbacks = CallbacksConfig()
training_cfg.trainer.callbacks.early_stopping.append(
    EarlyStoppingConfig(monitor="train/bce", mode="min", patience=20)
)
training_cfg.scheduler = SchedulerConfig(
    name="reduce_on_plateau", monitor="metrics_anomaly/iou", mode="max", factor=0.5, patience=5
)
training_cfg.trainer.callbacks.checkpoint = ModelCheckpointConfig(
    dirpath="outputs/checkpoints",
    monitor="metrics_anomaly/iou",
    mode="max",
    save_top_k=3,
    save_last=True,
    filename="{epoch:02d}",
    verbose=True,
)
training_cfg.trainer.max_epochs = 50
training_cfg.trainer.check_val_every_n_epoch = 1
