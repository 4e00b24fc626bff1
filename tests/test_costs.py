"""What backbones cost: hand-counted layers, the specification's columns, the command."""

import json
from math import prod

import pytest
from command_line import CommandLine
from shared_data import shared_folder
from torch import nn

from tnet.costs import cost, macs, own_backbones
from tnet.errors import UsageError
from tnet.scripts.bench_backbones import bench_backbones

# Measured on the official code (and, for DAS, added up from the paper's equations): parameters,
# and multiply-adds of convolutions and linear layers at 224 x 224, in units of 1e9.
MEASURED = {
    "van_b0": (4_105_800, 0.864),
    "van_b1": (13_861_800, 2.495),
    "van_b2": (26_578_472, 4.993),
    "van_b3": (44_765_608, 8.925),
    "van_b4": (60_283_176, 12.144),
    "van_b5": (89_967_688, 17.129),
    "van_b6": (199_829_416, 38.710),
    "aff_resnet50": (30_373_192, None),
    "iaff_resnet50": (35_170_120, None),
    "aff_resnext50_32x4d": (29_953_704, None),
    "iaff_resnext50_32x4d": (34_750_632, None),
    "aff_resnet32_cifar": (7_897_156, None),
    "aff_resnext38_32x4d_cifar": (7_770_148, None),
    "aff_resnext47_32x4d_cifar": (9_605_828, None),
    "aff_resnet18_port": (12_400_232, 1.866),
    "iaff_resnet18_port": (13_110_952, 1.918),
    "aff_resnet34_port": (23_083_464, 3.767),
    "iaff_resnet34_port": (24_369_256, 3.871),
    "aff_resnet50_port": (45_789_864, 5.743),
    "iaff_resnet50_port": (66_022_696, 7.398),
    "aff_resnext50_32x4d_port": (45_261_736, 5.885),
    "iaff_resnext50_32x4d_port": (65_494_568, 7.539),
    "rfaconv_resnet18": (11_850_408, 1.874),
    "rfaconv_resnet34": (22_160_872, 3.780),
    "rfcbamconv_resnet18": (11_884_408, 1.869),
    "rfcbamconv_resnet34": (22_237_704, 3.771),
    "rfcaconv_resnet18": (11_887_936, 1.871),
    "rfcaconv_resnet34": (22_242_456, 3.774),
    "bagnet77": (20_546_664, None),  # its MACs were profiled otherwise, see its own tests
}


@pytest.mark.parametrize("name", MEASURED)
def test_ours_cost_what_the_originals_do(name: str) -> None:
    parameters, giga = MEASURED[name]
    ours = cost(name)
    assert ours.parameters == parameters
    if giga is not None:
        assert ours.macs[224, 224] / 1e9 == pytest.approx(giga, abs=5.01e-4)


def test_every_backbone_of_ours_has_a_count() -> None:
    # The others have no original: RFAConv in a ResNet-50, iAFF for CIFAR, and DAS, see below.
    rest = {name for name in own_backbones() if name not in MEASURED}
    assert {name.split("_")[0] for name in rest} <= {
        "das",
        "iaff",
        "rfaconv",
        "rfcaconv",
        "rfcbamconv",
    }
    assert set(MEASURED) <= set(own_backbones())


@pytest.mark.parametrize("depth", [18, 50, 101])
def test_das_with_the_kernels_that_others_do_not_see(depth: int) -> None:
    counts = json.loads(shared_folder("golden", "soft", "das", "das_counts.json").read_text())
    gates = counts[f"resnet{depth}"]["gates"]
    base, ours = cost(f"resnet{depth}"), cost(f"das_resnet{depth}")
    assert ours.parameters == base.parameters + sum(sum(g["params"].values()) for g in gates)
    added = ours.macs[224, 224] - base.macs[224, 224]
    assert added == sum(sum(gate["macs"].values()) for gate in gates)


def test_layers_counted_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    places = 10 * 6
    wanted = places * prod((3, 8, 9)) + places * prod((8, 9)) + 8 * 5
    assert macs(network, (3, 20, 12)) == wanted
    assert macs(network.to("meta"), (3, 20, 12)) == wanted


def test_bands_classes_and_sizes() -> None:
    plain, other = cost("resnet18"), cost("resnet18", [(64, 96)], bands=4, classes=62)
    assert plain.parameters == 11_689_512
    assert plain.macs == {(224, 224): 1_814_073_344}
    assert other.parameters == 11_689_512 + 64 * 49 - 513 * (1000 - 62)
    assert list(other.macs) == [(64, 96)]
    assert cost("resnet18", [(224, 224)], classes=0).macs[224, 224] == 1_814_073_344 - 512_000


def test_a_network_for_other_sizes_is_counted_at_its_own() -> None:
    assert list(cost("aff_resnet32_cifar").macs) == [(32, 32)]


def test_what_cannot_be_counted_is_told() -> None:
    with pytest.raises(UsageError, match="no model named 'van_b9'"):
        cost("van_b9")
    with pytest.raises(UsageError, match="'test_vit' cannot be counted for a view of 50 x 40"):
        cost("test_vit", [(40, 50)])


def test_the_command_as_json(tnet: CommandLine) -> None:
    done = tnet("models", "resnet18", "--costs", "--size", "224", "--size", "64", "--json")
    assert (done.code, done.err) == (0, "")
    (entry,) = json.loads(done.out)["costs"]
    assert (entry["name"], entry["parameters"]) == ("resnet18", 11_689_512)
    assert list(entry["macs"]) == ["224x224", "64x64"]
    assert entry["macs"]["224x224"] == 1_814_073_344


def test_the_command_for_people(tnet: CommandLine) -> None:
    lines = tnet("models", "van_b[01]", "--costs").out.splitlines()
    assert lines[0].split() == ["backbone", "parameters", "view", "multiply-adds"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["van_b0", "4,105,800"],
        ["van_b1", "13,861,800"],
    ]
    assert lines[1].split()[2:] == ["224x224", "0.864", "G"]


def test_ours_are_listed_and_json_has_their_costs(tnet: CommandLine) -> None:
    assert "costs" not in json.loads(tnet("models", "--json", "--no-costs").out)
    costs = json.loads(tnet("models", "van_b[01]", "--json").out)["costs"]
    assert [cost["name"] for cost in costs] == ["van_b0", "van_b1"]
    assert json.loads(tnet("models", "resnet18", "--json").out)["costs"] == []
    assert json.loads(tnet("models", "van_b0", "--json").out)["own"] == own_backbones()
    page = tnet("models").out
    assert all(name in page for name in own_backbones())


def test_a_size_without_costs_is_told(tnet: CommandLine) -> None:
    done = tnet("models", "van_b0", "--size", "64")
    assert (done.code, done.err) == (2, "tnet: --size is the view's for --costs; give both\n")


def test_the_benchmark_measures_both_forms_of_rfaconv(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tnet.costs.own_backbones", lambda: ["van_b0", "rfaconv_resnet18"])
    bench_backbones(["rfa*"], batch=1, size=32, repeats=1, device="cpu", as_json=True)
    read = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in read["rows"]] == ["rfaconv_resnet18", "rfaconv_resnet18 literal"]
    for row in read["rows"]:
        assert row["ratio"] == pytest.approx(row["baseline_seconds"] / row["seconds"])


def test_list_is_what_models_does_unnamed(tnet: CommandLine) -> None:
    assert tnet("models", "list", "van*").out == tnet("models", "van*").out
    assert "import" in tnet("models", "--help").out
