"""What every test gets: a device, a fixed seed that leaves no trace, the shared data if they are there."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
SEED = 0

hypothesis.settings.register_profile(
    "gconv_ga",
    deadline=None,  # a machine under load is no bug
    derandomize=True,  # the cases are fixed: a failure fails again
    max_examples=50,
    print_blob=True,
)
hypothesis.settings.load_profile("gconv_ga")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        action="append",
        metavar="DEVICE",
        help="run on this device only, such as cpu or cuda (may be repeated); default: cpu and the accelerator, if any",
    )


def pytest_configure(config: pytest.Config) -> None:
    # The tensors of tests are small: two threads wait for one another longer than they work. `-n` is what helps.
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
    # A shell starts what runs in the background deaf to Ctrl-C, and some tests press it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def devices(asked: list[str] | None) -> list[str]:
    """The devices to run on: those asked for, or the CPU and the accelerator that is present."""
    if asked:
        return list(dict.fromkeys(asked))
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return ["cpu"] if accelerator is None else ["cpu", accelerator.type]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", devices(metafunc.config.getoption("device")), scope="session", indirect=True)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device under test, one after the other; make random data on the CPU and move them here."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _fixed_seed() -> Iterator[None]:
    """Every test starts from the same seed, alone or after any other, and the generators are put back after it."""
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        torch.manual_seed(SEED)
        yield


@pytest.fixture
def generator() -> torch.Generator:
    """A generator of its own on the CPU, for random data."""
    return torch.Generator().manual_seed(SEED)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """A function: the folder of a shared data set, such as ``shared_data("nuclei")``; skips the test if it is absent.

    The data lie beside the repository, in ``../shared/data``, or where the variable GCONV_GA_DATA says.
    """
    folder = Path(os.environ.get("GCONV_GA_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"no data set {name!r} in GCONV_GA_DATA or in ../shared/data beside the repository")
        return folder / name

    return find


@pytest.fixture
def fake_cuda() -> None:
    """Skips where torch was built without CUDA: its fake tensors cannot move on a CUDA device then."""
    if not torch.backends.cuda.is_built():
        pytest.skip("this torch was built without CUDA, which fake CUDA tensors need")
