"""Rates, memory and links of devices, as their vendors' data sheets state them, and those of this machine, measured."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from gptkit.core.errors import GptkitError
from gptkit.model.plan import available_memory
from gptkit.runs.sizes import HEAP, LIBRARIES
from gptkit.training.rate import product_rate, synchronize

__all__ = ["DEVICES", "Device", "find_device", "with_rates"]


@dataclass(frozen=True)
class Device:
    """One device of a cluster.

    Attributes:
        name: its name on the command line.
        title: its full name.
        bf16: rate of dense bf16 products, in operations per second.
        fp32: rate of fp32 products.
        memory: its memory in bytes.
        bandwidth: of its memory, in bytes per second.
        link: bandwidth to the other devices of its node, in bytes per second and direction.
        per_node: number of devices of a node.
        network: bandwidth of one device to other nodes, in bytes per second and direction.
        source: where the numbers are from.
        product_share: share of the product rate that the products of a model reach.
        bandwidth_share: share of the memory's bandwidth that elementwise operations reach.
        link_share: share of the links' bandwidth that collectives reach.
        launch: seconds to start one operation from Python.
        concurrent: whether the device computes while the next operation is being started.
        reserved: memory that a process needs besides tensors.
        overhead: memory of a process divided by that of its tensors.
    """

    name: str
    title: str
    bf16: float
    fp32: float
    memory: int
    bandwidth: float
    link: float
    per_node: int
    network: float
    source: str
    product_share: float = 0.65
    bandwidth_share: float = 0.8
    link_share: float = 0.7
    launch: float = 6e-6
    concurrent: bool = True
    reserved: int = 1_500_000_000
    overhead: float = 1.0

    def rate(self, precision: torch.dtype) -> float:
        """Return the rate of products that models reach, in operations per second."""
        return self.product_share * (self.bf16 if precision == torch.bfloat16 else self.fp32)


_TABLE = """
name    bf16  fp32  GB   GB/s  link  node  network  share  title                    source
h100    989   67    80   3350  450   8     50       0.5    NVIDIA_H100_SXM          H100_data_sheet
h200    989   67    141  4800  450   8     50       0.5    NVIDIA_H200_SXM          H200_data_sheet
b200    2250  75    180  7700  900   8     50       0.4    NVIDIA_HGX_B200          HGX_B200_data_sheet
a100    312   19.5  80   2039  300   8     25       0.65   NVIDIA_A100_SXM_80_GB    A100_data_sheet
l40s    362   91.6  48   864   32    8     12.5     0.6    NVIDIA_L40S              L40S_data_sheet
4090    165   82.6  24   1008  16    4     1.25     0.65   NVIDIA_RTX_4090          Ada_GPU_architecture_whitepaper
mi300x  1307  163   192  5300  448   8     50       0.4    AMD_Instinct_MI300X      MI300X_data_sheet
"""
"""Rates of dense products in 10¹² operations per second, bandwidths in 10⁹ bytes per second and direction."""


def _parsed() -> dict[str, Device]:
    devices = {}
    for line in _TABLE.strip().splitlines()[1:]:
        name, bf16, fp32, memory, bandwidth, link, node, network, share, title, source = line.split()
        devices[name] = Device(
            name=name,
            title=title.replace("_", " "),
            bf16=float(bf16) * 1e12,
            fp32=float(fp32) * 1e12,
            memory=int(memory) * 10**9,
            bandwidth=float(bandwidth) * 1e9,
            link=float(link) * 1e9,
            per_node=int(node),
            network=float(network) * 1e9,
            source=source.replace("_", " "),
            product_share=float(share),
        )
    return devices


DEVICES = _parsed()
"""Devices by name. Rates are dense (without sparsity). Networks are those of usual systems, not of the device itself."""


def find_device(name: str, precision: torch.dtype) -> Device:
    """Return a device by name; ``cpu`` is this machine's, whose rates are measured.

    Raises:
        GptkitError: the name is unknown.
    """
    if name == "cpu":
        return _this_cpu(precision)
    if name.lower() not in DEVICES:
        raise GptkitError(f"unknown device {name!r}", hint=f"Choose one of {', '.join((*DEVICES, 'cpu'))}.")
    return DEVICES[name.lower()]


def _this_cpu(precision: torch.dtype) -> Device:
    cpu = torch.device("cpu")
    rate = product_rate(cpu, precision)
    return Device(
        "cpu",
        f"this CPU, {torch.get_num_threads()} threads",
        rate,
        rate,
        available_memory(cpu),
        _copy_bandwidth(),
        2e9,
        1,
        1.25e9,
        "measured",
        product_share=0.8,
        bandwidth_share=1.0,
        launch=8e-6,
        concurrent=False,
        reserved=LIBRARIES,
        overhead=HEAP,
    )


def _copy_bandwidth(n: int = 16_000_000, seconds: float = 0.3) -> float:
    """Measure the rate of an elementwise operation on tensors larger than the caches, in bytes read and written."""
    x = torch.ones(n)
    out = torch.empty_like(x)
    torch.add(x, x, out=out)
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.add(x, 1.0, out=out)
        synchronize(x.device)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * n * 4 / fastest


def with_rates(device: Device, factor: float) -> Device:
    """Return the device with all rates of computation divided by a factor."""
    return replace(
        device,
        bf16=device.bf16 / factor,
        fp32=device.fp32 / factor,
        bandwidth=device.bandwidth / factor,
        launch=device.launch * factor,
    )
