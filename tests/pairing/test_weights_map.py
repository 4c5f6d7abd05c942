"""The weights map as a value: saved, read, checked against two networks."""

import dataclasses
import json

import pytest
from networks import vits

from motivation.pairing.map_weights import map_weights
from motivation.pairing.walk import NestingError
from motivation.pairing.weights_map import WeightsMap


def test_map_is_saved_read_and_overridden():
    base, motivated = vits()
    weights_map = map_weights(base, motivated)
    assert WeightsMap.from_json(weights_map.to_json()) == weights_map
    weights_map.check(base, motivated)
    values = json.loads(weights_map.to_json())
    values["entries"][0]["dims"][2] = [8, 17]
    with pytest.raises(NestingError, match=r"^cls_token: shape \(1, 1, 17\) in the map, \(1, 1, 16\) in the motivated"):
        WeightsMap.from_json(json.dumps(values)).check(base, motivated)
    with pytest.raises(NestingError, match=r"^cls_token: the map leaves out this parameter"):
        dataclasses.replace(weights_map, entries=weights_map.entries[1:]).check(base, motivated)
    with pytest.raises(NestingError, match=r"^cls_token: the map names it, but"):
        dataclasses.replace(weights_map, entries=weights_map.entries[:1] * 2).check(base, motivated)
    for changes, message in (
            ({"differential_blocks": ("blocks",), "nearest_blocks": ("",)},
             r"^blocks: the map calls this block differential, but maps blocks\.0"),
            ({"differential_blocks": ("",), "nearest_blocks": ("",)}, "^the network itself: the map calls this block"),
            ({"differential_blocks": ("blocks.7",)}, r"^blocks\.7: the map names it as a block, but"),
            ({"nearest_blocks": ()}, "^the map has 1 differential_blocks and 0 nearest_blocks"),
            ({"nearest_blocks": ("blocks.7",)}, r"^blocks\.7: the map names it as a block, but")):
        with pytest.raises(NestingError, match=message):
            dataclasses.replace(weights_map, **changes).check(base, motivated)
    for text in ('{"entries": [{}]}', '{"entries": [{"base": "a", "motivated": "a", "dims": [[3, 2]]}]}', "[]", "x"):
        with pytest.raises(ValueError, match=r"not a weights map|is no dimension|Expecting value"):
            WeightsMap.from_json(text)
