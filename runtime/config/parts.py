"""The parts that a model is composed of, in the forms that they have: sections of `config.json`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Upper limits are several times the largest published model's: a file can say anything, and what is computed or
# allocated from it alone must stay sane. Between brackets the model that comes nearest.
Width = Annotated[int, Field(gt=0, le=65_536)]  # hidden size [Llama 3.1 405B: 16,384]
Inner = Annotated[int, Field(gt=0, le=262_144)]  # feed-forward size [Llama 3.1 405B: 53,248]
Layers = Annotated[int, Field(gt=0, le=512)]  # [Llama 3.1 405B: 126]
Heads = Annotated[int, Field(gt=0, le=1024)]  # [Llama 3.1 405B: 128]
HeadWidth = Annotated[int, Field(gt=0, le=4096)]  # [Gemma: 256]
Pixels = Annotated[int, Field(gt=0, le=8192)]  # side of a frame [SigLIP 2: 512; InternVL's tiles: 448]
Patch = Annotated[int, Field(gt=0, le=256)]  # side of a patch [ViT: 32]
Side = Annotated[int, Field(gt=0, le=64)]  # of a pooled block of patches or tokens [STORM: 2]
Frames = Annotated[int, Field(gt=0, le=4096)]  # pooled or skipped [STORM: 8]
Vocabulary = Annotated[int, Field(gt=0, le=4_194_304)]  # [Gemma 3: 262,208]
Context = Annotated[int, Field(gt=0, le=67_108_864)]  # [Llama 4 Scout: 10,485,760]
Epsilon = Annotated[float, Field(gt=0, le=0.1)]  # of a norm [BERT: 1e-12; GPT-2: 1e-5]; NaN fails both
RopeTheta = Annotated[float, Field(gt=0, le=1e12)]  # [Code Llama: 1e6; Llama 3: 5e5]
Mean = Annotated[float, Field(ge=0, le=1)]  # of a colour, of values from 0 to 1
Deviation = Annotated[float, Field(ge=0.01, le=1)]  # the same [CLIP: 0.26; SigLIP: 0.5]
MOST_PATCHES = 262_144  # of a frame: its attention is quadratic in them [SigLIP so400m at 448: 1,024]


class Section(BaseModel):
    """A section, which takes no field that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class VisionConfig(Section):
    """The SigLIP tower; field names are Hugging Face's. Defaults: so400m, patch 14, 448 x 448."""

    hidden_size: Width = 1152
    intermediate_size: Inner = 4304
    num_hidden_layers: Layers = 27
    num_attention_heads: Heads = 16
    image_size: Pixels = 448
    patch_size: Patch = 14
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    layer_norm_eps: Epsilon = 1e-6
    feature_layer: int = Field(default=-2, lt=0, ge=-512, description="hidden state taken, counted from the last")
    image_mean: tuple[Mean, Mean, Mean] = (0.5, 0.5, 0.5)
    image_std: tuple[Deviation, Deviation, Deviation] = (0.5, 0.5, 0.5)

    @property
    def grid(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size // self.patch_size

    @property
    def layers_run(self) -> int:
        """Blocks that run: hidden state -1 is the output of the last block, -2 of the one before it."""
        return self.num_hidden_layers + 1 + self.feature_layer

    @model_validator(mode="after")
    def _consistent(self) -> VisionConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.grid**2 > MOST_PATCHES:
            raise ValueError(f"image_size and patch_size make {self.grid**2} patches, {MOST_PATCHES} are the most")
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size {self.image_size} is smaller than patch_size {self.patch_size}")
        if self.layers_run < 1:
            raise ValueError(
                f"feature_layer {self.feature_layer} leaves none of {self.num_hidden_layers} blocks to run"
            )
        return self


class TemporalConfig(Section):
    """The projector and the Mamba-1 layers that mix visual tokens over time; without layers every frame is by itself.

    Projectors, each behind the space-to-depth of `downsample` and the norm, if there is one:
    linear      one Linear, as STORM's
    mlp2x_gelu  Linear, GELU, Linear: LLaVA's, and with a downsample of 2 and the norm VILA's mlp_downsample
    mlp3x_gelu  Linear to three times the tower's width, GELU, LayerNorm, Linear, GELU, Linear: with a downsample of 3
                and the norm VILA's mlp_downsample_3x3_fix
    """

    num_layers: int = Field(default=2, ge=0, le=512)  # [Mamba 2.8B: 64]
    d_state: int = Field(default=16, gt=0, le=256)  # [Mamba-2: 128]
    d_conv: int = Field(default=4, ge=2, le=64)  # [Mamba: 4]
    expand: int = Field(default=2, gt=0, le=64)  # [Mamba: 2]
    dt_rank: Width | Literal["auto"] = "auto"
    bidirectional: bool = True
    halve_sum: bool = Field(default=False, description="average the two directions, as Vim does, instead of adding")
    norm: Literal["layer", "rms"] = Field(default="layer", description="in front of every mixer")
    layer_norm_eps: Epsilon = 1e-5
    queries: bool = Field(
        default=False,
        description="spread what pooling makes among the tokens, mix all, keep those alone, as BIMBA's selector does",
    )
    downsample: Side = Field(default=2, description="side of the space-to-depth block")
    projector: Literal["linear", "mlp2x_gelu", "mlp3x_gelu"] = "linear"
    projector_norm: bool = Field(default=False, description="LayerNorm in front of the projection")

    @model_validator(mode="after")
    def _consistent(self) -> TemporalConfig:
        if self.queries and self.num_layers != 1:
            raise ValueError(f"num_layers is {self.num_layers}, but a selector with queries has one layer")
        return self


class ReductionConfig(Section):
    """Token reduction after the temporal encoder, in the paper's order, and the line ends between what is left.

    Spatial pooling: "mean" averages blocks that divide a frame's side, "cropped_mean" drops incomplete ones at its end,
    "bilinear" interpolates to ceil(side / spatial_pool).
    """

    temporal_pool: Frames = Field(default=4, description="k: consecutive frames averaged; trained")
    spatial_pool: Side = Field(default=1, description="side of the averaged block; 2 means 2 x 2; trained")
    spatial_mode: Literal["mean", "cropped_mean", "bilinear"] = "mean"
    sample: Frames = Field(default=1, description="s: keep every s-th pooled frame; test time only")
    newline_token: bool = Field(default=False, description='append the embedding of "\\n" after every frame')
    image_newline: Literal["none", "row", "frame", "end"] = Field(
        default="none", description="append a trained vector after every row of a frame, every frame, or all of them"
    )

    @model_validator(mode="after")
    def _consistent(self) -> ReductionConfig:
        if self.newline_token and self.image_newline != "none":
            raise ValueError("newline_token and image_newline are two kinds of line end: choose one")
        return self


class PromptConfig(Section):
    """What stands in a prompt beside the video and the question."""

    times: bool = Field(default=False, description="say when the frames are, as LLaVA-Video's training did")


class LanguageConfig(Section):
    """The Qwen2 or dense Qwen3 language model; field names are Hugging Face's but for two. Defaults: Qwen2-7B.

    Qwen3 has RMSNorm over every head of queries and keys in place of their biases, and heads of a width of its own.
    """

    architecture: Literal["qwen2", "qwen3"] = "qwen2"
    hidden_size: Width = 3584
    intermediate_size: Inner = 18944
    num_hidden_layers: Layers = 28
    num_attention_heads: Heads = 28
    num_key_value_heads: Heads = 4
    head_width: HeadWidth | None = Field(
        default=None, description="of one attention head, where it is not hidden_size / num_attention_heads: head_dim"
    )
    vocab_size: Vocabulary = 152064
    max_position_embeddings: Context = 32768
    rms_norm_eps: Epsilon = 1e-6
    rope_theta: RopeTheta = 1_000_000.0
    tie_word_embeddings: bool = False

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.head_width or self.hidden_size // self.num_attention_heads

    @property
    def heads_width(self) -> int:
        """Of all attention heads side by side."""
        return self.num_attention_heads * self.head_dim

    @property
    def head_norms(self) -> bool:
        """Whether queries and keys have norms, and projections no biases."""
        return self.architecture == "qwen3"

    @model_validator(mode="after")
    def _consistent(self) -> LanguageConfig:
        if self.head_width is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head size {self.head_dim} is odd; rotary embedding needs an even one")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of"
                f" num_key_value_heads {self.num_key_value_heads}"
            )
        return self
