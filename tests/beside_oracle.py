"""A trainer beside the literal Algorithm 1, compared after every step."""

import torch
import torch.nn.functional as F
from algorithm1 import Algorithm1
from conftest import batches
from torch.optim import SGD, AdamW, RMSprop

from motivation import Pair, Trainer
from motivation.monitors import Consecutive
from motivation.schedules import Schedule, Threshold

STEPS_PER_EPOCH = 37


OPTIMIZERS = {
    "momentum": lambda **how: lambda params: SGD(params, lr=0.05, momentum=0.9, weight_decay=5e-4, **how),
    "nesterov": lambda **how: lambda params: SGD(params, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4,
                                                 **how),
    "adamw": lambda **how: lambda params: AdamW(params, lr=3e-3, weight_decay=0.05, **how),
    "rmsprop": lambda **how: lambda params: RMSprop(params, lr=1e-3, momentum=0.9, weight_decay=1e-4, **how),
}


LOOP, FOREACH, FUSED = {"foreach": False}, {"foreach": True}, {"fused": True}


class Script(Schedule):
    """Motivated at the steps it is told."""

    def __init__(self, *motivated: int):
        self.motivated = set(motivated)
        self.step = 0

    def decide(self, score):
        self.step += 1
        return "motivated" if self.step in self.motivated else "base"


def assert_same_state(network, optimizer, other, other_optimizer, names=None):
    """Parameters, buffers and optimizer state bit-identical, for all or for some names."""
    theirs = other.state_dict()
    for name, tensor in network.state_dict().items():
        if names is None or name in names:
            assert torch.equal(tensor, theirs[name]), name
    their_parameters = dict(other.named_parameters())
    for name, parameter in network.named_parameters():
        if names is not None and name not in names:
            continue
        state, their_state = optimizer.state[parameter], other_optimizer.state[their_parameters[name]]
        for key in state.keys() | their_state.keys():
            value, their_value = state.get(key), their_state.get(key)
            if their_value is None or value is None:
                # Momentum made as zeros before the first step, against torch's lazy creation.
                value = value if their_value is None else their_value
                assert not value.any(), (name, key)
            else:
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(their_value)), (name, key)


def train_beside_oracle(base, motivated, mapping, optimizer, k, steps, weights_map="structural", rows=(), engine=None,
                        algorithm=Algorithm1):
    """Train both, comparing after every step as invariant 1 says; returns the phases."""
    pair = Pair(base, motivated, init="native", weights_map=weights_map)
    oracle = algorithm(base, motivated, mapping, optimizer, F.cross_entropy, k, rows)
    trainer = Trainer(pair, optimizer, F.cross_entropy, Consecutive(), Threshold(k, epoch_edge="contract"),
                      engine=engine)
    mapped = {name for _, name in mapping}
    differential = {name for name in motivated.state_dict() if name not in mapped}
    assert differential or pair.weights_map.sliced
    phases = []

    def compare(*which):
        for number in which:
            network = (pair.base, pair.motivated)[number]
            assert_same_state(network, trainer.optimizers[number], oracle.networks[number], oracle.optimizers[number])

    for step, (images, targets) in enumerate(batches(steps)):
        result = trainer.step(images, targets)
        loss, trained = oracle.train_batch(images, targets)
        assert (result.loss, result.phase) == (loss, "motivated" if trained else "base")
        assert trainer.phase == ("motivated" if oracle.motivated else "base")
        phases.append(result.phase)
        switched = trainer.phase != result.phase
        compare(*((0, 1) if switched else (trained,)))
        assert_same_state(pair.motivated, trainer.optimizers[1], oracle.networks[1], oracle.optimizers[1], differential)
        if trainer.phase == "base":
            compare(0)
        if (step + 1) % STEPS_PER_EPOCH == 0:
            trainer.end_epoch()
            oracle.end_epoch()
            compare(0)
    return phases
