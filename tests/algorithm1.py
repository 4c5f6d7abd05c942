"""The trainer's oracle: a literal Algorithm 1 of arXiv 2602.21064 with two separate networks and real copies.

Written from the paper's text alone; it shares no code with the package. `mapping` lists (base name, motivated name);
where the motivated tensor is larger, the base is its leading slice.
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


class Algorithm1:
    """State: motivated = False, prev_loss = inf, run = 0."""

    def __init__(self, base, motivated, mapping, optimizer, loss, k):
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
        loss = self.loss(network(images), targets)
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
            view = large[tuple(slice(0, n) for n in small.shape)]
            if to_motivated:
                view.copy_(small)
            else:
                small.copy_(view)

    def copy_optimizer_state(self, to_motivated):
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
                    taken[key] = torch.zeros_like(taker)
                index = tuple(slice(0, n) for n in small.shape)
                if to_motivated:
                    taken[key][index] = value
                else:
                    taken[key].copy_(value[index])
