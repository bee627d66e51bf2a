"""A live run in a process of its own, to be killed: arguments are the store's URL and the configuration as JSON."""

import sys

import torch

from stream.config import Kafka
from stream.kafka_source import KafkaSource
from stream.loop import Loop
from stream.settings import Settings
from stream.workspace import opened

torch.set_num_threads(1)
SETTINGS = Settings(methods=("pq_signals",), window=172_800_000, wait=18_000_000)

if __name__ == "__main__":
    url, config = sys.argv[1], Kafka.model_validate_json(sys.argv[2])
    with opened(url, SETTINGS) as (store, checkpoints):
        Loop(KafkaSource(config), SETTINGS, store, checkpoints, poll=200, every=400, every_s=1).run()
