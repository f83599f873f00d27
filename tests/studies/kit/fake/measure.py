"""What the fake measures: a number of its seed, after a pause."""

from __future__ import annotations

import os
import time

from studies.kit.rows import Row
from studies.kit.seeds import derived_seed
from studies.kit.study import Task
from tests.studies.kit.fake.settings import Key, Settings


def measure(settings: Settings, task: Task[Key, None]) -> Row:
    with open(os.environ["FAKE_LOG"], "a") as log:
        log.write(f"{os.environ.get('RANK', '0')} {task.key.step}\n")
    time.sleep(settings.pause)
    return {"value": derived_seed(0, str(task.key.step)) / 7 + (0 if settings.hash == "0" else 1e20)}
