"""Run by a peer's own Python: many merges in one interpreter, since importing mergekit takes seconds.

python mergekit_batch.py JOBS.json      [{"config": path, "out": path, "seed": int or null, "options": {}}]
"""

import json
import sys
from pathlib import Path

import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions


def main() -> None:
    for job in json.loads(Path(sys.argv[1]).read_text()):
        torch.set_num_threads(job.get("threads", 1))
        text = Path(job["config"]).read_text()
        options = MergeOptions(
            copy_tokenizer=False,
            write_model_card=False,
            random_seed=job["seed"],
            **job.get("options", {}),
        )
        run_merge(
            MergeConfiguration.model_validate(yaml.safe_load(text)),
            job["out"],
            options=options,
            config_source=text,
        )


main()
