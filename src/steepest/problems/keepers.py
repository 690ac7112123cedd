"""How environments of Gymnasium are taken apart into arrays and put together again, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# What MuJoCo derives from the state and Gymnasium's robots read before they step again.
DERIVED = (
    "xpos", "xquat", "xmat", "xipos", "ximat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "subtree_com", "cinert",
    "cvel", "cfrc_ext", "qfrc_actuator", "qfrc_constraint", "sensordata",
)  # fmt: skip


class ClassicControl:
    """Classic control keeps all in `state`; its precision differs between environments and even between steps."""

    @staticmethod
    def take(env: Any) -> dict[str, Array]:
        state = np.asarray(env.state)
        return {"state": state.astype(np.float64), "single": np.array(state.dtype == np.float32)}

    @staticmethod
    def give(env: Any, parts: dict[str, Array]) -> None:
        env.state = parts["state"].astype(np.float32 if parts["single"] else np.float64)
        if hasattr(env, "steps_beyond_terminated"):
            env.steps_beyond_terminated = None


class Physics:
    """MuJoCo's integration state decides the physics to come; `DERIVED` what rewards read of the step before."""

    @staticmethod
    def take(env: Any) -> dict[str, Array]:
        import mujoco

        whole = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(env.model, whole))
        mujoco.mj_getState(env.model, env.data, state, whole)
        return {"state": state, "derived": np.concatenate([np.ravel(getattr(env.data, name)) for name in DERIVED])}

    @staticmethod
    def give(env: Any, parts: dict[str, Array]) -> None:
        import mujoco

        whole = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.ascontiguousarray(parts["state"])
        mujoco.mj_setState(env.model, env.data, state, whole)
        mujoco.mj_forward(env.model, env.data)
        mujoco.mj_setState(env.model, env.data, state, whole)  # forward moved the warm start
        start = 0
        for name in DERIVED:
            array = getattr(env.data, name)
            array[...] = parts["derived"][start : start + array.size].reshape(array.shape)
            start += array.size


KEEPERS: tuple[tuple[str, Any], ...] = (("gymnasium.envs.classic_control", ClassicControl), ("gymnasium.envs.mujoco", Physics))
