"""Declares every setting once: its name, type, default, bounds and documentation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from pretrain_cli.config.encodings import check_encoding
from pretrain_cli.config.escapes import decode_escapes

Auto = Literal["auto"]
LARGEST = 10**15
"""Above any real number of steps, tokens or rows, and exact as a float."""
MOST_LAYERS = 1_000
"""Of a model; the deepest have 126. Counting the weights of 99,999 layers takes minutes."""
Positive = Annotated[int, Field(gt=0, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Amount = Annotated[float, Field(gt=0, le=1e9)]
Strength = Annotated[float, Field(ge=0, le=1e6)]
Rate = Annotated[float, Field(gt=0, le=1000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("a name in it is empty")
    return text


Name = Annotated[str, AfterValidator(_not_empty)]  # pydantic's own limit of the length refuses bytes that aren't UTF-8
"""One of several. An empty one, as an unset variable of a shell gives it, would be the current folder or nothing."""
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """One table of the config. The string under a field is its documentation, in the help and in the reference."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would take true for 1: `max_steps = true` would train one step."""
        kind = str(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and "bool" not in kind:
            number = "int" in kind or "float" in kind
            raise ValueError(f"must be {'a number' if number else 'a list' if 'tuple' in kind else 'text'}")
        return value


class SourceConfig(Section):
    """One source of a weighted mixture: a ``[[data.sources]]`` table."""

    path: Name
    """File, folder, glob or fsspec URL, as for `ptk prepare`."""
    weight: Amount = 1.0
    """How often each document is used, relative to the other sources: 2.0 uses each twice, 0.5 every second one."""
    name: str = ""
    """Name in the ledger and in the loss per source. Empty: the path."""


class StageConfig(Section):
    """One stage of a run, with a mixture of its own: a ``[[data.stages]]`` table."""

    share: Amount
    """How long the stage is, relative to the others: 0.9 and 0.1 are nine tenths of the run and the last tenth."""
    mixture: dict[str, Amount] = Field(default_factory=dict)
    """Source → its share of the stage's rows, relative to the others here; a source that isn't named isn't used. Empty: all sources, as much of each as was prepared."""


class DataConfig(Section):
    """How text becomes packed rows."""

    inputs: tuple[Name, ...] = ()
    """Files, folders, globs, fsspec URLs or `-`: the arguments of `ptk prepare`."""
    sources: tuple[SourceConfig, ...] = ()
    """A weighted mixture of sources, instead of `inputs`."""
    stages: tuple[StageConfig, ...] = ()
    """Stages of the run, each with its own mixture of the sources. Empty: the same mixture throughout."""
    sequence_length: Annotated[int, Field(ge=8, le=1_048_576)] | Auto = "auto"
    """Tokens per row. `auto`: 256 from scratch, 512 with a base, or twice as many where whole documents fill those better; never more than the base supports."""
    packing: Literal["auto", "concat", "best-fit"] = "auto"
    """`concat`: join documents end to end and cut; `best-fit`: keep pieces whole within rows (arXiv 2404.10830). `auto`: best-fit, unless more than 15% of the rows would be padding."""
    validation_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Share of the text that is held out for validation: whole documents, or the ends of large ones. `data.split` says which."""
    split: Literal["auto", "spread", "tail", "hash"] = "auto"
    """What is held out. `spread` (`auto`): the end of each large document, and of small ones some of each source and kind of file, drawn by a seeded hash of their text; `hash`: documents drawn so, whatever their size and kind; `tail`: the last documents."""
    replay: Annotated[float, Field(ge=0, le=0.9)] | Auto = 0.0
    """Share of general text to mix into yours, so that a base forgets less. `auto`: 0.05. None of it is held out."""
    replay_source: str = ""
    """Where that text is from: a file, a folder, a glob, or a data set of the Hub (`hf://datasets/owner/name`). Empty: the base writes it itself, once."""
    fim_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the training text whose middle is moved to its end, so that the model learns to fill in a middle (arXiv 2207.14255): half prefix-suffix-middle, half suffix-prefix-middle. Validation stays as it is."""
    seed: Seed = 0
    """Seed of the draws of held-out documents, of a mixture, of middles and of the tokenizer's sample."""
    exact_dedup: bool = True
    """Leave out documents that repeat the whole text of an earlier one."""
    near_dedup: bool = False
    """Leave out documents that nearly repeat an earlier one (MinHash, Jaccard similarity 0.8). Needs the extra `documents`."""
    cleaning: tuple[Name, ...] = ()
    """Names of cleaning steps, applied in order. Empty: the text stays as it is. See the guide on cleaning."""
    on_error: Literal["auto", "fail", "skip"] = "auto"
    """A file or record that can't be read: `fail` stops and says where it is; `skip` leaves it out, counts it and lists it in rejected.jsonl. `auto`: as `skip`, with a warning, but stops where the only file or more than a tenth of the records is bad; `ptk evaluate` stops."""
    max_record_bytes: Annotated[int, Field(ge=1_000, le=LARGEST)] = 256_000_000
    """Maximum bytes of one record: a line of jsonl or csv, a json, HTML, PDF, DOCX or EPUB file, a text in a table, or a document with a cleaning step that judges it as a whole. A longer one is a bad record, see `on_error`. It takes about five times as much memory."""
    workers: Positive | Auto = "auto"
    """Processes that prepare the text. The rows don't depend on their number."""
    executor: Literal["local", "ray"] = "local"
    """What runs the work: a pool of local processes, or a Ray cluster with a shared file system (extra `ray`)."""
    shard: Annotated[str, Field(pattern=r"^(\d+/\d+)?$")] = ""
    """Encode only every `n`-th shard of the text, given as `i/n`, from `0/8` to `7/8`. Then `ptk prepare --merge` packs all shards."""
    document_separator: str = ""
    """Text that separates documents within a plain text file. Empty: each file is one document. The escapes `\\n`, `\\t`, `\\r`, `\\xNN` and `\\uNNNN` are understood; write two backslashes for one."""
    text_column: str = "auto"
    """Column that holds the text in jsonl, csv, tsv and parquet files. `a.b` is `b` inside `a`. `auto`: by a sample of the first records, `text`, `content` or `body`, or the column with prose."""
    encoding: Annotated[str, AfterValidator(check_encoding)] = "auto"
    """Encoding of text, jsonl, json, csv and tsv files. `auto`: a byte-order mark, else UTF-8, else detected and reported."""
    parse_special_tokens: bool = False
    """Read special tokens that are written in the text, such as `</s>`, as special tokens. Off: they are ordinary text, so no text can end a document."""
    add_bos: bool | Auto = "auto"
    """Put the tokenizer's BOS token before each document. `auto`: if the tokenizer does so itself, and from scratch."""
    add_eos: bool = True
    """Put the tokenizer's EOS token after each document."""

    @property
    def separator(self) -> str:
        """`document_separator` with its escapes decoded, as it appears in the files."""
        return decode_escapes(self.document_separator)


class TokenizerConfig(Section):
    """Where the tokenizer comes from."""

    vocab_size: Annotated[int, Field(ge=257, le=1_000_000)] | Auto = "auto"
    """Number of entries of a tokenizer trained here. `auto`: by the size of the text."""
    path: str = ""
    """A tokenizer.json, or a folder that holds one, to use instead of training one. Also replaces the base's tokenizer."""
    extend_vocab: Count | Auto = 0
    """Entries to add to the base's tokenizer, whose BPE merges are continued on the text. `auto`: as many as save enough tokens to be learned."""
    sample_bytes: Positive = 50_000_000
    """Maximum bytes of text to train the tokenizer on, drawn evenly from the whole input."""
    engine: Literal["auto", "fastokens", "tokenizers"] = "auto"
    """What encodes the text. `auto`: fastokens if it gives the same ids as tokenizers on a sample, else tokenizers."""


class ModelConfig(Section):
    """Which model is trained."""

    base: str = ""
    """Model to continue from: a Hub id, a folder, a .gguf file, or `smollm2` (extra `smollm2`: SmolLM2-135M-Instruct in 4 bits). Empty: from scratch."""
    init: Literal["base", "random", "depth-up", "drop-layers"] = "base"
    """How to use the base. `base`: as it is; `random`: its shape with random weights; `depth-up`: with layers repeated; `drop-layers`: with layers left out."""
    layers: Annotated[int, Field(gt=0, le=MOST_LAYERS)] | None = None
    """Number of layers after depth-up or drop-layers (default: 1.5 times or half the base's), or of a model from scratch."""
    size: Annotated[str, Field(coerce_numbers_to_str=True)] = "auto"
    """Size of a model from scratch: micro (1.5M weights with 4,096 vocabulary entries), tiny (1.9M), mini (7M), small (19M), base (45M), medium (98M), large (336M), or a number of layers. `auto`: by text and budget."""
    family: Literal["llama", "qwen3"] = "qwen3"
    """Architecture from scratch, from transformers: Llama, or Qwen3, which also normalizes queries and keys."""
    new_tokens: Literal["mean", "first"] = "mean"
    """What the rows of new tokens start as in embedding and head (`tokenizer.extend_vocab`). `mean`: the mean of the rows of the old tokens that the text was written in before; `first`: the same in the embedding, but the first old token's row in a head with weights of its own."""
    vocab_multiple: Positive = 64
    """Rows of an embedding that grows are filled up to a multiple of this, which GPUs compute faster."""
    activation: Literal["silu", "relu2"] = "silu"
    """Activation of a model from scratch. Both learn alike; llama.cpp, GGUF and Ollama support only silu."""
    trust_remote_code: bool = False
    """Run model code that comes with a base. Off: such a base is refused. Set it on the command line: `ptk.toml` and the environment can set it too, and ptk says so each time; in any other file it has no effect."""


class TrainConfig(Section):
    """How the model is trained. If several budgets are set, the first one reached ends the run."""

    max_steps: Positive | None = None
    """Maximum optimizer steps."""
    epochs: Amount | None = None
    """Maximum passes over the training rows."""
    max_tokens: Positive | None = None
    """Maximum training tokens."""
    max_minutes: Amount | None = None
    """Maximum minutes, including loading and saving. The schedule follows the clock. With no budget at all, ptk chooses one and says so at the start."""
    method: Literal["auto", "full", "lora", "qlora"] = "auto"
    """How a base is trained. `full`: all weights; `lora`: small matrices beside its linear layers (arXiv 2106.09685), merged at the end; `qlora`: the same beside a base in 4 bits (arXiv 2305.14314). Both need the extra `lora`. `auto`: the first of these that fits the memory."""
    lora_rank: Annotated[int, Field(gt=0, le=4096)] | Auto = "auto"
    """Rank of the matrices that LoRA trains. `auto`: 64, or 16 if the memory is short."""
    lora_alpha: Amount | Auto = "auto"
    """LoRA's output is multiplied by alpha / rank; with `rslora`, by alpha / sqrt(rank). `auto`: the alpha that makes this 2."""
    lora_targets: tuple[Name, ...] = ()
    """Names of the linear layers that LoRA adapts, such as q_proj. Empty: all but the head."""
    lora_dropout: Fraction = 0.0
    """Dropout of what goes into LoRA's matrices."""
    dora: bool = False
    """Also train the length of each output's weights (DoRA, arXiv 2402.09353). Slower."""
    rslora: bool = False
    """Divide alpha by the square root of the rank (arXiv 2312.03732)."""
    learning_rate: Rate | Auto = "auto"
    """Peak learning rate; with muon, of the head and the norms. `auto`: by size and optimizer, ten times as high with LoRA."""
    matrix_learning_rate: Rate | Auto = "auto"
    """Peak learning rate of the matrices with muon."""
    embedding_learning_rate: Rate | Auto = "auto"
    """Peak learning rate of an input embedding that isn't tied to the head."""
    new_token_rate: Rate = 1.0
    """Learning rate of the rows of new tokens, times that of the weights they are in. See `tokenizer.extend_vocab`."""
    new_tokens_first: Fraction = 0.0
    """Share of the run, at its start, in which the rows of new tokens alone are trained."""
    schedule: Literal["auto", "linear", "cosine", "wsd", "constant"] = "auto"
    """Shape of the learning rate after warm-up. wsd: stable, then a 1-sqrt cooldown over the last fifth. `auto`: linear."""
    min_learning_rate_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Learning rate at the end, as a share of the peak."""
    warmup_steps: Count | Auto = "auto"
    """Steps from 0 to the peak learning rate. `auto`: 2% of the run, at most 1,000."""
    batch_tokens: Positive | Auto = "auto"
    """Tokens per optimizer step, over all processes. Micro-batch and accumulation follow from it."""
    micro_batch: Positive | Auto = "auto"
    """Rows that go through the model at once, on each process. `auto`: by memory."""
    gradient_accumulation: Positive | Auto = "auto"
    """Micro-batches per optimizer step. `auto`: from batch_tokens."""
    optimizer: str = "auto"
    """`adamw`, `muon` (Muon for matrices, AdamW for the rest), or any optimizer name of transformers. `auto`: muon from scratch, adamw with a base."""
    weight_decay: Strength = 0.1
    """Decoupled weight decay of the matrices. Norms, biases and embeddings have none."""
    max_grad_norm: Strength = 1.0
    """Maximum global norm of the gradient; larger gradients are clipped. 0: off."""
    z_loss: Strength = 0.0
    """Weight of the squared log-partition term that keeps logits small (PaLM, arXiv 2204.02311)."""
    adam_beta1: Fraction | Auto = "auto"
    """AdamW's decay of the first moment. `auto`: 0.8 with muon, else 0.9."""
    adam_beta2: Fraction | Auto = "auto"
    """AdamW's decay of the second moment. `auto`: 0.98 with muon, else 0.95."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "bf16-weights", "auto-weights"] = "auto"
    """`bf16`: autocast over fp32 weights; `bf16-weights`: bf16 weights too. `auto`: bf16 or fp32, whichever is faster here; `auto-weights`: bf16-weights or fp32."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `xpu` or `mps`."""
    threads: Positive | Auto = "auto"
    """CPU threads for torch. `auto`: one per core, or a single one if the machine is busy."""
    workers: Count | Auto = "auto"
    """Processes that load batches. `auto`: 0, unless making a batch takes more than 3% of a step."""
    processes: Positive | Auto = "auto"
    """Training processes on this machine. `auto`: one per GPU, or one on a CPU."""
    seed: Seed = 0
    """Seed of initialization, row order and dropout."""
    shuffle_files: Count = 0
    """Files of rows (1 GB each) that are shuffled together, drawn anew in each epoch. 0: all rows. From object storage, training with 0 begins when all rows are here; otherwise with the first few files, brings the next ones meanwhile, and keeps at most four times as many and the first."""
    mask_documents: bool | Auto = "auto"
    """Keep documents that share a row from attending to each other. `auto`: on with best-fit packing, on a GPU or in rows of up to 1,024 tokens."""
    teacher: tuple[Name, ...] = ()
    """Models to learn from as well: runs, folders or Hub ids with the same tokenizer. Part of the loss then follows their mean distribution of the next token (distillation, arXiv 1503.02531)."""
    teacher_weight: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of the loss that follows `train.teacher`; the rest follows the text."""
    ensemble: Annotated[int, Field(ge=0, le=64)] | Auto = "auto"
    """Models that are trained first, each with its own seed, and then teach the one that is kept. `auto`: 2, 4 or 8 where the text is short and only minutes are given, at least two; 0: none."""
    chunked_loss: bool | Auto = "auto"
    """Compute the loss in chunks of rows, so that the logits are never held all at once. `auto`: on if the model allows it."""
    gradient_checkpointing: bool | Auto = "auto"
    """Recompute activations to save memory. `auto`: only if memory is short."""
    compile: bool | Auto = "auto"
    """Compile the model's body with torch.compile, layer by layer with several processes or gradient checkpointing. `auto`: in runs of more than two minutes, if a compiler is installed; on a CPU with one process and no checkpointing only."""
    attention: Literal["auto", "flash", "sdpa", "eager"] = "auto"
    """Attention implementation. `auto`: on a GPU from Ampere on flash if the package flash-attn is installed, else torch's own flash kernel without a mask where documents are kept apart; elsewhere sdpa, which is torch's own too."""
    liger: bool | Auto = "auto"
    """Use Liger kernels for norms, rotary embeddings and SwiGLU. `auto`: on a GPU if they are installed (extra `gpu`)."""
    fp8: bool | Auto = "auto"
    """Compute matrix products in fp8 with torchao. `auto`: on Ada, Hopper or newer GPUs, if torchao is installed, from 1B weights on."""
    shard_model: bool = False
    """Shard the parameters over the processes (FSDP2), for models that don't fit on one device."""
    save_steps: Count | Auto = "auto"
    """Steps between checkpoints. 0: only at the end. `auto`: about ten in a run."""
    background_saves: bool | Auto = "auto"
    """Write checkpoints from a copy in memory while training continues. `auto`: those of more than 32 MB. Where the memory has no room for a copy, training waits, and says so."""
    eval_steps: Count | Auto = "auto"
    """Steps between validations. 0: only at the end. `auto`: about ten in a run."""
    eval_rows: Positive = 64
    """Maximum rows per validation during training. The validation at the end uses up to ten times as many."""
    logging_steps: Positive | Auto = "auto"
    """Steps between lines of metrics.jsonl. `auto`: every step up to 2,000, then every tenth."""
    keep: Positive = 2
    """Number of newest checkpoints to keep, in addition to the one with the best validation loss."""
    verify_steps: Count = 0
    """Compute each so-many-th step again, and any with a suspicious loss, and compare all bits of loss and gradients: where they differ, the machine miscomputes. 0: never."""
    on_divergence: Literal["stop", "rewind"] = "stop"
    """After several non-finite or exploding losses in a row: `stop` with exit code 5, or `rewind` once and leave those rows out."""
    on_sigusr1: Literal["stop", "continue"] = "stop"
    """What SIGUSR1 does, which SLURM sends ahead of the time limit with `--signal=USR1@120`. `stop`: finish the step, save and exit with 138; `continue`: finish the step, save and continue."""
    early_stopping: Count = 0
    """Stop after this many validations without improvement. 0: off."""
    sample_prompts: tuple[str, ...] = ()
    """Prompts to continue at every validation; the texts are shown and recorded."""

    @field_validator("teacher", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        """ "first,second" is two names."""
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list | tuple) or not all(isinstance(part, str) for part in given):
            return value
        return tuple(name.strip() for part in given for name in part.split(","))


class TrackingConfig(Section):
    """Where metrics go, in addition to the run's metrics.jsonl. API keys come from the tracker's login, never from here."""

    report_to: Literal["auto", "none", "wandb", "tensorboard", "trackio", "mlflow"] = "auto"
    """`auto`: wandb if it is installed and logged in, else none."""
    project: str = "ptk"
    """Project that the run belongs to."""
    entity: str = ""
    """Team or user. Empty: the login's default."""
    mode: Literal["online", "offline", "disabled"] = "online"
    """W&B's mode. `offline` writes a folder that `wandb sync` sends later."""


class EvaluateConfig(Section):
    """How models are scored."""

    on: tuple[Name, ...] = ()
    """Texts to score: `path` or `name=path`, `validation` (the held-out rows) or `general` (general English that ships with ptk). Empty: validation and general."""
    stride: Positive | Auto = "auto"
    """New tokens per window of a long document. `auto`: half the context."""
    context: Positive | Auto = "auto"
    """Tokens per window, the same for all models. `auto`: the shortest row length of the runs, or 1,024 for models not trained here, never more than a model supports."""
    batch_tokens: Positive | Auto = "auto"
    """Tokens that go through the model at once. `auto`: 8,192; on a CPU one window or 1,024 tokens per core, whichever is more."""
    sample: Count = 0
    """Score at most about this many bytes of each text, in documents drawn by seed. 0: all."""
    against_base: bool = True
    """Score the base too, if the run has one."""
    blend: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """Points on the line from base to run to score as well: 0 is the base, 1 the run, 0.5 the mean of their weights. Shows gain against forgetting."""
    memorization: bool = False
    """Also count the passages that the model continues word for word."""
    chat: bool = False
    """Also measure what is left of a base that was tuned for chat: the probability of its own answers, and how many of 51 instructions, checked by program, each model follows."""
    samples: Count = 2
    """Number of prompts that each model continues in the report: the run's `train.sample_prompts`, or openings of the texts."""
    tasks: tuple[Name, ...] = ()
    """lm-eval tasks to run as well (extra `lm-eval`): names, or folders with your own tasks, which need no network."""
    seed: Seed = 0
    """Seed of the samples and of the bootstrap."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Precision of the forward pass. With fp32, scores are comparable across machines."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `xpu` or `mps`."""

    @field_validator("blend", mode="before")
    @classmethod
    def _split_points(cls, value: Any) -> Any:
        """ "0,0.5,1" is three points."""
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list | tuple):
            return value
        return tuple(point for part in given for point in (part.split(",") if isinstance(part, str) else [part]))


