"""Metrics are pure functions of arrays; definitions and sources stand in docs/metrics.md."""

from hllm.metrics.definitions import DEFINITIONS as DEFINITIONS
from hllm.metrics.definitions import DEFINITIONS_OF_SEVERAL as DEFINITIONS_OF_SEVERAL
from hllm.metrics.definitions import RANKING_METRICS as RANKING_METRICS
from hllm.metrics.ranking import CUTOFFS as CUTOFFS
from hllm.metrics.ranking import UNREACHABLE as UNREACHABLE
from hllm.metrics.ranking import TargetRanks as TargetRanks
from hllm.metrics.ranking import ranking_metrics as ranking_metrics
