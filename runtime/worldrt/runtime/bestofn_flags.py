"""The flags of `trt-run bestofn`."""

from __future__ import annotations

from typing import Any

from worldrt.engine.cli import Parser
from worldrt.runtime import flags, reason_flags

ABOUT = (
    "Make the video of one request with several seeds, ask a critic several times about each, and say which one it "
    "found the least wrong with. The score is the share of the critic's answers that found nothing."
)


def add(commands: Any) -> None:
    """The subcommand `bestofn`."""
    parser: Parser = commands.add_parser("bestofn", help="several videos, judged by a critic", description=ABOUT)
    add = parser.add_argument_group("how many, and where they go").add_argument
    add("--num_generations", type=int, default=2, help="videos, with --seed and the seeds after it (default 2)")
    add("--num_critic_trials", type=int, default=5, help="answers of the critic about each video (default 5)")
    add("--skip_generation", action="store_true", help="judge the videos that are in --save_path")
    add("--save_path", default="output/best-of-n", metavar="DIR", help="videos, reports, answers")
    add("--quality", type=int, metavar="1..100", help="of the videos (65 by default: H.264 at CRF 18)")
    add("--overwrite", action="store_true", help="replace what is there, made from other things")
    add("--json", action="store_true", help="print the result as JSON")
    add("--quiet", action="store_true", help="no progress")
    reason_flags.add_critic(parser)
    flags.add_making(parser, "video2world")
    parser.set_defaults(verb="bestofn", batch_input_json=None, benchmark=None, from_sidecar=None, record_inputs=None)
