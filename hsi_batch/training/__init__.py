"""The authoring API: trainers over data modules, and the settings of trainings."""

from hsi_batch.data.config import DataConfig
from hsi_batch.pipeline.config import PipelineMetadata
from hsi_batch.training.callbacks_config import (
    CallbacksConfig,
    EarlyStoppingConfig,
    LearningRateMonitorConfig,
    ModelCheckpointConfig,
)
from hsi_batch.training.config import (
    OptimizerConfig,
    SchedulerConfig,
    TrainerConfig,
    TrainingConfig,
)
from hsi_batch.training.evaluation import StageResults
from hsi_batch.training.gradient import GradientTrainer
from hsi_batch.training.results import TrainResult
from hsi_batch.training.statistical import StatisticalTrainer
from hsi_batch.training.trainrun import TrainRunConfig

__all__ = [
    "CallbacksConfig",
    "DataConfig",
    "EarlyStoppingConfig",
    "GradientTrainer",
    "LearningRateMonitorConfig",
    "ModelCheckpointConfig",
    "OptimizerConfig",
    "PipelineMetadata",
    "SchedulerConfig",
    "StageResults",
    "StatisticalTrainer",
    "TrainResult",
    "TrainRunConfig",
    "TrainerConfig",
    "TrainingConfig",
]
