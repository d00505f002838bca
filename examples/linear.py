"""A complete agent of one's own: a linear relative of BCO, in the seven methods that an agent fills in."""

from dataclasses import dataclass

import torch
from gymnasium import spaces

from aime_gym.agents import ImitationAgent
from aime_gym.data import TrajectoryDataset
from aime_gym.training.optimizer import Optimizer


@dataclass(frozen=True)
class LinearConfig:
    updates: int = 1000
    learning_rate: float = 1e-2


def joined(observation):  # one tensor for each sensor -> (..., D)
    return torch.cat(list(observation.values()), dim=-1)


class LinearAgent(ImitationAgent):
    """a_{t-1} = g(o_{t-1}, o_t) from play; a_t = pi(o_{t-1}, o_t) cloned from what g says of the demonstrations."""

    presets = {"default": LinearConfig()}  # frozen dataclasses of JSON values
    needs_play = True  # imitate stands on pretrain

    def _setup_networks(self):
        if not isinstance(self.action_space, spaces.Box):
            raise NotImplementedError(f"action_space: LinearAgent expects a Box, got {self.action_space}")
        self.inverse_model, self.policy = self._linear(), self._linear()

    def _linear(self):
        return torch.nn.Linear(2 * sum(self.sensor_sizes.values()), self.action_encoding.size)

    def _get_torch_save_params(self):
        return ["inverse_model", "policy"], []  # all that is learnt: what a file holds

    def _pretrain(self, play, loop):
        data = TrajectoryDataset(play, self.action_encoding, self.device)
        self._regress(self.inverse_model, data, data.prev_actions, 0, "inverse", loop)

    def _imitate(self, demos, loop):  # no actions in here
        data = TrajectoryDataset(demos, None, self.device)
        with self._initial_weights():  # a new policy, from the agent's own randomness
            self.policy = self._linear().to(self.device)
        self._regress(self.policy, data, self._infer_actions(data), 1, "policy", loop)

    def _regress(self, network, data, actions, lag, phase, loop):
        optimizer = Optimizer([network], self.config.learning_rate)
        rows = (~data.first_rows()).nonzero().squeeze(-1)

        def update():
            batch = rows[self._integers(len(rows), 64)]
            stack = joined(data.windows(batch - lag, 2)).flatten(1)
            loss = (network(stack) - actions[batch]).square().mean()
            optimizer.step(loss)
            return {"loss": loss.detach()}

        # Progress, log, callbacks, Ctrl-C and checkpoints; the last argument is all that an update changes.
        loop.run(phase, self.config.updates, update, optimizer)

    @torch.no_grad()
    def _infer_actions(self, demos):  # (N, A): the action that led to each record
        rows = torch.arange(len(demos), device=self.device)
        return self.inverse_model(joined(demos.windows(rows, 2)).flatten(1)).clamp(-1, 1)

    def _initial_state(self, observation):  # a tuple of tensors (n_envs, ...); () for an agent without a state
        return (joined(observation),)

    def _act(self, observation, state, generator):  # generator: None asks for the most likely action
        now = joined(observation)
        action = self.policy(torch.cat([state[0], now], dim=-1))
        if generator is not None:
            action = action + 0.1 * self._noise(*action.shape, of=generator)
        return action.clamp(-1, 1), (now,)
