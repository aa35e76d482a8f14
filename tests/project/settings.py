"""Settings of worker processes: what a test says comes in by the environment."""

from __future__ import annotations

import json
import os

from kombu import Exchange, Queue

from tests.settings import *  # noqa: F403

CELERY_RESULT_BACKEND = os.environ.get("CELERY_RESULT_BACKEND")
CELERY_WORKER_HIJACK_ROOT_LOGGER = True

CELERY_TASK_QUEUES = [
    Queue("celery"),
    Queue("media", Exchange("media", type="topic"), routing_key="media.#"),
]

UNSTUCK = {}

globals().update(json.loads(os.environ.get("PROJECT_SETTINGS", "{}")))
