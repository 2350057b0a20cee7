"""Downloads the published checkpoint of a model."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from pipeline.errors import WeightsError
from pipeline.models.build import ModelConfig, create_timm
from pipeline.models.checkpoint import Checkpoint, read_checkpoint
from pipeline.models.download import fetch
from pipeline.models.zoo import ZOO, published_config, timm_name

IMAGENET_CLASSES = 1000  # ImageNet-1k
#: huggingface_hub reads the same variable for mirrors of the hub.
HUB_VARIABLE = "HF_ENDPOINT"
HUB = "https://huggingface.co"
HUB_FILE = "model.safetensors"


def pretrained_checkpoint(config: ModelConfig) -> Checkpoint:
    """The authors' release of a T2T-ViT, or the hub file that timm names for its model.

    Raises:
        WeightsError: nothing is published for this model, or the download or its content is wrong.
    """
    entry = ZOO.get(config.name)
    if entry is not None and entry.pretrained_url is not None:
        return read_checkpoint(fetch(entry.pretrained_url).path)
    return _timm_checkpoint(config)


def pretrained_classes(name: str) -> int | None:
    """Outputs of the published head; known without downloading it. None where nothing is published."""
    entry = ZOO.get(name)
    if entry is not None and entry.pretrained_url is not None:
        return IMAGENET_CLASSES
    published = published_config(name)
    return published.num_classes if published is not None and published.has_weights else None


def _timm_checkpoint(config: ModelConfig) -> Checkpoint:
    full_name = timm_name(config.name)
    published = published_config(config.name)
    location = _location(published) if published is not None else None
    if location is None:
        raise WeightsError(f"timm publishes no weights for {full_name}: give a file, or --weights none")
    url, file_name = location
    checkpoint = read_checkpoint(fetch(url, file_name=file_name).path)
    # timm translates older or foreign key names and resizes what depends on the image while it loads: let it.
    overlay = {"state_dict": dict(checkpoint.tensors)}
    try:
        donor = create_timm(full_name, None, config.input_size[1], pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0][:200]
        raise WeightsError(f"{checkpoint.path} from {url} does not fit {full_name}: {first_line}") from None
    return dataclasses.replace(checkpoint, tensors=donor.state_dict())


def _location(published: Any) -> tuple[str, str] | None:
    """URL and name in our cache of the file that a timm PretrainedCfg points to; None if it points to none."""
    if published.hf_hub_id:
        repository, _, revision = published.hf_hub_id.partition("@")
        hub_file = published.hf_hub_filename or HUB_FILE
        endpoint = os.environ.get(HUB_VARIABLE, HUB).rstrip("/")
        return (
            f"{endpoint}/{repository}/resolve/{revision or 'main'}/{hub_file}",
            f"{repository.replace('/', '--')}{Path(hub_file).suffix}",
        )
    if isinstance(published.url, str) and published.url:
        return published.url, Path(published.url).name
    return None
