"""Agents of other packages: the example, one without a state, and broken ones."""

import torch
from linear import LinearAgent, joined

from aime_gym.data import TrajectoryDataset


class StatelessAgent(LinearAgent):
    """Linear agent without a state, on one observation twice."""

    def _initial_state(self, observation):
        return ()

    def _act(self, observation, state, generator):
        return super()._act(observation, (joined(observation),), generator)[0], ()


# Broken, each in one way.


class IgnoresStarts(LinearAgent):
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return super().predict(observation, state, None, deterministic)


class DrawsGlobally(LinearAgent):
    def _act(self, observation, state, generator):
        action, after = super()._act(observation, state, None)
        return action if generator is None else (action + 0.1 * torch.randn(action.shape)).clamp(-1, 1), after


class ForgetsAModule(LinearAgent):
    def _get_torch_save_params(self):
        return ["inverse_model"], []


class ForgetsItsOptimizer(LinearAgent):
    def _regress(self, network, *rest):
        loop = rest[-1]
        run = loop.run
        loop.run = lambda phase, total, update, state: run(phase, total, update, network)
        super()._regress(network, *rest)
        loop.run = run


class GoesOnFromTheOldPolicy(LinearAgent):
    def _imitate(self, demos, loop):
        dataset = TrajectoryDataset(demos, None, self.device)
        self._regress(self.policy, dataset, self._infer_actions(dataset), 1, "policy", loop)


class CountsNothing(LinearAgent):
    def _regress(self, network, dataset, actions, lag, phase, loop):
        with torch.no_grad():
            network.bias.copy_(actions.mean(0))


class TouchesTheWorldOfOthers(LinearAgent):
    def _regress(self, network, dataset, actions, lag, phase, loop):
        torch.manual_seed(0)
        super()._regress(network, dataset, actions, lag, phase, loop)
