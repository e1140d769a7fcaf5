"""What each process does in the test of several; ``torchrun`` starts it: FOLDER BATCH POOL."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from musclekit.neural.checkpoint import weights_hash, write_tensors
from musclekit.neural.training.translation import train_translator
from tests.neural.training.examples import SOURCE, TARGET, tiny

if __name__ == "__main__":
    folder, batch, pool, until = Path(sys.argv[1]), *map(int, sys.argv[2:])
    trained = train_translator(tiny(batch=batch, pool=pool), SOURCE, TARGET, folder, until=until)
    write_tensors(folder / f"rank_{os.environ['RANK']}.pt", dict(trained.forward.state_dict()))
    print(os.environ["RANK"], weights_hash(trained.forward.state_dict()))
