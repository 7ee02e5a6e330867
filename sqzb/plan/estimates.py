"""What a run computes, holds and writes, from its sizes alone."""

from typing import NamedTuple

from sqzb.model.config import SqueezeBertConfig
from sqzb.model.costs import TRAINING, Cost, costs, total
from sqzb.plan.hardware import FULL_STEP, LEAST_STEP, Machine, Measured, speed

WEIGHT, GRADIENT, MOMENT = 4, 4, 4  # bytes of a number in fp32
REST_OF_CHECKPOINT = 2**21  # bytes of vocabulary, recipe and state
USUAL = SqueezeBertConfig()  # the model of the measurements in hardware.yaml
GB = 10**9


class Sizes(NamedTuple):
    """The sizes of a model that is open.

    name: its class and layers, for people.
    flops: floating-point operations of a forward of one sequence.
    """

    name: str
    parameters: int
    flops: int


class Workload(NamedTuple):
    """A run, as far as its cost goes.

    batch: sequences of a step, over all devices.
    length: tokens of a sequence, padding included; of the longest one in finetuning.
    predictions: masked positions of a sequence, for the MLM head; 0 for none.
    labels: classes of the head on the pooler; 0 for none.
    precision: fp32, bf16 or auto.
    micro_batch: sequences that a device computes at once; None: as many as fit.
    checkpoints: number that is kept.
    sizes: of the model; None: those of `config`.
    is_muon: whether the optimizer keeps one moment of the encoder's matrices, in place of two.
    is_averaged: whether the run keeps the mean of its last weights.
    """

    config: SqueezeBertConfig
    steps: int
    batch: int
    length: int
    predictions: int
    labels: int
    precision: str
    micro_batch: int | None
    checkpoints: int
    sizes: Sizes | None = None
    is_muon: bool = False
    is_averaged: bool = False

    @property
    def model_name(self) -> str:
        """The model for people, such as SqueezeBERT 12 x 768."""
        if self.sizes is not None:
            return self.sizes.name
        return f"SqueezeBERT {self.config.num_hidden_layers} x {self.config.hidden_size}"

    @property
    def is_upper_bound(self) -> bool:
        """Whether sequences may be shorter than `length`: those of finetuning."""
        return self.predictions == 0

    @property
    def positions(self) -> int:
        """Positions of the run, padding included."""
        return self.steps * self.batch * self.length

    @property
    def parameters(self) -> int:
        """Parameters of the model with its heads."""
        return self._forward(1).parameters if self.sizes is None else self.sizes.parameters

    @property
    def moments(self) -> int:
        """Numbers that the optimizer keeps."""
        return 2 * self.parameters - (matrix_parameters(self.config) if self.is_muon else 0)

    @property
    def averages(self) -> int:
        """Numbers of the mean of the weights."""
        return self.parameters if self.is_averaged else 0

    @property
    def flops(self) -> int:
        """Floating-point operations of the run."""
        if self.sizes is not None:
            return TRAINING * self.steps * self.batch * self.sizes.flops
        return TRAINING * self.steps * self._forward(self.batch).flops

    @property
    def is_usual(self) -> bool:
        """Whether the model has the sizes for which speeds were measured."""
        sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        return all(getattr(self.config, size) == getattr(USUAL, size) for size in sizes)

    def on(self, machine: Machine) -> "Workload":
        """Return the workload in the precision that `auto` means on a machine."""
        if self.precision != "auto":
            return self
        return self._replace(precision="fp32" if machine.device.peak.bf16 is None else "bf16")

    def _forward(self, sequences: int) -> Cost:
        return total(costs(self.config, sequences, self.length, self.predictions, self.labels))

    def seconds(self, machine: Machine) -> tuple[float, Measured | None]:
        """Return the time of all steps on a machine, and the measurement behind it, if any.

        Several devices are expected to be as many times as fast as one. The time of small steps is
        rough, and no measurement is of them.
        """
        flops = self.flops / self.positions
        positions, measured = speed(
            machine.device, self.length, self.precision, flops, self.is_usual
        )
        seconds = self.positions / positions / machine.number
        if not self.has_small_steps(machine):
            return seconds, measured
        return max(seconds, self.steps * LEAST_STEP * self.is_usual), None

    def has_small_steps(self, machine: Machine) -> bool:
        """Whether a device has so little to compute in a step that it waits between operations."""
        return self.batch * self.length < FULL_STEP * machine.number

    def activations(self, micro_batch: int, fused: bool = False) -> int:
        """Return the bytes that a forward of a micro-batch keeps for its backward.

        fused: whether the attention keeps no scores, as the Triton kernels do.

        The factors count the tensors that autograd saves, with dropout: a test compares them.
        """
        number = 2 if self.precision == "bf16" else 4
        config, positions = self.config, micro_batch * self.length
        width, layers = config.hidden_size, config.num_hidden_layers
        scores = 0 if fused else 3 * config.num_attention_heads * self.length
        in_layers = layers * positions * number * (10 * width + config.intermediate_size + scores)
        in_embeddings = positions * 12 * width
        # Logits and their gradient are in fp32.
        in_head = micro_batch * self.predictions * (8 * config.vocab_size + 16 * width)
        return in_layers + in_embeddings + in_head

    def memory(self, micro_batch: int, fused: bool = False) -> dict[str, int]:
        """Return the bytes of a device by part."""
        weights = WEIGHT * self.parameters
        if self.precision == "bf16":
            weights += 2 * self.parameters  # the copies of autocast
        parts = {
            "weights": weights,
            "gradients": GRADIENT * self.parameters,
            "moments": MOMENT * self.moments,
            "activations": self.activations(micro_batch, fused),
        }
        return parts | ({"average": WEIGHT * self.averages} if self.is_averaged else {})

    def fitting(self, machine: Machine) -> int:
        """Return the micro-batch of a device: the recipe's, or the largest that fits."""
        if self.micro_batch is not None:
            return self.micro_batch
        share = max(1, self.batch // machine.number)
        fused = is_fused(machine)
        room = 0.9 * machine.device.memory * GB
        sizes = [size for size in range(1, share + 1) if share % size == 0]
        fit = [size for size in sizes if sum(self.memory(size, fused).values()) <= room]
        return max(fit, default=1)

    def checkpoint_bytes(self) -> int:
        """Return the bytes of a checkpoint."""
        weights = WEIGHT * (self.parameters + self.averages)
        return weights + MOMENT * self.moments + REST_OF_CHECKPOINT

    def disk_bytes(self) -> int:
        """Return the bytes of all checkpoints, one that is being written, and the final model."""
        return (self.checkpoints + 1) * self.checkpoint_bytes() + WEIGHT * self.parameters


def matrix_parameters(config: SqueezeBertConfig) -> int:
    """Return the weights of the encoder's linear layers, without biases: Muon's part."""
    width, middle = config.hidden_size, config.intermediate_size
    narrow = [config.q_groups, config.k_groups, config.v_groups, config.post_attention_groups]
    wide = [config.intermediate_groups, config.output_groups]
    weights = sum(width * width // groups for groups in narrow)
    weights += sum(width * middle // groups for groups in wide)
    return config.num_hidden_layers * weights


def is_fused(machine: Machine) -> bool:
    """Return whether the Triton kernels run on the machine, whose attention keeps no scores."""
    return machine.device.name.startswith(("H100", "H200"))
