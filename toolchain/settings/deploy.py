"""Options of export and run."""

from typing import Literal

from pydantic import Field

from vlmc.runtime.kernels.columns import CHUNK, SPAN
from vlmc.toolchain.settings.base import Settings
from vlmc.toolchain.settings.data import DataSettings


class ExportSettings(Settings):
    """How to export."""

    precision: Literal["fp32", "fp16", "bf16"] | None = None
    """Type of the graph's weights. [default: fp32 for onnx, fp16 for tensorrt]"""
    cache: Literal["in-place", "concatenated"] | None = None
    """How the graph adds tokens to its key-value cache; concatenated for other programs. [default: in-place for onnx]"""
    cpu_sparse: Literal["auto", "fp32", "bf16", "fp16", "int8"] | None = None
    """Pack the 2:4 weights in this type, for vlmc's CPU kernels; auto measures for a second. [default: they stay dense]"""
    cpu_activations: Literal["fp32", "bf16", "int8"] | None = None
    """Let packed products of the same type round activations: int8 always, bf16 with many rows. [default: fp32]"""
    packed: bool = False
    """Store 2:4 weights as their two kept values and places: 9/16 of the bytes at 16 bits; they are unpacked on load."""
    dense_twin: bool = False
    """Write the dense model's graphs too, into a folder dense-twin, to compare with."""
    lora_twin: bool = False
    """Write the graphs with an adapter left apart too, into a folder lora-twin, to compare with."""
    layout: Literal["triton", "genai"] | None = None
    """Write a folder more: triton, for Triton Inference Server, or genai, for onnxruntime-genai. [default: none]"""
    gpu: str | None = None
    """GPU architectures to build engines for (TensorRT-RTX). [default: sm86,sm89; TensorRT builds for the GPU at hand]"""
    workspace: str | None = None
    """GPU memory that a TensorRT build may take to try a layer, such as 4GB. [default: all of it]"""
    require_sparse: str | None = None
    """Fail if TensorRT runs a smaller share of the 2:4 layers sparse, such as 90%; TensorRT-RTX cannot say."""


class RoundingSettings(DataSettings):
    """How --cpu-sparse int8 rounds the pruned layers' weights, and on what data."""

    panel = "Rounding"

    rounding: Literal["nearest", "gptq"] = "nearest"
    """How int8 is rounded: nearest, or gptq, where later columns make up for the error on calibration data."""
    group: int = Field(default=SPAN, ge=CHUNK, le=1 << 20, multiple_of=CHUNK)
    """Columns that share an int8 scale, a multiple of 32; fewer are more exact and take more bytes."""
    calibration: int = Field(default=128, ge=1, le=10_000_000)
    """Number of calibration samples of --rounding gptq."""
    device: str | None = None
    """Device to calibrate on: cpu, cuda or cuda:1. [default: a CUDA GPU where there is one]"""


class RunSettings(Settings):
    """How to answer."""

    max_new_tokens: int = Field(default=32, ge=1, le=1_000_000)
    """Longest answer in tokens."""
    temperature: float = Field(default=0.0, ge=0, le=1000)
    """Sampling temperature; 0 takes the likeliest token."""
    top_k: int = Field(default=0, ge=0, le=1_000_000)
    """Sample from so many of the likeliest tokens; 0: from all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the likeliest tokens that together have this probability."""
    repetition_penalty: float = Field(default=1.0, gt=0, le=1000)
    """Above 1, tokens that were used already become less likely."""
