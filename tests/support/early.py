"""What must be set before torch is imported, here and in every process that tests start."""

import os

# Peers are installed without byte code: what is imported is compiled once, not by each process.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Two workers and their peers share two cores: torch's idle threads sleep there instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
