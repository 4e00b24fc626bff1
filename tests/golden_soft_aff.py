"""The golden numbers of AFF: the authors' MXNet code, and their port with its dead branch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import timm
import torch
from golden_soft import (
    EXACT,
    ROUNDED,
    assert_near,
    check_module,
    load,
    names,
    read,
    read_json,
    recipe_input,
    recipe_state,
)
from torch import Tensor, nn

from tnet.backbones import aff, aff_port
from tnet.backbones.fused_resnet import AFFResNet, FusedBlock, Layout
from tnet.backbones.fusion import AFF, IAFF, MSCAM, FusionName

Convert = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
CASES: dict[str, Callable[[Path], None]] = {}


def same(key: str) -> str:
    return key


def port_block(key: str) -> str:
    """Return our name of a weight of the port's blocks, whose shortcut begins with its conv."""
    return aff.rename_block(key, conv=0)


def module(
    tag: str, make: Callable[[], nn.Module], rename: Callable[[str], str], file: str
) -> None:
    def check(folder: Path) -> None:
        check_module(folder / file, tag, make(), rename)

    CASES[tag] = check


MXNET = "aff_mxnet_modules.safetensors"
module("ASKCFuse_r4", lambda: AFF(16, 4), aff.rename_fusion, MXNET)
module("iAFF_r4", lambda: IAFF(16, 4), aff.rename_fusion, MXNET)
for tag, block in {
    "AFFBottleneck_iAFF_s2": partial(FusedBlock, aff.RESNET50, 24, 8, 2, "iaff"),
    "AFFBottleneck_AFF": partial(FusedBlock, aff.RESNET50, 32, 8, 1, "aff"),
    "AFFResNeXtBlock_AFF_s2": partial(FusedBlock, aff.RESNEXT50, 16, 16, 2, "aff"),
    "AFFResBlockV2_AFF_s2": partial(FusedBlock, aff.CIFAR_RESNET32, 8, 16, 2, "aff"),
}.items():
    module(tag, block, aff.rename_block, MXNET)

PORT = "aff_pytorch_modules.safetensors"


def alone(key: str) -> str:
    """Return our name of a weight of a bare MS-CAM."""
    return aff.rename_fusion(key).removeprefix("attention.")


module("ms_cam", lambda: MSCAM(16, 4), alone, PORT)
module("aff", lambda: AFF(16, 4), aff.rename_fusion, PORT)
module(
    "basicblock_aff_s2",
    lambda: FusedBlock(aff_port.RESNET18, 8, 16, 2, "aff"),
    port_block,
    PORT,
)


def dead_branch(
    tag: str, make: Callable[[], nn.Module], rename: Callable[[str], str], folder: Path
) -> None:
    """Hold a part with the port's iAFF to its numbers, the first global context standing in twice.

    Gradients of the two copies add up to that of the port's one.
    """
    golden = read(folder / PORT, f"{tag}/")
    state = {k.removeprefix("state/"): v for k, v in golden.items() if k.startswith("state/")}
    ours = make()
    load(ours, aff_port.revived(state), rename)
    inputs = [golden[k].double().requires_grad_() for k in sorted(golden) if k.startswith("in/")]
    out = ours.eval()(*inputs)
    assert_near(out, golden["eval/out_f64/0"], EXACT, "output")
    (out * golden["eval/cotangent/0"]).sum().backward()
    for number, tensor in enumerate(inputs):
        assert tensor.grad is not None
        assert_near(tensor.grad, golden[f"eval/grad_in/{number}"], ROUNDED, f"input {number}")
    parameters = dict(ours.named_parameters())
    for key in state:
        if f"eval/grad_param/{key}" not in golden:
            continue
        gradient = parameters[rename(key)].grad
        assert gradient is not None
        if "global_att." in key:
            twin = parameters[rename(key.replace("global_att.", "global_att2."))].grad
            assert twin is not None
            gradient = gradient + twin
        assert_near(gradient, golden[f"eval/grad_param/{key}"], ROUNDED, f"gradient of {key}")
    with torch.no_grad():
        assert_near(ours.train()(*inputs), golden["train/out/0"], ROUNDED, "training")


CASES["iaff_as_published_port"] = partial(
    dead_branch, "iaff_as_published_port", lambda: IAFF(16, 4), aff.rename_fusion
)
CASES["bottleneck_iaff"] = partial(
    dead_branch,
    "bottleneck_iaff",
    lambda: FusedBlock(aff_port.RESNET50, 32, 8, 1, "iaff"),
    port_block,
)


def small(tag: str, layout: Layout, fuse: FusionName, folder: Path) -> None:
    """Hold a narrow CIFAR network with its stored weights to its logits."""
    golden = read(folder / "aff_mxnet_small_backbones.safetensors", f"{tag}/")
    stated = read_json(folder / "aff_mxnet.json")["modules"][tag]
    state = {k.removeprefix("state/"): v for k, v in golden.items() if k.startswith("state/")}
    ours = AFFResNet(layout, fuse, num_classes=10)
    assert sum(p.numel() for p in ours.parameters()) == stated["trainable_params"]
    load(ours, aff.from_official(state), same)
    x = golden["in/0"].double()
    with torch.no_grad():
        assert_near(ours.eval()(x), golden["eval/out_f64/0"], EXACT, "logits")
        assert_near(ours.train()(x), golden["train/out/0"], 10 * ROUNDED, "logits in training")


