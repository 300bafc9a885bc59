"""The network in training: export's modules, a scan with gradients, several questions behind one visual prefix.

`AUXILIARY` are labels of single visual tokens, read by linear heads that no checkpoint keeps: they tell the vision
tower what stands where, and the temporal layers what has happened there so far, long before answers do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2ForCausalLM

from storm_edge.demo.palette import COLOURS, MOVES, SHAPES
from storm_edge.demo.training.kernels import conv, scan
from storm_edge.export.network.language import transformers_config
from storm_edge.export.network.temporal import MambaMixer, TemporalEncoder
from storm_edge.export.network.vision import VisionEncoder
from storm_edge.runtime.config.schema import StormConfig

SPEED_BINS = 6
PLACES = 6
_EVENT_WEIGHT = 3.0  # of labels that say something has happened: most say that nothing has
# name -> (classes, read behind the temporal layers); a label of -1 counts for nothing.
AUXILIARY: dict[str, tuple[int, bool]] = {
    "colour": (len(COLOURS) + 2, False),  # none, each colour, flash
    "shape": (len(SHAPES) + 1, False),
    "cell": (16, False),  # which token of the frame this is: what the temporal layers need to find it in another frame
    "column": (PLACES, False),  # where in its token a thing's centre is
    "row": (PLACES, False),
    "size": (4, False),
    "motion": (len(MOVES) + 1, True),  # from the frame before to this one
    "edge": (4, True),  # bit 1: was not there in the frame before; bit 2: is not there in the next
    "direction": (len(MOVES) + 1, True),
    "bounces": (4, True),
    "blinks": (4, True),
    "rank": (4, True),
    "change": (4, True),
    "speed": (SPEED_BINS + 1, True),
    "turn": (2, True),  # a bounce is over since the frame before
}


class TrainingMixer(MambaMixer):
    """MambaMixer with a convolution and a scan that have gradients."""

    def direction(self, x: Tensor, z: Tensor, suffix: str) -> Tensor:
        """Convolution, scan and gate of one direction: x, z (batch, length, channels) -> the same shape."""
        conv1d, x_proj = self.get_submodule(f"conv1d{suffix}"), self.get_submodule(f"x_proj{suffix}")
        dt_proj = self.get_submodule(f"dt_proj{suffix}")
        assert isinstance(conv1d, nn.Conv1d)
        assert isinstance(dt_proj, nn.Linear)
        assert conv1d.bias is not None
        reverse = suffix == "_b"
        x = conv(x, conv1d.weight.squeeze(1), conv1d.bias, reverse)
        dt, B, C = x_proj(x).split([self.dt_rank, self.state, self.state], dim=-1)
        delta = functional.linear(dt, dt_proj.weight)
        A = -torch.exp(self.get_parameter(self._a_log(suffix)))
        return scan(x, delta, A, B, C, self.get_parameter(f"D{suffix}"), z, dt_proj.bias, reverse)

    def initialize(self) -> None:
        """Mamba's own start values: A = -(1..N), D = 1, steps log-uniform in [1e-3, 1e-1]; arXiv 2312.00752."""
        for suffix in self.suffixes:
            a_log = self.get_parameter(self._a_log(suffix))
            a_log.data.copy_(torch.log(torch.arange(1.0, a_log.shape[1] + 1)).expand_as(a_log))
            dt_proj = self.get_submodule(f"dt_proj{suffix}")
            assert isinstance(dt_proj, nn.Linear)
            nn.init.uniform_(dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
            step = torch.exp(torch.empty_like(dt_proj.bias).uniform_(math.log(1e-3), math.log(1e-1)))
            dt_proj.bias.data.copy_(torch.log(torch.expm1(step)))


class StormModel(nn.Module):
    """Vision, temporal layers, language model and auxiliary heads, with random weights from torch's generator."""

    def __init__(self, config: StormConfig):
        super().__init__()
        self.config = config
        self.vision = VisionEncoder(config)
        self.temporal = TemporalEncoder(config)
        for layer in self.temporal.layers:
            mixer = TrainingMixer(config)
            mixer.initialize()
            layer.mixer = mixer
        self.llm = Qwen2ForCausalLM(transformers_config(config.llm))
        self.heads = nn.ModuleDict({n: nn.Linear(config.llm.hidden_size, k) for n, (k, _) in AUXILIARY.items()})

    def see(self, frames: Tensor) -> Tensor:
        """Frames uint8 (batch, T, H, W, 3) -> tokens (batch, T, N, D)."""
        tokens: Tensor = self.vision(frames.flatten(0, 1))
        return tokens.reshape(*frames.shape[:2], *tokens.shape[1:])

    def mix(self, tokens: Tensor) -> Tensor:
        """The temporal layers: tokens (batch, T, N, D) -> the same shape. A single frame passes them too."""
        x = tokens.flatten(1, 2)
        for layer in self.temporal.layers:
            x = layer(x)
        return x.reshape(tokens.shape)

    def reduce(self, tokens: Tensor, pool: int, side: int, sample: int) -> Tensor:
        """Temporal and spatial pooling and sampling: (batch, T, N, D) -> visual tokens (batch, V, D)."""
        batch, frames, cells, width = tokens.shape
        x = tokens.reshape(batch, frames // pool, pool, cells, width).mean(2)
        if side > 1:
            grid = self.config.token_grid
            x = x.reshape(batch, frames // pool, grid // side, side, grid // side, side, width).mean((3, 5))
        return x[:, ::sample].reshape(batch, -1, width)

    def answer_logits(self, visual: Tensor, before: Tensor, text: Tensor, segments: Tensor, wanted: Tensor) -> Tensor:
        """Logits (wanted positions, vocabulary) after a prefix that all of a sample's questions share.

        visual (batch, V, D); before (P,) ids; text (batch, S) ids of all questions with their answers, one behind the
        other; segments (batch, S) the question's number from 1, 0 for padding; wanted (batch, S) bool: predict what
        follows here.
        """
        batch = len(text)
        embed = self.llm.get_input_embeddings()
        prefix = len(before) + visual.shape[1]
        embeds = torch.cat([embed(before).expand(batch, -1, -1), visual, embed(text)], 1)
        allowed, positions = block_mask(prefix, segments)
        mask = torch.zeros(allowed.shape, dtype=embeds.dtype, device=embeds.device).masked_fill_(~allowed, -1e9)
        hidden = decode(self.llm, embeds, mask[:, None], positions)
        logits: Tensor = self.llm.lm_head(hidden[:, prefix:][wanted])
        return logits


def decode(llm: Qwen2ForCausalLM, x: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    """Qwen2's layers and last norm in fewer passes over memory: x (batch, S, D), mask (batch, 1, S, S), both fp32.

    What `llm.model` computes; that form takes twice as long on a CPU.
    """
    config = llm.config
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    batch, length, width = x.shape
    head = width // heads
    frequency: Tensor = config.rope_parameters["rope_theta"] ** (-torch.arange(0, head, 2, device=x.device) / head)
    angle = (positions[..., None] * frequency).repeat(1, 1, 2)[:, None]  # (batch, 1, S, head)
    cos, sin = angle.cos(), angle.sin()
    sin = torch.cat([-sin[..., : head // 2], sin[..., head // 2 :]], -1)

    def turned(v: Tensor) -> Tensor:
        return v * cos + torch.roll(v, head // 2, -1) * sin

    for layer in llm.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        y = _rms_norm(x, layer.input_layernorm)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        weight, bias = torch.cat([p.weight for p in projections]), torch.cat([p.bias for p in projections])
        q, k, v = torch.split(functional.linear(y, weight, bias), [width, groups * head, groups * head], -1)
        q = turned(q.reshape(batch, length, heads, head).transpose(1, 2))
        k = turned(k.reshape(batch, length, groups, head).transpose(1, 2)).repeat_interleave(heads // groups, 1)
        v = v.reshape(batch, length, groups, head).transpose(1, 2).repeat_interleave(heads // groups, 1)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + attention.o_proj(y.transpose(1, 2).reshape(batch, length, width))
        y = _rms_norm(x, layer.post_attention_layernorm)
        x = x + mlp.down_proj(functional.silu(mlp.gate_proj(y)) * mlp.up_proj(y))
    return _rms_norm(x, llm.model.norm)


def _rms_norm(x: Tensor, norm: nn.Module) -> Tensor:
    weight, epsilon = norm.get_parameter("weight"), float(norm.variance_epsilon)  # type: ignore[arg-type]
    return functional.rms_norm(x, weight.shape, weight, epsilon)


def block_mask(prefix: int, segments: Tensor) -> tuple[Tensor, Tensor]:
    """Who may look at whom (batch, prefix + S, prefix + S), and rotary positions (batch, prefix + S).

    Every question sees the prefix and itself, at the positions it would have if it were alone.
    """
    batch, length = segments.shape
    numbers = functional.pad(segments, (prefix, 0))  # the prefix is segment 0, as padding is; the mask is causal
    order = torch.arange(prefix + length, device=segments.device)
    in_prefix = order < prefix
    same = numbers[:, :, None] == numbers[:, None, :]
    allowed = (order[:, None] >= order[None, :]) & (same | in_prefix[None, None, :])
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    index = torch.arange(length, device=segments.device).expand(batch, -1)
    begun = torch.where(starts, index, 0).cummax(1).values
    positions = torch.cat([order[:prefix].expand(batch, -1), prefix + index - begun], 1)
    return allowed, positions


def auxiliary_loss(heads: nn.ModuleDict, tokens: Tensor, labels: dict[str, Tensor], *, mixed: bool) -> Tensor:
    """Mean cross-entropy of the labels that belong before (or, `mixed`, behind) the temporal layers."""
    losses = []
    for name, (classes, behind) in AUXILIARY.items():
        if behind == mixed and name in labels:
            label = labels[name].flatten()
            known = label >= 0
            if known.any():
                weights = tokens.new_full((classes,), _EVENT_WEIGHT if behind else 1.0)
                weights[0] = 1.0
                logits = heads[name](tokens.flatten(0, -2)[known])
                losses.append(functional.cross_entropy(logits, label[known], weight=weights))
    return torch.stack(losses).mean() if losses else tokens.new_zeros(())
