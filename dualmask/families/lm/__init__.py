"""Two language models to compare with, of the same trunk and token table: autoregressive and masked diffusion."""

from dataclasses import replace

from dualmask.families.lm.config import LanguageModelConfig, LanguageModelStage
from dualmask.families.registry import Family

AUTOREGRESSIVE = Family(
    name="autoregressive",
    model=LanguageModelConfig,
    stages=(LanguageModelStage,),
    runtime="dualmask.families.lm.runtime:AUTOREGRESSIVE",
    shown=("nll",),
    dev_figures={"dev_loss": "min", "dev_bits": "min"},  # nats and bits a token
)
DIFFUSION = replace(AUTOREGRESSIVE, name="diffusion", runtime="dualmask.families.lm.runtime:DIFFUSION")
