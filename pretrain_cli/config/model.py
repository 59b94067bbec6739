"""Every setting, declared once: name, type, default, bounds and the sentence that documents it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from pretrain_cli.config.escapes import decode_escapes

Auto = Literal["auto"]
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """One table of the config. The string under a field is its documentation, here and in the reference."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would take true for 1: `max_steps = true` would train one step."""
        kind = str(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and "bool" not in kind:
            raise ValueError("should be no true or false")
        return value


class SourceConfig(Section):
    """One weighted source of a mixture: a ``[[data.sources]]`` table."""

    path: str
    """File, folder, glob or fsspec URL, as `ptk prepare` takes them."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How often its documents are used against the other sources': 2.0 takes them twice, 0.5 every second one."""
    name: str = ""
    """Name in the ledger and in the loss by source; the path if empty."""


class DataConfig(Section):
    """Text in, packed rows out."""

    inputs: tuple[str, ...] = ()
    """Files, folders, globs, fsspec URLs or `-`; what is typed after `ptk prepare`."""
    sources: tuple[SourceConfig, ...] = ()
    """A weighted mixture, in place of `inputs`."""
    sequence_length: Annotated[int, Field(ge=8, le=1_048_576)] | Auto = "auto"
    """Tokens in a row. `auto`: 256 from scratch, 512 with a base, never above what the base was made for."""
    packing: Literal["auto", "concat", "best-fit"] = "auto"
    """`concat` lays documents end to end and cuts; `best-fit` keeps pieces whole in rows (arXiv 2404.10830). `auto`: best-fit."""
    validation_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Share of the text held out, by document, or the tail of a single document; `split` says which."""
    split: Literal["auto", "tail", "hash"] = "auto"
    """Which documents are held out: the last ones (`tail`), or by a seeded hash of each text, which stays when files are added (`hash`). `auto`: hash from 1 000 documents on."""
    seed: int = 0
    """Seed of the hash split, of mixture draws and of the tokenizer's sample."""
    exact_dedup: bool = True
    """Leave out documents whose whole text was seen before."""
    near_dedup: bool = False
    """Leave out documents that nearly repeat an earlier one (MinHash, Jaccard 0.8); needs the extra `documents`."""
    cleaning: tuple[str, ...] = ()
    """Cleaning steps by name, applied in order; none by default: text is left as it is. See the guide on cleaning."""
    on_error: Literal["fail", "skip"] = "fail"
    """A bad record: stop with its place, or leave it out, count it and list it in rejected.jsonl."""
    workers: Positive | Auto = "auto"
    """Processes that prepare; the rows never depend on it."""
    executor: Literal["local", "ray"] = "local"
    """Who runs the shard tasks: a pool of local processes, or a Ray cluster that shares the file system (extra `ray`)."""
    shard: Annotated[str, Field(pattern=r"^(\d+/\d+)?$")] = ""
    """Run only part `i/n` of the shard tasks, `0/8` to `7/8`; `ptk prepare --merge` packs them once all are done."""
    document_separator: str = ""
    """Text that separates documents inside a plain text file; empty: a file is a document. It may hold the escapes `\\n`, `\\t`, `\\r`, `\\xNN` and `\\uNNNN`, and two backslashes for one; any other text is itself."""
    text_column: str = "auto"
    """Column that holds the text in jsonl, csv, tsv and parquet. `auto`: text, content, body, or the only text column."""
    encoding: str = "auto"
    """Encoding of plain text. `auto`: a byte-order mark, else UTF-8, else detected and reported."""
    parse_special_tokens: bool = False
    """Read control tokens written in the text (`</s>`) as control tokens. Off: no text can end a document."""
    add_bos: bool | Auto = "auto"
    """Put the tokenizer's BOS before each document. `auto`: where the tokenizer does so itself, and from scratch."""
    add_eos: bool = True
    """Put the tokenizer's EOS after each document."""

    @property
    def separator(self) -> str:
        """`document_separator` as it is in the files, its escapes decoded."""
        return decode_escapes(self.document_separator)


class TokenizerConfig(Section):
    """Where the tokenizer comes from."""

    vocab_size: Annotated[int, Field(ge=257, le=1_000_000)] | Auto = "auto"
    """Entries of a tokenizer trained here. `auto`: by the size of the text."""
    path: str = ""
    """A tokenizer.json or a folder with one, in place of training one; overrules the base's."""
    sample_bytes: Positive = 50_000_000
    """Text that the tokenizer is trained on at most, drawn evenly from the whole input."""
    engine: Literal["auto", "fastokens", "tokenizers"] = "auto"
    """What encodes. `auto`: fastokens where it gives the same ids as tokenizers on a sample, else tokenizers."""


class ModelConfig(Section):
    """What is trained."""

    base: str = ""
    """Model to continue from: a hub id, a folder, a .gguf file, or `smollm2` (extra `smollm2`); empty: from scratch."""
    init: Literal["base", "random", "depth-up", "drop-layers"] = "base"
    """How the base is used: as it is; its shape with random weights; with layers repeated; with layers left out."""
    layers: Positive | None = None
    """Layers after depth-up or drop-layers (default: 1.5 times, and half, the base's), or of a model from scratch."""
    size: Annotated[str, Field(coerce_numbers_to_str=True)] = "auto"
    """Size from scratch: micro (1.5M weights at 4 096 entries), tiny (1.9M), mini (7M), small (19M), base (45M), medium (98M), large (336M), or a number of layers. `auto`: by text and budget."""
    family: Literal["llama", "qwen3"] = "qwen3"
    """Architecture from scratch: transformers' own Llama, or Qwen3 (the same with normalised queries and keys)."""
    activation: Literal["silu", "relu2"] = "silu"
    """Of a model from scratch: both learn alike; llama.cpp, GGUF and Ollama run silu only."""
    trust_remote_code: bool = False
    """Run model code that comes with a base. Off: such a base is refused."""


class TrainConfig(Section):
    """How it is trained. Of the four budgets the first one reached ends the run."""

    max_steps: Positive | None = None
    """Optimizer steps."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training rows."""
    max_tokens: Positive | None = None
    """Training tokens."""
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """Minutes, loading and saving included; the schedule follows the clock. With no budget at all: auto, said at the start."""
    learning_rate: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Peak learning rate; with muon, that of the head and the norms. `auto`: by size and optimizer."""
    matrix_learning_rate: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Peak learning rate of the matrices under muon."""
    embedding_learning_rate: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Peak learning rate of an input embedding that isn't tied to the head."""
    schedule: Literal["auto", "linear", "cosine", "wsd", "constant"] = "auto"
    """Decay after warm-up; wsd is warm-up, stable, 1-sqrt cooldown over the last fifth. `auto`: linear."""
    min_learning_rate_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The learning rate at the end, as a share of the peak."""
    warmup_steps: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Steps from 0 to the peak rate. `auto`: 2 % of the run, at most 1 000."""
    batch_tokens: Positive | Auto = "auto"
    """Tokens in one optimizer step over all processes; micro-batch and accumulation follow from it."""
    micro_batch: Positive | Auto = "auto"
    """Rows that go through the model at once, on each process. `auto`: by memory."""
    gradient_accumulation: Positive | Auto = "auto"
    """Micro-batches in one optimizer step. `auto`: from batch_tokens."""
    optimizer: str = "auto"
    """`adamw`, `muon` (matrices by Muon, the rest by AdamW), or any of transformers' optim names. `auto`: muon from scratch, adamw with a base."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled weight decay on matrices; norms, biases and embeddings have none."""
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradient clipping by global norm; 0: off."""
    z_loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared log-partition term that keeps logits small (PaLM, arXiv 2204.02311)."""
    adam_beta1: Fraction | Auto = "auto"
    """AdamW's first moment decay. `auto`: 0.8 beside muon, 0.9 else."""
    adam_beta2: Fraction = 0.95
    """AdamW's second moment decay."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "bf16-weights", "auto-weights"] = "auto"
    """`bf16`: autocast over fp32 weights; `bf16-weights`: the weights too. `auto`: the faster of bf16 and fp32, timed; `auto-weights`: of bf16-weights and fp32."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    threads: Positive | Auto = "auto"
    """CPU threads for torch. `auto`: all cores, one where the machine is busy."""
    workers: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Loader processes. `auto`: 0, unless making a batch is measured to take over 3 % of a step."""
    processes: Positive | Auto = "auto"
    """Training processes on this machine. `auto`: one per GPU, one on a CPU."""
    seed: int = 0
    """Seed of initialisation, row order and dropout."""
    mask_documents: bool | Auto = "auto"
    """Keep documents in one row from seeing each other. `auto`: on with best-fit packing up to 1024 tokens, or on a GPU."""
    chunked_loss: bool | Auto = "auto"
    """Compute the loss in chunks of rows so that the logits are never held whole. `auto`: on where the model allows."""
    gradient_checkpointing: bool | Auto = "auto"
    """Recompute activations to save memory. `auto`: only where memory asks for it."""
    compile: bool | Auto = "auto"
    """torch.compile the model's body. `auto`: in runs of over two minutes, where there is a compiler."""
    attention: Literal["auto", "flash", "sdpa", "eager"] = "auto"
    """`auto`: flash attention where the package flash-attn is installed and the GPU is Ampere or newer, else torch's own."""
    liger: bool | Auto = "auto"
    """Liger's kernels for norms, rotary embeddings and SwiGLU. `auto`: on a GPU where they are installed (extra `gpu`)."""
    fp8: bool | Auto = "auto"
    """Matrix products in fp8 through torchao. `auto`: on Ada, Hopper or newer, where torchao is installed, from 1B weights on."""
    shard_model: bool = False
    """Shard parameters over processes (FSDP2) where one device can't hold them."""
    save_steps: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Steps between checkpoints; 0: only at the end. `auto`: about every tenth of the run."""
    eval_steps: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Steps between validations; 0: only at the end. `auto`: about every tenth of the run."""
    eval_rows: Positive = 64
    """Validation rows at most in a validation during training; the one at the end takes all up to ten times this."""
    logging_steps: Positive | Auto = "auto"
    """Steps between lines of metrics.jsonl. `auto`: every step up to 2 000, then every tenth."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Newest checkpoints kept, beside the best by validation loss."""
    on_divergence: Literal["stop", "rewind"] = "stop"
    """Several non-finite or exploding losses in a row: stop with exit 5, or go back once and leave those rows out."""
    early_stopping: Annotated[int, Field(ge=0)] = 0
    """Stop after this many validations without a better one; 0: off."""
    sample_prompts: tuple[str, ...] = ()
    """Prompts continued at every validation, shown and recorded."""


class TrackingConfig(Section):
    """Where metrics go beside the run's own metrics.jsonl. Keys come from the tracker's own login, never from here."""

    report_to: Literal["auto", "none", "wandb", "tensorboard", "trackio", "mlflow"] = "auto"
    """`auto`: wandb where it is installed and logged in, else nothing."""
    project: str = "ptk"
    """Project the run is filed under."""
    entity: str = ""
    """Team or user; empty: the login's own."""
    mode: Literal["online", "offline", "disabled"] = "online"
    """W&B's mode; `offline` writes a folder that `wandb sync` sends later."""


class EvaluateConfig(Section):
    """How models are scored."""

    on: tuple[str, ...] = ()
    """Texts to score, `path` or `name=path`, or `validation` and `general`, which are the default: the held-out rows and the general reference text in the package."""
    stride: Positive | Auto = "auto"
    """New tokens in each window of a long document. `auto`: half the context."""
    context: Positive | Auto = "auto"
    """Tokens a window holds, the same for all models. `auto`: the shortest row length of the runs, or 1 024 for models not trained here, within a model's own limit."""
    batch_tokens: Positive | Auto = "auto"
    """Tokens that go through the model at once. `auto`: 8 192; on a CPU a window, or 1 024, on each core."""
    sample: Annotated[int, Field(ge=0)] = 0
    """Score at most about this many bytes of each text, documents drawn by seed; 0: all."""
    against_base: bool = True
    """Score the base beside the run where it had one."""
    memorization: bool = False
    """Also count passages that the model continues word for word."""
    samples: Annotated[int, Field(ge=0)] = 2
    """Prompts that each model continues in the report: `train.sample_prompts` of the run, or openings of the texts."""
    tasks: tuple[str, ...] = ()
    """lm-eval tasks to run beside (extra `lm-eval`): names, or folders with tasks of your own, which need no network."""
    seed: int = 0
    """Seed of samples and of the bootstrap."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; fp32 gives figures that compare across machines."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `mps`."""


class GenerateConfig(Section):
    """How text is sampled."""

    max_tokens: Positive = 128
    """Tokens to write at most."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    """Divides the logits; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Keep the most probable tokens that reach this probability together."""
    top_k: Annotated[int, Field(ge=0)] = 50
    """Keep this many most probable tokens; 0: all."""
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Keep tokens at least this probable relative to the best one."""
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    """Divide the logits of tokens already seen; 1: off."""
    greedy: bool = False
    """Always take the most probable token."""
    seed: int = 0
    """Seed of the draw; sample i uses seed + i."""
    samples: Positive = 1
    """Texts per prompt."""
    stop: tuple[str, ...] = ()
    """Texts that end a sample."""
    probabilities: bool = False
    """Keep each token's probability and its most probable alternatives."""
    engine: Literal["torch", "llama.cpp"] = "torch"
    """What computes; llama.cpp needs the extra `llama-cpp`."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `mps`."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: fp32 on a CPU, bf16 on a GPU."""


class Config(Section):
    """The whole config. One file, ptk.toml, can hold any part of it."""

    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    tracking: TrackingConfig = TrackingConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    generate: GenerateConfig = GenerateConfig()
    trainer: dict[str, Any] = Field(default_factory=dict)
    """Passed to transformers' TrainingArguments by its own names, as `adam_epsilon`; what ptk has a key for is set by that."""


TRAINER_KEYS = {
    "learning_rate": "train.learning_rate", "lr_scheduler_type": "train.schedule", "warmup_steps": "train.warmup_steps",
    "warmup_ratio": "train.warmup_steps", "max_steps": "train.max_steps", "num_train_epochs": "train.epochs",
    "per_device_train_batch_size": "train.micro_batch", "per_device_eval_batch_size": "train.micro_batch",
    "gradient_accumulation_steps": "train.gradient_accumulation", "weight_decay": "train.weight_decay",
    "adam_beta1": "train.adam_beta1", "adam_beta2": "train.adam_beta2", "max_grad_norm": "train.max_grad_norm",
    "optim": "train.optimizer", "bf16": "train.precision", "fp16": "train.precision", "use_cpu": "train.device",
    "seed": "train.seed", "data_seed": "train.seed", "logging_steps": "train.logging_steps",
    "logging_strategy": "train.logging_steps", "eval_steps": "train.eval_steps", "eval_strategy": "train.eval_steps",
    "save_steps": "train.save_steps", "save_strategy": "train.save_steps", "save_total_limit": "train.keep",
    "dataloader_num_workers": "train.workers", "gradient_checkpointing": "train.gradient_checkpointing",
    "torch_compile": "train.compile", "use_liger_kernel": "train.liger", "fsdp": "train.shard_model",
    "report_to": "tracking.report_to",
}  # fmt: skip
"""TrainingArguments that ptk decides itself: under [trainer] they would do nothing, or half of what they say."""
