"""What the hub does not give is said in one sentence, in bounded time; offline, nobody is asked."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from mmpt_bench import api
from mmpt_bench.common.errors import MachineError
from mmpt_bench.sources.weights import backbone_folder

ANSWERS = {
    "429": b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "503": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "407": b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "page": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 7\r\nConnection: close\r\n\r\n<html>\n",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A server in the hub's place; it answers with what the list holds, and with nothing where it is empty."""
    answer: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            held = []
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.recv(65536)
                held.append(connection)
                if answer:
                    connection.sendall(ANSWERS[answer[0]])
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        huggingface_hub.close_session()
        yield answer
    huggingface_hub.close_session()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("429", r"takes no more requests for now \(status 429\)"),
        ("503", "the hub answered with status 503"),
        ("407", "the hub answered with status 407"),
        ("page", "sent no answer of the hub"),
        ("", r"the hub did not answer within 0\.3 s"),
    ],
)
def test_a_hub_that_refuses_or_never_answers_is_one_sentence_in_bounded_time(
    hub: list[str], answer: str, said: str
) -> None:
    hub += [answer] * bool(answer)
    with pytest.raises(MachineError, match=said):
        backbone_folder("nobody/model")


@pytest.mark.parametrize("answer", ["503", ""])
def test_a_listing_is_asked_for_once_and_quietly(
    hub: list[str], answer: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from mmpt_bench.sources.hub import asking, dataset_files

    hub += [answer] * bool(answer)
    began = time.monotonic()
    with pytest.raises(MachineError, match="is not in the local cache"), asking("data set `a/b`", "Wait.", False):
        dataset_files("a/b", "main")
    assert time.monotonic() - began < 3, "the hub's own listing tries six times, for 23 seconds and more"
    assert capfd.readouterr().err == ""
    assert not [record for record in caplog.records if record.name.startswith("huggingface_hub")]


def test_a_proxy_that_is_not_there_is_named(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
    monkeypatch.setenv("HTTPS_PROXY", address)
    huggingface_hub.close_session()
    with pytest.raises(MachineError, match="could not be reached by the proxy in `HTTPS_PROXY`"):
        backbone_folder("nobody/model")


def test_offline_opens_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: Any) -> None:
        pytest.fail("a socket was opened")

    for name in ("socket.socket.connect", "socket.getaddrinfo", "socket.create_connection"):
        monkeypatch.setattr(name, opened)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    made: dict[str, Any] = {"offline": True, "out": tmp_path / "out"}
    api.plan("frozen", "mnist", limit=2, **made)
    for wrong in (
        {"backbone": "nobody/model"},
        {"train_data": "vision-flan", "train_images": tmp_path},
        {"adapter": "nobody/it"},
    ):
        with pytest.raises(MachineError, match="`--offline` forbids asking the hub"):
            api.plan("frozen", "mnist", **made, **wrong)
