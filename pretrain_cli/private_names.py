"""Lists every private name of another library that ptk leans on, and what each has to do.

A release may move any of them without notice: `tests/test_private_names.py` fails with the name when one does.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PrivateName:
    """One private name of a library.

    Attributes:
        owner: where it lives, as an import path of a module or class.
        name: the attribute, or for a text the words.
        used_in: the file of ptk that relies on it.
        does: what ptk relies on.
        parameters: of a method or function, without ``self``; None where ptk doesn't call it.
    """

    owner: str
    name: str
    used_in: str
    does: str
    parameters: tuple[str, ...] | None = None


TRAINER = "transformers.Trainer"
TRAINER_FILE = "training/trainer.py"
CONTENTS_FILE = "training/keeping/contents.py"
MODEL_FILE = "training/processes/sharding.py"
KERNELS_FILE = "evaluation/cpu_kernels.py"
MKLDNN = "torch.ops.mkldnn"

PRIVATE_NAMES = (
    PrivateName(
        TRAINER, "_get_grad_norm", TRAINER_FILE, "runs after the backward passes and before the optimizer's step",
        ("model", "grad_norm"),
    ),
    PrivateName(
        TRAINER, "_maybe_log_save_evaluate", TRAINER_FILE, "runs after each optimizer step, and once after the loop",
        (
            "tr_loss", "grad_norm", "model", "trial", "epoch", "ignore_keys_for_eval", "start_time", "learning_rate",
        ),
    ),
    PrivateName(TRAINER, "_save_checkpoint", TRAINER_FILE, "saves a step", ("model", "trial")),
    PrivateName(
        TRAINER, "_load_from_checkpoint", CONTENTS_FILE, "reads the weights of a checkpoint",
        ("resume_from_checkpoint", "model"),
    ),
    PrivateName(
        TRAINER, "_load_optimizer_and_scheduler", CONTENTS_FILE, "reads optimizer.pt and scheduler.pt", ("checkpoint",)
    ),
    PrivateName(
        TRAINER, "_save_optimizer_and_scheduler", CONTENTS_FILE, "writes optimizer.pt and scheduler.pt", ("output_dir",)
    ),
    PrivateName(TRAINER, "_load_rng_state", TRAINER_FILE, "restores the random state", ("checkpoint",)),
    PrivateName(TRAINER, "_save_rng_state", CONTENTS_FILE, "writes the random state of each process", ("output_dir",)),
    PrivateName(
        TRAINER, "_save", CONTENTS_FILE, "writes the config and the given weights", ("output_dir", "state_dict")
    ),
    PrivateName(TRAINER, "_load_scaler", CONTENTS_FILE, "reads fp16's loss scale", ("checkpoint",)),
    PrivateName(TRAINER, "_save_scaler", CONTENTS_FILE, "writes fp16's loss scale", ("output_dir",)),
    PrivateName(
        TRAINER, "_get_num_items_in_batch", TRAINER_FILE, "counts the labels that are scored, over all processes",
        ("batch_samples", "device"),
    ),
    PrivateName(TRAINER, "_prepare_input", TRAINER_FILE, "puts what a batch holds on the device", ("data",)),
    PrivateName(TRAINER, "_get_learning_rate", TRAINER_FILE, "gives the scheduler's last rate", ()),
    PrivateName(
        TRAINER, "_defer_fsdp_gradient_reduction", TRAINER_FILE,
        "is the context in which all micro-batches but the last of a step run under FSDP",
    ),
    PrivateName(TRAINER, "_loss_shifts_labels", TRAINER_FILE, "says that the model's loss shifts its labels itself"),
    PrivateName(TRAINER, "_created_lr_scheduler", TRAINER_FILE, "says that the scheduler is in place"),
    PrivateName(
        "transformers.TrainingArguments", "_n_gpu", "training/arguments.py",
        "is how many GPUs DataParallel takes: 1 keeps it off",
    ),
    PrivateName(
        "transformers.TrainingArguments", "_setup_devices", "training/arguments.py",
        "is the cached property that holds the device Trainer trains on",
    ),
    PrivateName(
        "transformers.distributed", "_is_distributed_loading_by_transformers", MODEL_FILE,
        "says that the model comes sharded, so that Trainer adds no wrapper of its own",
    ),
    PrivateName(
        "transformers.distributed", "_is_fsdp_managed_module", MODEL_FILE, "says that FSDP holds the weights"
    ),
    PrivateName(
        "torch.utils.data.dataloader._MultiProcessingDataLoaderIter", "_workers", "training/rows/feed.py",
        "lists the loader's worker processes",
    ),
    PrivateName(
        "torch.nn.Module", "_compiled_call_impl", "training/choices/compilation.py",
        "is what a layer's compile() makes; None: it runs as it is",
    ),
    PrivateName(
        "torch._subclasses.fake_tensor", "FakeTensorMode", "training/measuring/estimate.py",
        "stands for tensors without memory",
    ),
    PrivateName(
        "transformers.PreTrainedModel", "_supports_attention_backend", "training/context.py",
        "says that a model's attention comes from the list of attentions, with what is handed on to it",
    ),
    PrivateName(MKLDNN, "_reorder_linear_weight", KERNELS_FILE, "lays a weight out for the CPU's products"),
    PrivateName(MKLDNN, "_linear_pointwise", KERNELS_FILE, "multiplies with a weight that was laid out"),
    PrivateName(MKLDNN, "_is_mkldnn_bf16_supported", KERNELS_FILE, "says whether bf16 products are native"),
    PrivateName(
        "typer._completion_shared", "_completion_scripts", "cli/completing.py", "holds each shell's script, by its name"
    ),
    PrivateName(
        "wandb-core", '"filestream: request sent","status":"200', "training/keeping/wandb_state.py",
        "is in wandb's own log after metrics have arrived",
    ),
    PrivateName(
        "wandb-core", "retrying", "training/keeping/wandb_state.py", "is in wandb's own log while its server is away"
    ),
)  # fmt: skip
