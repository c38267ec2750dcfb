"""vLLM: the bundled runtime images, its configuration file, where it keeps and finds models.

The pod template is rendered when a revision is made and kept verbatim after that; whatever is
changed here reaches only new revisions (docs/contract.md, Runtime).
"""

from __future__ import annotations

from typing import Final

from llmfleet.api import LLMDeployment
from llmfleet.planning.children.engines.engine import Engine
from llmfleet.planning.children.engines.pod import CACHE_PATH, Parts, render_pod_template
from llmfleet.planning.snapshot import JSON, OperatorSettings

CHAT_TEMPLATE_PATH: Final = "/var/run/llmfleet/chat-template"
CHAT_TEMPLATE_VOLUME: Final = "llmfleet-chat-template"


def engine_image(deployment: LLMDeployment, settings: OperatorSettings) -> str:
    """The runtime image of a revision made now: the user's, or the bundled one per device."""
    if deployment.spec.engine.image:
        return deployment.spec.engine.image
    return (
        settings.runtime_image_cpu
        if deployment.spec.accelerator.is_cpu
        else settings.runtime_image_gpu
    )


def runtime_config(deployment: LLMDeployment, revision: str) -> JSON:
    """The runtime's configuration file (docs/contract.md, Runtime)."""
    spec = deployment.spec
    accelerator: JSON = (
        {"type": "cpu"}
        if spec.accelerator.is_cpu
        else {
            "resource": spec.accelerator.resource_name,
            "count": spec.accelerator.resource_count,
        }
    )
    return {
        "schema": 1,
        "deployment": deployment.metadata.name,
        "namespace": deployment.metadata.namespace,
        "revision": revision,
        "model": spec.model.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"secret_ref"}
        ),
        "engine": spec.engine.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"image"}
        ),
        "accelerator": accelerator,
        "drainTimeoutSeconds": spec.drain.timeout_seconds,
    }


def build_pod_template(
    deployment: LLMDeployment, settings: OperatorSettings, revision: str
) -> JSON:
    """Render the PodTemplateSpec of a revision."""
    chat_template = _chat_template_volume(deployment)
    parts = Parts(
        image=engine_image(deployment, settings),
        config=runtime_config(deployment, revision),
        env=_hub_env(deployment),
        mounts=[
            {"name": each["name"], "mountPath": CHAT_TEMPLATE_PATH, "readOnly": True}
            for each in chat_template
        ],
        volumes=chat_template,
    )
    return render_pod_template(deployment, revision, parts)


VLLM: Final = Engine(name="vllm", image=engine_image, pod_template=build_pod_template)


def _hub_env(deployment: LLMDeployment) -> list[JSON]:
    env: list[JSON] = [{"name": "HF_HOME", "value": f"{CACHE_PATH}/hf"}]
    secret = token_secret_of_model(deployment)
    if secret:
        reference = {"name": secret, "key": "token"}
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    return env


def token_secret_of_model(deployment: LLMDeployment) -> str | None:
    """Secret with the download token: the model's, else the draft's, else an adapter's."""
    engine = deployment.spec.engine
    draft = engine.speculative_decoding.draft_model if engine.speculative_decoding else None
    references = (
        deployment.spec.model.secret_ref,
        draft.secret_ref if draft else None,
        *(adapter.secret_ref for adapter in engine.lora.adapters),
    )
    return next((each.name for each in references if each), None)


def _chat_template_volume(deployment: LLMDeployment) -> list[JSON]:
    """The ConfigMap's key as a file of that name; nothing without ``engine.chatTemplate``."""
    wanted = deployment.spec.engine.chat_template.config_map_ref
    if wanted is None:
        return []
    items = [{"key": wanted.key, "path": wanted.key}]
    return [{"name": CHAT_TEMPLATE_VOLUME, "configMap": {"name": wanted.name, "items": items}}]
