"""Architectures of other libraries, small and with random weights: what `coverage_libraries.py` converts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Architecture:
    """One model of a library: how to make it, and what its forward takes."""

    library: str
    name: str
    make: Callable[[], nn.Module]
    example: Any


def architectures() -> Iterator[Architecture]:
    """Every architecture of the table, library by library; those of a library that is not installed are left out."""
    for library, of in _LIBRARIES.items():
        try:
            root = import_module(library)
        except ImportError:
            continue
        for name, make, example in of(root):
            yield Architecture(library, name, make, example)


Entries = Iterator[tuple[str, Callable[[], nn.Module], Any]]


def _image(side: int, channels: int = 3, dims: int = 2) -> torch.Tensor:
    return torch.randn(2, channels, *(side,) * dims, generator=torch.Generator().manual_seed(0))


def _transformers(hf: Any) -> Entries:
    def model(name: str, **config: Any) -> Callable[[], nn.Module]:
        made = getattr(hf, f"{name}Config")(**config)
        cls = getattr(hf, f"{name}ForImageClassification", None) or getattr(hf, f"{name}Model")
        return lambda: cls(made)

    small: dict[str, Any] = {
        "ResNet": {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 16, 32, 32], "embedding_size": 16},
        "ConvNext": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 16, 32]},
        "ConvNextV2": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 16, 32]},
        "MobileViT": {"image_size": 64},
        "MobileViTV2": {"image_size": 64},
        "MobileNetV1": {},
        "MobileNetV2": {},
        "RegNet": {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 16, 32, 32], "embedding_size": 16, "groups_width": 8},
        "PoolFormer": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 16, 32]},
        "Bit": {"depths": [1, 1, 1, 1], "hidden_sizes": [128, 128, 128, 128], "embedding_size": 32},
        "Levit": {"image_size": 64},
        "EfficientNet": {"image_size": 64},
        "FocalNet": {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1]},
        "Swin": {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
        "Swinv2": {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
        "SwiftFormer": {},
        "Segformer": {},
        "Pvt": {"image_size": 64},
        "PvtV2": {"image_size": 64},
        "Cvt": {},
        "ViT": {"image_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        "Hiera": {"image_size": [64, 64]},
        "HGNetV2": {},
        "Data2VecVision": {"image_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    }
    for name, config in small.items():
        if hasattr(hf, f"{name}Config"):
            yield name, model(name, **config), {"pixel_values": _image(64)}
    backbone = hf.ResNetConfig(**small["ResNet"], out_features=["stage2", "stage3", "stage4"])
    config = hf.UperNetConfig(backbone_config=backbone, use_auxiliary_head=False, hidden_size=32)
    yield "UperNet", lambda: hf.UperNetForSemanticSegmentation(config), {"pixel_values": _image(64)}
    yield "SuperPoint", lambda: hf.SuperPointForKeypointDetection(hf.SuperPointConfig()), {"pixel_values": _image(64)}


def _ultralytics(yolo: Any) -> Entries:
    from ultralytics.nn import tasks

    kinds = {"cls": "Classification", "seg": "Segmentation", "pose": "Pose", "obb": "OBB"}
    names = [f"{base}{tail}" for base in ("yolov8n", "yolo11n") for tail in ("", "-cls", "-seg", "-pose", "-obb")]
    names += ["yolov3-tiny", "yolov3", "yolov3-spp", "yolov5n", "yolov5n-p6", "yolov6n", "yolov8n-ghost", "yolov8n-p2"]
    names += ["yolov9t", "yolov10n", "yolo12n", "yolov8n-p6", "yolov8-cls-resnet50"]
    for name in names:
        kind = next((kind for tail, kind in kinds.items() if f"-{tail}" in name), "Detection")
        model = getattr(tasks, f"{kind}Model")
        yield name, lambda model=model, name=name: model(f"{name}.yaml", verbose=False), [_image(64)]


def _segmentation_models(smp: Any) -> Entries:
    decoders = ("Unet", "UnetPlusPlus", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "Linknet", "MAnet", "PAN")
    encoders = ("resnet18", "vgg11", "densenet121", "se_resnet50", "xception", "dpn68", "timm-resnest14d")
    encoders += ("inceptionv4", "inceptionresnetv2", "mobilenet_v2", "timm-res2net50_26w_4s", "resnext50_32x4d")
    pairs = [(decoder, "resnet18") for decoder in (*decoders, "UPerNet", "Segformer")]
    pairs += [(decoder, encoder) for decoder in ("Unet", "FPN") for encoder in encoders[1:]]
    for decoder, encoder in pairs:
        make = lambda decoder=decoder, encoder=encoder: getattr(smp, decoder)(encoder, encoder_weights=None)  # noqa: E731
        yield f"{decoder} {encoder}", make, [_image(128)]


def _monai(monai: Any) -> Entries:
    nets = monai.networks.nets
    flat, solid = {"spatial_dims": 2, "in_channels": 1}, {"spatial_dims": 3, "in_channels": 1}
    for name, space in (("2d", flat), ("3d", solid)):
        x = [_image(64 if space is flat else 32, 1, space["spatial_dims"])]
        channels = {**space, "out_channels": 2}
        features = {"features": (8, 8, 16, 16, 32, 8)}
        levels = {"channels": (8, 16, 16), "strides": (2, 2)}
        yield f"BasicUNet {name}", lambda c=channels, f=features: nets.BasicUNet(**c, **f), x
        yield f"BasicUNetPlusPlus {name}", lambda c=channels, f=features: nets.BasicUNetPlusPlus(**c, **f), x
        yield f"UNet {name}", lambda c=channels, k=levels: nets.UNet(**c, **k), x
        yield f"AttentionUnet {name}", lambda c=channels, k=levels: nets.AttentionUnet(**c, **k), x
        yield f"SegResNet {name}", lambda c=channels: nets.SegResNet(**c, init_filters=8), x
        yield f"VNet {name}", lambda c=channels: nets.VNet(**c), x
        dense = {"init_features": 8, "growth_rate": 4, "block_config": (2, 2, 2, 2)}
        yield f"DenseNet {name}", lambda c=channels, d=dense: nets.DenseNet(**c, **d), x
        resnet = {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [8, 8, 16, 16], "num_classes": 2}
        dims = {"spatial_dims": space["spatial_dims"], "n_input_channels": 1}
        yield f"ResNet {name}", lambda d=dims, r=resnet: nets.ResNet(**d, **r), x
        yield f"SEResNet50 {name}", lambda s=space: nets.SEResNet50(**s, num_classes=2), x
        efficient = {**space, "model_name": "efficientnet-b0", "num_classes": 2, "pretrained": False}
        yield f"EfficientNet {name}", lambda e=efficient: nets.EfficientNetBN(**e), x
    yield "AHNet 2d", lambda: nets.AHNet(spatial_dims=2, psp_block_num=3), [_image(64, 1)]
    yield "HighResNet 3d", lambda: nets.HighResNet(spatial_dims=3, in_channels=1, out_channels=2), [_image(32, 1, 3)]


def _facenet(facenet: Any) -> Entries:
    yield "InceptionResnetV1", lambda: facenet.InceptionResnetV1(classify=True, num_classes=9), [_image(96)]
    for name in ("PNet", "RNet", "ONet"):
        mtcnn = import_module("facenet_pytorch.models.mtcnn")
        side = {"PNet": 48, "RNet": 24, "ONet": 48}[name]
        yield name, lambda name=name, m=mtcnn: getattr(m, name)(pretrained=False), [_image(side)]


def _torchxrayvision(xrv: Any) -> Entries:
    yield "DenseNet", lambda: xrv.models.DenseNet(num_classes=9, in_channels=1), [_image(64, 1)]


def _pytorchcv(root: Any) -> Entries:
    provider = import_module("pytorchcv.model_provider")
    names = ("alexnet", "vgg11", "bn_vgg11", "resnet10", "preresnet10", "seresnet10", "densenet121", "peleenet")
    names += ("squeezenet_v1_0", "squeezeresnet_v1_1", "shufflenet_g1_wd4", "shufflenetv2_wd2", "menet108_8x1_g3")
    names += ("inceptionv3", "inceptionv4", "inceptionresnetv2", "xception", "nasnet_4a1056", "dpn68")
    names += ("darknet_ref", "darknet_tiny", "darknet19", "dla34", "hrnet_w18_small_v1", "vovnet27s")
    names += ("selecsls42", "hardnet39ds", "ghostnet", "resnesta18", "sknet50", "diracnet18v2", "bagnet9")
    names += ("bninception", "diaresnet10", "ror3_56_cifar10")
    wide = ("inceptionv3", "inceptionv4", "inceptionresnetv2", "xception")
    for name in names:
        side = 299 if name in wide else 32 if "cifar" in name else 224
        yield name, lambda name=name: provider.get_model(name), [_image(side)]


_LIBRARIES: dict[str, Callable[[Any], Entries]] = {
    "transformers": _transformers,
    "ultralytics": _ultralytics,
    "segmentation_models_pytorch": _segmentation_models,
    "monai": _monai,
    "facenet_pytorch": _facenet,
    "torchxrayvision": _torchxrayvision,
    "pytorchcv": _pytorchcv,
}
