"""`--weights pretrained` through the real downloader, from an HTTP server on the loopback interface."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from alive import alive_images, make_alive
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.errors import WeightsError
from pipeline.models import download
from pipeline.models.build import build, create_timm
from pipeline.models.download import pretrained_classes
from pipeline.models.t2t_vit import PUBLISHED_QK_SCALE
from pipeline.models.weights import load_model, peek
from pipeline.models.zoo import ZOO, timm_name

ROOT = Path(__file__).resolve().parents[3]
RELEASE = "71.7_T2T_ViT_7.pth.tar"
HUB_PATH = "/timm/mobilenetv2_100.ra_in1k/resolve/main/model.safetensors"


class Server(ThreadingHTTPServer):
    """Serves the bytes of `files` by path and keeps the paths that were asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Keep the test output clean."""


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EDGE_T2T_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The hub and the release page of T2T-ViT-7 in one; nothing of these tests leaves the machine."""
    with Server() as running:
        monkeypatch.setenv("HF_ENDPOINT", f"{running.url}/")
        entry = dataclasses.replace(ZOO["t2t_vit_7"], pretrained_url=f"{running.url}/main/{RELEASE}")
        monkeypatch.setitem(ZOO, "t2t_vit_7", entry)
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(alive_images(2))


def release_file(model: nn.Module, **beside: object) -> bytes:
    """As the authors publish it: averaged weights under DistributedDataParallel names."""
    buffer = io.BytesIO()
    averaged = {f"module.{k}": v for k, v in model.state_dict().items()}
    torch.save({"epoch": 309, "state_dict_ema": averaged, **beside}, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def published_t2t() -> nn.Module:
    return make_alive(build("t2t_vit_7", 1000, qk_scale=PUBLISHED_QK_SCALE)[0], seed=7)


@pytest.fixture(scope="module")
def published_mobilenet() -> nn.Module:
    """With batch norm statistics that are not those of a fresh model, so that losing them shows."""
    generator = torch.Generator().manual_seed(0)
    model = create_timm(timm_name("mobilenet_v2"), None, None).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model


def test_t2t_release_file_gives_the_logits_of_the_model_that_was_saved(
    server: Server, cache: Path, published_t2t: nn.Module
) -> None:
    server.files[f"/main/{RELEASE}"] = release_file(published_t2t)
    loaded = load_model("t2t_vit_7", "pretrained")
    assert torch.equal(logits(loaded.model), logits(published_t2t))
    assert loaded.config.num_classes == 1000
    assert loaded.config.qk_scale == loaded.record.qk_scale == PUBLISHED_QK_SCALE
    assert (loaded.record.source, loaded.record.container) == ("pretrained", "state_dict_ema")
    assert loaded.record.sha256 == download.sha256_of(cache / RELEASE)
    assert (cache / RELEASE).read_bytes() == server.files[f"/main/{RELEASE}"]

    again = load_model("t2t_vit_7", "pretrained", 3)
    assert server.seen == [f"/main/{RELEASE}"]  # the second model came from the cache
    assert again.record.head_replaced
    assert again.model.state_dict()["head.weight"].shape == (3, 256)
    assert torch.equal(again.model.state_dict()["norm.weight"], published_t2t.state_dict()["norm.weight"])


def test_mobilenet_from_the_hub_gives_the_logits_of_the_model_that_was_saved(
    server: Server, cache: Path, published_mobilenet: nn.Module
) -> None:
    server.files[HUB_PATH] = save(published_mobilenet.state_dict())
    loaded = load_model("mobilenet_v2", "pretrained")
    assert torch.equal(logits(loaded.model), logits(published_mobilenet))
    assert loaded.config.num_classes == 1000
    assert loaded.record.qk_scale is None
    cached = cache / "timm--mobilenetv2_100.ra_in1k.safetensors"
    assert loaded.record.sha256 == download.sha256_of(cached)
    assert server.seen == [HUB_PATH]  # timm itself asked the hub for nothing

    again = load_model("mobilenet_v2", "pretrained", 3)
    assert server.seen == [HUB_PATH]
    assert again.record.head_replaced
    assert again.model.state_dict()["classifier.weight"].shape[0] == 3
    key = "blocks.0.0.bn1.running_var"
    assert torch.equal(again.model.state_dict()[key], published_mobilenet.state_dict()[key])


def test_release_file_of_another_model_is_refused(server: Server, published_t2t: nn.Module) -> None:
    shorter = {k: v for k, v in published_t2t.state_dict().items() if not k.startswith("blocks.6.")}
    buffer = io.BytesIO()
    torch.save({"state_dict": shorter}, buffer)
    server.files[f"/main/{RELEASE}"] = buffer.getvalue()
    with pytest.raises(WeightsError, match=rf"{RELEASE} \(state_dict\) does not fit t2t_vit_7.*11 missing \(blocks\.6"):
        load_model("t2t_vit_7", "pretrained")


def test_hub_file_of_another_model_is_refused(server: Server) -> None:
    server.files[HUB_PATH] = save({"fc.weight": torch.zeros(10, 4)})
    with pytest.raises(WeightsError, match=r"does not fit mobilenetv2_100\.ra_in1k"):
        load_model("mobilenet_v2", "pretrained")


@pytest.mark.parametrize("name", ["t2t_vit_7", "mobilenet_v2"])
def test_web_page_instead_of_a_file_is_refused(name: str, server: Server) -> None:
    page = b"<html>please log in</html>"
    server.files |= {f"/main/{RELEASE}": page, HUB_PATH: page}
    with pytest.raises(WeightsError, match=r"not a (file of weights|readable safetensors file)"):
        load_model(name, "pretrained")


@pytest.mark.parametrize("name", ["t2t_vit_7", "mobilenet_v2"])
def test_file_that_the_server_does_not_have_is_told_by_url(name: str, server: Server, cache: Path) -> None:
    with pytest.raises(WeightsError, match=rf"{server.url}/.* answered 404 .* give its path to --weights"):
        load_model(name, "pretrained")
    assert len(server.seen) == 1
    assert not [path for path in cache.iterdir() if not path.name.endswith(".part")]


def test_peek_downloads_once_so_that_no_network_stops_before_the_images(server: Server) -> None:
    server.files[f"/main/{RELEASE}"] = release_file(build("t2t_vit_7", 1000)[0])
    for _ in range(2):
        info = peek("pretrained", "t2t_vit_7")
        assert (info.qk_scale, info.num_classes, info.classes) == (PUBLISHED_QK_SCALE, 1000, None)
    assert server.seen == [f"/main/{RELEASE}"]
    with pytest.raises(WeightsError, match=r"answered 404 .* give its path to --weights"):
        peek("pretrained", "mobilenet_v2")


def test_release_that_says_other_than_its_authors_stops(server: Server) -> None:
    args = argparse.Namespace(crop_pct=1.0, mean=None, interpolation="bicubic", img_size=224)
    server.files[f"/main/{RELEASE}"] = release_file(build("t2t_vit_7", 1000)[0], args=args)
    with pytest.raises(WeightsError, match=r"crop_pct is 0\.9 \(the authors' _cfg of T2T-ViT\) and 1 \(args in 71\.7"):
        peek("pretrained", "t2t_vit_7")


def hub_repository(server: Server, place: str, model: nn.Module, **config: object) -> None:
    published = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop_pct": 1.0, "input_size": [3, 64, 64]}
    text = {"architecture": "resnet10t", "num_classes": 2, "pretrained_cfg": published, **config}
    server.files[f"{place}/config.json"] = json.dumps(text).encode()
    server.files[f"{place}/model.safetensors"] = save(model.state_dict())


def test_a_repository_gives_weights_classes_and_preprocessing(server: Server) -> None:
    model, source = build("resnet10t", 2)[0], "hf-hub:me/pets@v1"
    hub_repository(server, "/me/pets/resolve/v1", model, label_names=["cat", "dog"])
    loaded = load_model("resnet10t", source, ("cat", "dog"))
    config = loaded.config
    assert (config.mean, config.std, config.crop_pct) == ((0.5,) * 3, (0.5,) * 3, 1.0)
    assert (config.input_size, config.interpolation) == ((3, 64, 64), "bicubic")
    assert loaded.origins["mean"] == f"pretrained_cfg of {source}"
    assert (loaded.classes, loaded.record.head_replaced, loaded.record.source) == (("cat", "dog"), False, source)
    assert torch.equal(loaded.model.state_dict()["fc.weight"], model.state_dict()["fc.weight"])
    assert load_model("resnet10t", source, ("dog", "cat")).record.head_replaced
    assert len(server.seen) == 2  # config and weights, once
    with pytest.raises(WeightsError, match=r"holds weights of resnet10t, not of t2t_vit_7"):
        peek(source, "t2t_vit_7")


def test_labels_by_number_are_put_in_order_and_strange_configs_are_told(server: Server) -> None:
    model = build("resnet10t", 2)[0]
    hub_repository(server, "/me/a/resolve/main", model, label_names={"1": "dog", "0": "cat"})
    assert peek("hf-hub:me/a", "resnet10t").classes == ("cat", "dog")
    server.files["/me/b/resolve/main/config.json"] = b'["resnet10t"]'
    with pytest.raises(WeightsError, match="does not name an architecture"):
        peek("hf-hub:me/b", "resnet10t")
    with pytest.raises(WeightsError, match="answered 404"):
        peek("hf-hub:me/c", "resnet10t")


def test_model_without_published_weights_says_so(server: Server) -> None:
    assert pretrained_classes("resnet50_mlp") is None  # timm has the architecture alone
    with pytest.raises(WeightsError, match="timm publishes no weights for resnet50_mlp"):
        load_model("resnet50_mlp", "pretrained", 10)
    assert server.seen == []


def test_peek_as_the_first_step_of_a_process_finds_timm() -> None:
    """timm imports torchvision, whose binary may not fit torch: it must be made loadable before, by every caller."""
    code = "from pipeline.models.weights import peek; print(peek('none', 'resnet10t').source)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "none"), done.stderr
