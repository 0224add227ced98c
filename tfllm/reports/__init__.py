"""What a model has memorised, favours and looks at; each report says what it does not show."""

from tfllm.reports.attention import Attention, attention, attention_weights
from tfllm.reports.attribution import Attribution, attribute, attribution
from tfllm.reports.bias import bias
from tfllm.reports.exposure import Canary, Exposure, exposure
from tfllm.reports.memorisation import memorisation
from tfllm.reports.paired_templates import PairedTemplates, read_paired_templates
from tfllm.reports.report import Report, table, write_report
from tfllm.reports.verbatim import Verbatim, verbatim

__all__ = [
    "Attention",
    "Attribution",
    "Canary",
    "Exposure",
    "PairedTemplates",
    "Report",
    "Verbatim",
    "attention",
    "attention_weights",
    "attribute",
    "attribution",
    "bias",
    "exposure",
    "memorisation",
    "read_paired_templates",
    "table",
    "verbatim",
    "write_report",
]
