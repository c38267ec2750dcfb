"""vLLM's CPU worker without three faults that ordinary requests meet (``--worker-cls``).

* ``seed`` with a prompt in several chunks ended the engine: vLLM draws a token for every request of
  a step, also for one whose prompt is not computed to its end yet. That token is thrown away and
  the request's generator set back, so that a seed gives the same answer however the prompt was cut.
  vLLM sets it back by its offset, which generators on CUDA have and those on CPU do not.
* ``top_k`` with speculative decoding ended it in a step without drafted tokens (a prompt): vLLM
  looks for the largest k among no rows.
* ``top_k``, ``top_p``, ``temperature`` with speculative decoding were not obeyed, and a top_k out
  of thin air ended the engine: vLLM spreads them over the drafted tokens with a kernel whose CPU
  version fills a copy, so that uninitialised memory was read. It is replaced through vLLM's own
  registry of such versions.

Written against vLLM 0.32; tests/engine/test_parameters.py asks for each.
"""

from __future__ import annotations

from typing import Any

from vllm.triton_utils.dispatcher import register_kernels
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker


def expand(
    output: Any, values: Any, cu_num_tokens: Any, replace_from: float, replace_to: float, *_: Any
) -> None:
    """Gives each token its request's value (tensors: tokens, requests, requests).

    Args:
        output: filled, one value a token.
        values: one a request; ``replace_from`` among them counts as ``replace_to``.
        cu_num_tokens: tokens of each request and all before it.
        replace_from: see values.
        replace_to: see values.
    """
    counts = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1))
    replaced = values.masked_fill(values == replace_from, replace_to)
    output.copy_(replaced.repeat_interleave(counts))


class ModelRunner(CPUModelRunner):  # type: ignore[misc]  # vLLM has no types without its install
    """Samples with care; has no state of its own."""

    def _sample(self, logits: Any, spec_decode_metadata: Any) -> Any:
        """Keeps the whole state of generators, and samples plainly where there is no draft."""
        if spec_decode_metadata is not None and not any(spec_decode_metadata.num_draft_tokens):
            spec_decode_metadata = None
        generators = self.input_batch.generators
        unfinished = self.discard_request_mask.np[: self.input_batch.num_reqs].nonzero()[0]
        states = {i: generators[i].get_state() for i in map(int, unfinished) if i in generators}
        output = super()._sample(logits, spec_decode_metadata)
        for i, state in states.items():
            generators[i].set_state(state)
        return output

    def _bookkeeping_sync(self, *arguments: Any, **named: Any) -> Any:
        """Hides the generators, which have been set back, from the call that would do it again."""
        generators, self.input_batch.generators = self.input_batch.generators, {}
        try:
            return super()._bookkeeping_sync(*arguments, **named)
        finally:
            self.input_batch.generators = generators


class Worker(CPUWorker):  # type: ignore[misc]
    """What ``--worker-cls`` names."""

    def init_device(self) -> None:
        """Makes the model runner, as ours if it is of the kind that ours extends."""
        register_kernels({"vllm.v1.sample.rejection_sampler.expand_kernel": expand})
        super().init_device()
        if type(self.model_runner) is CPUModelRunner:
            self.model_runner.__class__ = ModelRunner
