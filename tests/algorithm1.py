"""The trainer's oracle: a literal Algorithm 1 of arXiv 2602.21064 with two separate networks and real copies.

Written from the paper's text alone; it shares no code with the package. `mapping` lists (base name, motivated name);
where the motivated tensor is larger, the base is its leading slice, or the rows that `rows` names for a tensor (the
rest of its dimensions leading).
"""

import copy
import math

import torch


def resnet_mapping(base, motivated):
    """The paper's ResNet rule by hand: first l - 1 blocks to the first l - 1, the last to the last."""
    def blocks(network, stage):
        return 1 + max(int(name.split(".")[1]) for name in network.state_dict() if name.startswith(f"layer{stage}."))

    mapping = []
    for name in base.state_dict():
        stage, _, rest = name.partition(".")
        if not stage.startswith("layer"):
            mapping.append((name, name))
            continue
        block, rest = rest.split(".", 1)
        last = blocks(base, stage[-1]) - 1
        place = blocks(motivated, stage[-1]) - 1 if int(block) == last and last > 0 else int(block)
        mapping.append((name, f"{stage}.{place}.{rest}"))
    return mapping


# State that does not start at zero.
INITIAL = {("RMSpropTF", "square_avg"): 1.0}


class Algorithm1:
    """State: motivated = False, prev_loss = inf, run = 0."""

    def __init__(self, base, motivated, mapping, optimizer, loss, k, rows=()):
        self.rows = dict(rows)
        self.networks = copy.deepcopy(base), copy.deepcopy(motivated)
        self.mapping = mapping
        self.loss = loss
        self.k = k
        self.optimizers = [optimizer(list(network.parameters())) for network in self.networks]
        self.motivated = False
        self.prev_loss = math.inf
        self.run = 0
        for sgd in self.optimizers:
            if isinstance(sgd, torch.optim.SGD) and sgd.defaults["fused"]:
                # torch's fused SGD cannot step over a mix of new and copied momentum buffers.
                for p in sgd.param_groups[0]["params"]:
                    sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
        self.copy_networks(to_motivated=True)

    def train_batch(self, images, targets):
        """Steps 1 to 4; returns (loss, whether the motivated network trained)."""
        trained = self.motivated
        network, optimizer = self.networks[trained], self.optimizers[trained]
        network.train()
        optimizer.zero_grad()
        loss = self.forward(network, images, targets)
        loss.backward()
        optimizer.step()
        loss = loss.item()
        self.run = self.run + 1 if loss < self.prev_loss else 0
        if self.run >= self.k and not self.motivated:
            self.switch(True)
        elif self.run < self.k and self.motivated:
            self.switch(False)
        self.prev_loss = loss
        return loss, trained

    def forward(self, network, images, targets):
        return self.loss(network(images), targets)

    def end_epoch(self):
        if self.motivated:
            self.switch(False)

    def switch(self, motivated):
        self.motivated = motivated
        self.copy_networks(to_motivated=motivated)
        self.copy_optimizer_state(to_motivated=motivated)

    def copy_networks(self, to_motivated):
        base, motivated = (network.state_dict() for network in self.networks)
        for base_name, motivated_name in self.mapping:
            small, large = base[base_name], motivated[motivated_name]
            index = self.index(base_name, small.shape)
            if to_motivated:
                large[index] = small
            else:
                small.copy_(large[index])

    def index(self, name, shape):
        """Where a base tensor lies in its motivated one: a list of indices a dimension, broadcast over each other."""
        dims = [torch.arange(n) for n in shape]
        if name in self.rows:
            dims[0] = torch.as_tensor(self.rows[name])
        return tuple(dim.view([-1 if n == m else 1 for m in range(len(dims))]) for n, dim in enumerate(dims))

    def copy_optimizer_state(self, to_motivated):
        giver, taker = self.optimizers[not to_motivated], self.optimizers[to_motivated]
        if "step" in giver.param_groups[0]:
            # One group each: only for pairs whose every motivated tensor is mapped.
            taker.param_groups[0]["step"] = copy.deepcopy(giver.param_groups[0]["step"])
        base, motivated = (dict(network.named_parameters()) for network in self.networks)
        for base_name, motivated_name in self.mapping:
            if base_name not in base:
                continue
            small, large = base[base_name], motivated[motivated_name]
            source, taker = (small, large) if to_motivated else (large, small)
            given = self.optimizers[not to_motivated].state[source]
            taken = self.optimizers[to_motivated].state[taker]
            for key, value in given.items():
                if not torch.is_tensor(value) or value.dim() == 0:
                    taken[key] = copy.deepcopy(value)
                    continue
                if taken.get(key) is None:
                    start = INITIAL.get((type(self.optimizers[0]).__name__, key), 0.0)
                    taken[key] = torch.full_like(taker, start)
                index = self.index(base_name, small.shape)
                if to_motivated:
                    taken[key][index] = value
                else:
                    taken[key].copy_(value[index])