class GenerateConfig(Section):
    """How text is sampled."""

    max_tokens: Positive = 128
    """Maximum tokens to write."""
    temperature: Annotated[float, Field(ge=0, le=1000)] = 0.8
    """Divides the logits. 0: greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Sample from the most probable tokens whose probabilities add up to this."""
    top_k: Count = 50
    """Sample from this many most probable tokens. 0: all."""
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Sample from tokens that are at least this probable, relative to the most probable one."""
    repetition_penalty: Rate = 1.0
    """Divides the logits of tokens that have already appeared. 1: off."""
    suffix: str = ""
    """What comes after the text to write: the model fills in the middle between the prompt and this. Needs a model that was trained to (`data.fim_rate`)."""
    chat: bool = False
    """Give each prompt as a message to answer, through the model's chat template, instead of a text to continue."""
    greedy: bool = False
    """Always take the most probable token."""
    seed: Seed = 0
    """Seed of the sampling; sample i uses seed + i."""
    samples: Positive = 1
    """Texts per prompt."""
    stop: tuple[Name, ...] = ()
    """Texts that end a sample when the model writes them."""
    probabilities: bool = False
    """Show each token's probability, and record the most probable alternatives."""
    engine: Literal["torch", "llama.cpp"] = "torch"
    """What runs the model. llama.cpp needs the extra `llama-cpp`."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `xpu` or `mps`."""
    precision: Literal["auto", "fp32", "bf16", "bf16-weights", "int8-weights"] = "auto"
    """`auto`: bf16 on a GPU, fp32 on a CPU; with bf16 weights where the CPU has bf16 and a timing says they are faster. `int8-weights`: on a CPU, the text is written with weights of 8 bits: faster, and not always the same words."""


class Config(Section):
    """The whole config. A file such as ptk.toml can hold any part of it."""

    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    tracking: TrackingConfig = TrackingConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    generate: GenerateConfig = GenerateConfig()
    trainer: dict[str, Any] = Field(default_factory=dict)
    """Passed to transformers' TrainingArguments under their own names, such as `adam_epsilon`. What ptk has a key for is set with that key."""


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
    "report_to": "tracking.report_to", "output_dir": "--artifacts",
}  # fmt: skip
"""TrainingArguments that ptk sets itself: under [trainer] they would have no effect, or only half of it."""
