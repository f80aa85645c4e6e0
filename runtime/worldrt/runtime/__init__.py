"""Running bundles: prompts in, frames out."""

from worldrt.runtime.bestofn import BestOfN, BestOfNRequest
from worldrt.runtime.components import Execution
from worldrt.runtime.generate import Generator
from worldrt.runtime.jobs import Job
from worldrt.runtime.models import Models
from worldrt.runtime.observer import Cancelled, Observer
from worldrt.runtime.pipelines.text2image import Text2Image
from worldrt.runtime.pipelines.text2world import Text2World
from worldrt.runtime.pipelines.video2world import Video2World
from worldrt.runtime.request import Request

__all__ = [
    "BestOfN",
    "BestOfNRequest",
    "Cancelled",
    "Execution",
    "Generator",
    "Job",
    "Models",
    "Observer",
    "Request",
    "Text2Image",
    "Text2World",
    "Video2World",
]