NARROW = replace(aff.CIFAR_RESNET32, widths=(8, 16, 32), stem_width=8)
ONE_EACH = replace(NARROW, depths=(1, 1, 1))
SMALLS: dict[str, tuple[Layout, FusionName]] = {
    "CIFARAFFResNet_AFF": (ONE_EACH, "aff"),
    "CIFARAFFResNet_iAFF": (replace(NARROW, depths=(2, 2, 2)), "iaff"),
    "CIFARAFFResNet_AFF_start3": (replace(ONE_EACH, start=3), "aff"),
}
CASES |= {tag: partial(small, tag, layout, fuse) for tag, (layout, fuse) in SMALLS.items()}


def same_layout(
    make: Callable[[], nn.Module], shapes: Mapping[str, list[int]], convert: Convert, count: int
) -> None:
    """Compare keys, shapes and the number of parameters with the authors'."""
    with torch.device("meta"):
        network = make()
    converted = convert({key: torch.zeros(()).expand(shape) for key, shape in shapes.items()})
    ours = {k: v.shape for k, v in network.state_dict().items()}
    theirs = {k: v.shape for k, v in converted.items()}
    # MXNet counts no batches.
    uncounted = {k for k in ours.keys() - theirs.keys() if k.endswith("num_batches_tracked")}
    assert theirs == {k: v for k, v in ours.items() if k not in uncounted}
    assert sum(p.numel() for p in network.parameters()) == count


def loaded(
    make: Callable[[], nn.Module],
    shapes: Mapping[str, list[int]],
    golden: dict[str, Tensor],
    convert: Convert,
) -> nn.Module:
    """Return a network with the recipe's weights and the stored statistics of its norms."""
    state = recipe_state(shapes)
    measured = {k.removeprefix("bn/"): v for k, v in golden.items() if k.startswith("bn/")}
    assert measured.keys() <= state.keys()
    network = make()
    load(network, convert(state | measured), same)
    return network.eval()


def imagenet(tag: str, make: Callable[[], nn.Module], folder: Path) -> None:
    """Hold an ImageNet network of MXNet's to its keys and count, and to its logits if stored."""
    stated = read_json(folder / "aff_mxnet.json")["imagenet_full"][tag]
    same_layout(make, stated["keys"], aff.from_official, stated["trainable_params"])
    file = folder / "aff_mxnet_imagenet_recipe_outputs.safetensors"
    golden = read(file, f"{tag}/")
    if "out_f64/64" not in golden:
        return
    network = loaded(make, stated["keys"], golden, aff.from_official)
    x = read(file)["in/64"]
    assert torch.equal(x, recipe_input("affmx_any:64", (2, 3, 64, 64)))
    with torch.inference_mode():
        assert_near(network(x.double()), golden["out_f64/64"], EXACT, "logits")


for trunk, layout in {"resnet50": aff.RESNET50, "resnext50_32x4d": aff.RESNEXT50}.items():
    CASES[f"add_{trunk}"] = partial(imagenet, f"add_{trunk}", partial(AFFResNet, layout, "add"))
    for fuse in ("aff", "iaff"):
        name = f"{fuse}_{trunk}"
        CASES[name] = partial(imagenet, name, partial(timm.create_model, name))


def port(tag: str, make: Callable[[], nn.Module], folder: Path) -> None:
    """Hold a network of the port to its keys and count, and to its logits if stored."""
    stated = read_json(folder / "aff_pytorch_state_dict_keys.json")[tag.removesuffix(SMALL)]
    shapes = {key: shape for key, (shape, _) in stated["keys"].items()}
    file = folder / "aff_pytorch_resnets_recipe_outputs.safetensors"
    x = read(file)["in/aff_any_64"]
    if tag.endswith(SMALL):
        shapes |= {"conv1.weight": [64, 3, 3, 3], "fc.weight": [10, 512], "fc.bias": [10]}
        x = read(file)["in/aff_small_32"]
    else:
        same_layout(make, shapes, aff_port.from_official, stated["params"])
    if f"{tag}/out/logits_f64" not in names(file):
        return
    golden = read(file, f"{tag}/")
    network = loaded(make, shapes, golden, aff_port.from_official)
    with torch.inference_mode():
        assert_near(network(x.double()), golden["out/logits_f64"], EXACT, "logits")


SMALL = "_small_input"


def small_input() -> nn.Module:
    """Return the port's ResNet-18 with a 3x3 stem without stride; its pooling stays."""
    network = AFFResNet(aff_port.RESNET18, "aff", num_classes=10)
    network.stem.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    return network


CASES["resnet18_AFF_small_input"] = partial(port, "resnet18_AFF_small_input", small_input)
for name, (layout, fused) in aff_port.VARIANTS.items():
    trunk = name.removesuffix("_port").partition("_")[2]
    official = f"{trunk}_{'iAFF' if fused == 'iaff' else 'AFF'}"
    CASES[official] = partial(port, official, partial(timm.create_model, name))
    if fused == "aff":
        plain = partial(AFFResNet, layout, "add")
        CASES[f"{trunk}_DAF"] = partial(port, f"{trunk}_DAF", plain)
